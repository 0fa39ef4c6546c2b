"""Weights on their way from the disk into the system's cache while Python still imports its libraries."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dynamicrafter import hub
from dynamicrafter.errors import InputError
from dynamicrafter.hub.names import WEIGHTS

_BLOCK = 2**17  # bytes; of more at once, Linux reads no more than a disk takes in one request


def read_ahead(name: str) -> threading.Thread | None:
    """Ask the system for a model's files, in the background, where it can be asked and the model is on this machine.

    Nothing depends on it, and the system forgets what it has no room for; errors are told by whoever loads the model.

    Returns:
        The thread that asks; None where the system can't be asked (Windows, macOS).
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    thread = threading.Thread(target=_ask, args=(name,), daemon=True)
    thread.start()
    return thread


def _ask(name: str) -> None:
    try:
        for path in _weights(hub.resolve(name).path):
            with path.open("rb") as file:
                for start in range(0, path.stat().st_size, _BLOCK):
                    os.posix_fadvise(file.fileno(), start, _BLOCK, os.POSIX_FADV_WILLNEED)
    except (InputError, OSError):
        return


def _weights(model: Path) -> Iterator[Path]:
    """Files of weights: the model's own, or those of a folder's networks, in the order in which a run needs them."""
    if model.is_file():
        yield model
        return
    for network in ("vae", "image_encoder", "text_encoder", "image_projector", "unet"):
        files = sorted(path for path in (model / network).glob("*") if path.suffix in WEIGHTS)
        kinds = {path.suffix for path in files}
        first = next((suffix for suffix in WEIGHTS if suffix in kinds), None)
        yield from (path for path in files if path.suffix == first)
