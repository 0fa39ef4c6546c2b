"""Outputs that appear under their name only when they are complete, and errors of the disk in one line."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dynamicrafter.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_SCARCE = 1 << 20  # bytes; with less free, what a library couldn't write found the disk full
_HIDDEN = ".dynamicrafter-"
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "it would exceed the largest file that is allowed here; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "you have no permission to write there; choose another folder",
    errno.EPERM: "you have no permission to write there; choose another folder",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}


@contextmanager
def one_line_errors(path: Path) -> Generator[None]:
    """Turn what the operating system says about writing `path` into one OutputError."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or f"{error.strerror or error}; choose another folder"
        raise OutputError(f"{path} could not be written: {reason}.") from error
    except Exception as error:
        number = _number_in(error, path)
        if number is None:
            raise
        raise OutputError(f"{path} could not be written: {_REASONS[number]}.") from error


def _number_in(error: Exception, path: Path) -> int | None:
    """The system's number of an error that a library tells in its own words; None of another error."""
    said = re.search(r"os error (\d+)", str(error))  # safetensors
    if said is not None and int(said[1]) in _REASONS:
        return int(said[1])
    # torch's writer of archives says only that it failed.
    writing = "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error)
    if writing and shutil.disk_usage(path.parent).free < _SCARCE:
        return errno.ENOSPC
    return None


def is_disk_full(message: str) -> bool:
    """Whether a message of `one_line_errors`, perhaps out of another process, says that nothing more can be written."""
    return any(_REASONS[number] in message for number in (errno.ENOSPC, errno.EDQUOT))


def check_target(path: Path, *, folder: bool) -> None:
    """Find out whether `path` can be written, leaving nothing behind.

    Args:
        path: the output, with symbolic links resolved.
        folder: the output is a folder, not a file.

    Raises:
        OutputError: its folder is missing or closed, or something that must not be replaced has its name.
    """
    with one_line_errors(path):
        if not path.parent.is_dir():
            raise OutputError(f"{path} cannot be written: there is no folder {path.parent}; create it first.")
        if folder:
            _check_replaceable_folder(path)
        else:
            _check_replaceable_file(path)
        with _temporary(path, ".probe") as probe:
            probe.touch(exist_ok=False)


def _check_replaceable_file(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder; add a file name, such as {path / 'clip.mp4'}.")
    try:
        path.lstat()
    except FileNotFoundError:
        return
    if not path.is_file():
        raise OutputError(f"{path} is no regular file; choose another name.")
    path.open("ab").close()  # a file that its owner has made read-only is not ours to replace


def _check_replaceable_folder(path: Path) -> None:
    """Replace only a folder that is empty or holds nothing but a clip of ours."""
    try:
        path.lstat()
    except FileNotFoundError:
        return
    if not path.is_dir():
        raise OutputError(f"{path} is a file, where a folder of PNG frames is to be written; choose another name.")
    names = {entry.name for entry in path.iterdir()}
    frames = {name for name in names if name.endswith(".png") and name[:-4].isdecimal()}
    if names and names != frames | {"clip.json"}:
        raise OutputError(f"{path} holds files that are no frames of a clip; choose another name or empty it.")


@contextmanager
def replacing_file(path: Path, *, within: Path | None = None) -> Generator[Path]:
    """Give a hidden name beside `path`; when the block ends well, what was written there takes `path`'s place.

    Args:
        within: a folder on the same disk for the hidden name, where `clear_leftovers` will find it.
    """
    with _temporary(path if within is None else within / path.name, path.suffix) as aside:
        yield aside
        aside.replace(path)


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed program left half-written under a hidden name; nobody may be writing there."""
    for aside in folder.glob(f"{_HIDDEN}*"):
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder's table of contents is on the disk, where folders can be asked."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing_folder(path: Path) -> Generator[Path]:
    """Give a hidden folder beside `path`; when the block ends well, it takes `path`'s place."""
    with _temporary(path, "") as aside, _temporary(path, ".old") as old:
        aside.mkdir()
        yield aside
        with suppress(FileNotFoundError):
            path.rename(old)
        try:
            aside.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise


@contextmanager
def _temporary(path: Path, suffix: str) -> Generator[Path]:
    """Name something hidden beside `path`, and clear it away in the end, whatever happens."""
    aside = path.parent / f"{_HIDDEN}{secrets.token_hex(6)}{suffix}"
    try:
        yield aside
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
