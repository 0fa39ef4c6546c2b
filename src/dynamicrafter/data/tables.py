"""Rows of CSV and JSONL files, one after the other, each with its line number."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dynamicrafter.errors import InputError

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (".csv", ".tsv", *JSON_LINES)
_LONGEST_LINE = 1 << 20  # characters; a caption has a few hundred, and a file that is no text may have no line's end


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its line in the file, from 1, and its cells by column; what is null or left out is no cell."""

    line: int
    cells: dict[str, str]


def table_columns(path: Path) -> tuple[str, ...]:
    """Columns of a table: a CSV's header, or the keys of a JSONL's first line.

    Raises:
        InputError: there is no such file, or it is no table.
    """
    with _opened(path) as file:
        if path.suffix.lower() in JSON_LINES:
            return tuple(next(_json_rows(file, path), Row(1, {})).cells)
        return _header(_csv_reader(file, path), path)


def table_rows(path: Path) -> Iterator[Row]:
    """Read a table row by row, in little memory.

    Raises:
        InputError: there is no such file, or a line, which is named, is none of a table.
    """
    with _opened(path) as file:
        if path.suffix.lower() in JSON_LINES:
            yield from _json_rows(file, path)
        else:
            yield from _csv_rows(file, path)


@contextmanager
def _opened(path: Path) -> Generator[IO[str]]:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} must end in {', '.join(SUFFIXES)}, as a list of clips does; rename or convert it.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text ({error.reason}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its name.") from None


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise InputError(f"{path}, line {number} is longer than {_LONGEST_LINE} characters; is it a list of clips?")
        yield line


def _csv_reader(file: IO[str], path: Path) -> Any:
    return csv.reader(_lines(file, path), dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")


def _header(reader: Any, path: Path) -> tuple[str, ...]:
    try:
        columns = tuple(name.strip() for name in next(reader, []))
    except csv.Error as error:
        raise InputError(f"{path}, line 1 is no CSV ({error}); mend it.") from None
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(f"{path} names column {twice[0]!r} twice; rename one.")
    return columns


def _csv_rows(file: IO[str], path: Path) -> Iterator[Row]:
    reader = _csv_reader(file, path)
    columns = _header(reader, path)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, line {line} is no CSV ({error}); mend or delete it.") from None
        if not values:
            continue
        if len(values) != len(columns):
            raise InputError(
                f"{path}, line {line} has {len(values)} cells where the header names {len(columns)}; put text with "
                f"commas into double quotes."
            )
        yield Row(line, dict(zip(columns, values, strict=True)))


def _json_rows(file: IO[str], path: Path) -> Iterator[Row]:
    for line, text in enumerate(_lines(file, path), start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError(f"{path}, line {line} is no JSON; write one object a line.") from None
        if not isinstance(value, dict):
            raise InputError(f'{path}, line {line} must be a JSON object, such as {{"path": …, "caption": …}}.')
        yield Row(line, {name: str(cell) for name, cell in value.items() if _is_cell(cell)})


def _is_cell(value: Any) -> bool:
    """Lists, objects and the like are columns of one's own, which nothing reads."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)
