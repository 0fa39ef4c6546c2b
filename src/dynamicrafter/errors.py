"""Errors that a user can cause, each one clear line.

Every message names the argument, the rule, the value and the remedy. The command line prints the line alone
and ends with exit code 2; anything that is not one of these classes is our own fault and keeps its traceback.
"""

from __future__ import annotations


class InputError(ValueError):
    """A value, picture, file or option from the user breaks a stated rule."""


class CheckpointError(InputError):
    """A file of weights cannot be used: wrong kind, damaged, unsafe, or it misfits the networks."""


class ModelNotFoundError(InputError):
    """No weights on this machine answer to the given name; nothing is downloaded unasked."""


class OutputError(InputError):
    """An output cannot be written: folder missing, no permission, disk full, unknown extension."""


class MachineError(Exception):
    """The machine was not up to it, whatever the user had asked for; the command ends with exit code 1."""


class MemoryShortageError(MachineError, MemoryError):
    """Memory ran out all the same; the message says which option makes the clip fit."""
