"""JSON in files: whole values, and lines that are added one by one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors, replacing_file


def write_json(path: Path, value: Any) -> None:
    """Write a value, in the place of an earlier one only when it is complete.

    Raises:
        OutputError: it can't be written.
    """
    with one_line_errors(path), replacing_file(path) as aside:
        aside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_json_lines(path: Path, values: list[Any]) -> None:
    """Write values, one a line, in the place of earlier ones only when all are there.

    Raises:
        OutputError: they can't be written.
    """
    with one_line_errors(path), replacing_file(path) as aside:
        aside.write_bytes(b"".join(map(json_line, values)))


def json_line(value: Any) -> bytes:
    """A value as one line with its end."""
    return json.dumps(value).encode() + b"\n"


def append_json_line(path: Path, value: Any) -> None:
    """Add a line in one piece, which processes may do at once.

    Raises:
        OutputError: it can't be written.
    """
    with one_line_errors(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(handle, json_line(value))
        finally:
            os.close(handle)


def read_json_lines(path: Path, *, remedy: str) -> tuple[list[tuple[int, Any]], bool]:
    """Read the values of a file of lines, none where there is no file.

    Args:
        remedy: what to do about a damaged line, for the message.

    Returns:
        Pairs of line number, from 1, and value; and whether the file ends in half a line, as after a kill, which is
        left out.

    Raises:
        InputError: a line is no JSON, or the file can't be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], False
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
    whole, _, torn = content.rpartition(b"\n")
    return list(_values(path, whole, remedy)), bool(torn)


def _values(path: Path, content: bytes, remedy: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(content.split(b"\n") if content else [], start=1):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{path}, line {number} is damaged; {remedy}.") from None
