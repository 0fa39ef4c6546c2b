"""A clip at one glance."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dynamicrafter.errors import InputError

_GAP = 4  # pixels


def contact_sheet(frames: np.ndarray, *, columns: int = 4) -> Image.Image:
    """Lay a clip's frames out in rows on white, in reading order.

    Args:
        frames: uint8 (f, h, w, 3).
        columns: frames in a row.

    Raises:
        InputError: another type or shape, or no columns.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(f"frames must be uint8 of shape (f, h, w, 3), got {frames.dtype} of shape {frames.shape}.")
    if columns < 1:
        raise InputError(f"columns must be a positive number of frames, got {columns}; try 4.")
    num_frames, height, width, _ = frames.shape
    columns = min(columns, num_frames)
    rows = -(-num_frames // columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), "white")
    for index, pixels in enumerate(frames):
        row, column = divmod(index, columns)
        sheet.paste(Image.fromarray(pixels), (column * (width + _GAP), row * (height + _GAP)))
    return sheet
