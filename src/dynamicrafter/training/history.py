"""What a run reports: one JSON line a step, and a tracker's curves."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors, sync
from dynamicrafter.files.json_files import json_line, read_json_lines, write_json, write_json_lines

LOSSES = "losses.jsonl"
SETTINGS = "config.json"


class History:
    """Writes from the main process; the others' calls do nothing.

    Args:
        folder: holds `losses.jsonl`, and `config.json` with `settings`.
        step: steps done; lines of later ones, which a killed run wrote after its last checkpoint, are taken out.
        tracker: None for none.
    """

    def __init__(
        self, folder: Path, accelerator: Accelerator, settings: Mapping[str, Any], *, step: int, tracker: str | None
    ) -> None:
        self._accelerator = accelerator
        self._path = folder / LOSSES
        self._file: FileIO | None = None
        if accelerator.is_main_process:
            with one_line_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                write_json(folder / SETTINGS, settings)
                _cut_after(self._path, step)
                self._file = self._path.open("ab", buffering=0)
        if tracker is not None:
            _start(accelerator, settings)

    def add(self, step: int, values: Mapping[str, float], *, seconds: float) -> None:
        """Report a step; its duration stands last, as it is the one value that differs from run to run."""
        if self._file is not None:
            with one_line_errors(self._path):
                line = json_line({"step": step, **values, "seconds": round(seconds, 4)})
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._accelerator.log(dict(values), step=step)

    def flush(self) -> None:
        """Push the lines to the disk."""
        if self._file is not None:
            sync(self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_losses(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `losses.jsonl`; one that a killed run left unfinished is passed over."""
    lines, _ = read_json_lines(folder / LOSSES, remedy="delete the line")
    return [values for _, values in lines]


def _cut_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_losses(path.parent) if line["step"] <= step]
    write_json_lines(path, kept)


def _start(accelerator: Accelerator, settings: Mapping[str, Any]) -> None:
    plain = {
        name: value if isinstance(value, int | float | str | bool) else str(value) for name, value in settings.items()
    }
    try:
        accelerator.init_trackers("tracker", config=plain)
    except ImportError as error:
        raise InputError(
            f'the tracker needs a package ({error}); run pip install "dynamicrafter[train]", or take --tracker none.'
        ) from error
