"""What a file is, by its first bytes and never by its name; a file that is no checkpoint is told what it is instead."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal, NoReturn

from dynamicrafter.errors import CheckpointError

Kind = Literal["zip", "legacy", "safetensors"]

# torch.save before 1.6 opens with its magic number 0x1950a86a20f9469cfc6c as a pickle of its own.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
MAX_HEADER = 100_000_000  # bytes: the safetensors format's own limit
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2")
_STRANGERS = (
    (b"GGUF", "a GGUF file, a quantised format that is not read here; get the .safetensors or .ckpt file"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras weights); get the .safetensors or .ckpt file"),
    (b"\x1f\x8b", "a gzip archive; unpack it and name the file inside"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it and name the file inside"),
    (b"\xfd7zXZ", "an xz archive; unpack it and name the file inside"),
    (b"Rar!", "a RAR archive; unpack it and name the file inside"),
    (b"\x89PNG", "a picture; name the checkpoint instead"),
    (b"\xff\xd8\xff", "a picture; name the checkpoint instead"),
)
_SHOWN = 80  # characters of a strange file's text that a message repeats


def sniff(path: Path) -> Kind | None:
    """Tell the three readable kinds of file apart; None is a file of another kind.

    A kind says how to read the file, not that it is whole or safe.

    Raises:
        CheckpointError: no such file, no file at all, empty, unfinished, unreadable, or a zip archive cut short.
    """
    size = _size_of_file(path)
    head = _first_bytes(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if not _has_table_of_contents(path):
            raise CheckpointError(
                f"{path} is cut short: its end, where a checkpoint keeps its table of contents, is missing at "
                f"{size:,} bytes; download it again."
            )
        return "zip"
    if head.startswith(LEGACY_MAGIC):
        return "legacy"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return "safetensors"
    return None


def refuse_stranger(path: Path) -> NoReturn:
    """Say what a file of no readable kind seems to be, and what to do.

    Raises:
        CheckpointError: always.
    """
    head, size = _first_bytes(path), path.stat().st_size
    for magic, description in _STRANGERS:
        if head.startswith(magic):
            raise CheckpointError(f"{path} is {description}.")
    if not any(head):
        raise CheckpointError(f"{path} begins with nothing but zeros, like an unfinished download; download it again.")
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    if text.startswith("version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`.")
    if text.startswith("<"):
        raise CheckpointError(
            f"{path} is a web page, probably a login or error page of the download; download the file again."
        )
    if text[:1] in ("{", "["):
        raise CheckpointError(f"{path} is {_describe_json(path, text, size)}")
    if "\ufffd" not in text and "\0" not in text and not text.startswith("\x80"):
        raise CheckpointError(
            f"{path} is a text of {size:,} bytes that begins {printable(text)!r}, not weights; download it again."
        )
    raise CheckpointError(
        f"{path} is no checkpoint: its first bytes ({head[:8].hex(' ')}) are neither a safetensors file's nor a "
        f"torch.save file's; download it again or name another file."
    )


def printable(text: str, *, limit: int = _SHOWN) -> str:
    """Text out of a file, made safe for one line of a terminal: control characters escaped, length limited."""
    line = " ".join(text.split()).encode("unicode_escape").decode("ascii")
    return line if len(line) <= limit else f"{line[:limit]}…"


def _size_of_file(path: Path) -> int:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a weights file; name the file inside it.")
    if not path.exists():
        broken = path.is_symlink()
        reason = f"links to {path.readlink()}, which is missing" if broken else "does not exist"
        raise CheckpointError(f"{path} {reason}; check the path{', or download it again' * broken}.")
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder; name a weights file.")
    if path.suffix.lower() in _UNFINISHED:
        raise CheckpointError(f"{path} is an unfinished download; run the download again.")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); download it again.")
    return size


def _has_table_of_contents(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True  # there, but damaged, which its reader tells better


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check its permissions.") from error


def _describe_json(path: Path, text: str, size: int) -> str:
    try:
        value = json.loads(path.read_bytes()) if size < 16 << 20 else None
    except ValueError:
        value = None
    if isinstance(value, dict) and "weight_map" in value:
        return "the index of weights split over several files; put it beside them as model.safetensors.index.json."
    return f"a JSON text, not weights: {printable(text)}; if that is the download's error, download it again."
