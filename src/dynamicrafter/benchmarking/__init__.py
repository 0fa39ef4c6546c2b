"""How fast this machine is with networks of the published size and weights drawn from their names: no download.

clock.py    seconds, memory in use, and the rate of plain matrix products
cases.py    one call of the UNet, timed in turn with matrix products
choice.py   which cases a machine does in the time that is granted
growth.py   how the time grows with frames, pixels and steps
"""
