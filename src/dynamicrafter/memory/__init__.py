"""What a run takes in memory, and what makes it fit.

footprint.py  bytes of weights and activations by shape; counting.py, counted call by call on the meta device
plan.py       which measures make a run fit a budget; advice.py, in flags where none do
offload.py    networks leave the device and come back; blocks.py, the UNet's blocks one by one
int8.py       weights in 8 bits; tiles.py, pictures in tiles
malloc.py     the C library's heap; pages.py, pages of mapped files
devices.py    the devices of this machine
"""
