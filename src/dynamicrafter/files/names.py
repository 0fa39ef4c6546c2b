"""Names of files as people and other systems write them, led back to what lies on the disk."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PureWindowsPath

from dynamicrafter.errors import InputError

_OTHER_DISK = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # C:\, C:/ or \\server


def composed(name: str) -> str:
    """A name in composed letters (NFC), as which names are compared: macOS may keep é as two characters."""
    return unicodedata.normalize("NFC", name)


def as_stored(path: Path) -> Path:
    """The path as the disk spells it where it differs in the composition of letters alone; else `path` itself."""
    if str(path).isascii() or os.path.lexists(path) or path.parent == path:
        return path
    wanted = composed(path.name)
    try:
        found = min(entry for entry in as_stored(path.parent).iterdir() if composed(entry.name) == wanted)
    except (OSError, ValueError):  # no such folder, or nothing in it has the name
        return path
    return found


def listed_path(text: str, folder: Path) -> str:
    """A path out of a list with this system's separators, whichever system wrote it.

    Args:
        folder: where relative paths begin.

    Raises:
        InputError: it holds a NUL character, or names a disk of Windows, which is not here.
    """
    if "\0" in text:
        raise InputError(f"a path must not hold a NUL character, got {text!r}; mend the line.")
    if os.sep == "\\" or not ("\\" in text or _OTHER_DISK.match(text)) or (folder / text).exists():
        return text
    if _OTHER_DISK.match(text):
        name = PureWindowsPath(text).name or "a.jpg"
        raise InputError(
            f"{text} lies on a disk or server of Windows, which isn't here; copy the file, and write its path from "
            f"the list's folder, such as {name}."
        )
    return text.replace("\\", "/")
