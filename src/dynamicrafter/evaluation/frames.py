"""What every measure asks of a clip, and the extra's packages, imported when one is first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from dynamicrafter.errors import InputError


def check_clip(frames: np.ndarray, *, least: int = 1) -> None:
    """Raises InputError unless frames are uint8 (f, h, w, 3) and at least so many."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        found = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise InputError(f"frames must be a uint8 array of shape (f, h, w, 3), got {found}.")
    if 0 in frames.shape or len(frames) < least:
        raise InputError(f"frames must hold at least {least} frame(s) of one pixel, got shape {frames.shape}.")


def extra(module: str) -> Any:
    """A module of the extra `evaluate`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise InputError(
            f'evaluation needs {missing}, which is not installed; run pip install "dynamicrafter[evaluate]".'
        ) from error
