"""The command `dynamicrafter`: read words, check them, call the animator, say what happens.

main.py      sub-commands, and how each kind of failure ends
parsing.py   words → dataclass, or one line that says what is wrong
commands.py  the sub-commands' arguments and flags
make.py      animate, interpolate and loop
like.py      arguments from an earlier clip's metadata
models.py    download and models
console.py   phases, progress and warnings on stderr
"""
