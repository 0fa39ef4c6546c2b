"""Tables of rows, CSV or JSON lines, as Excel, pandas and people write them: the one reader of lists.

A list is read as what it says or not at all. So separators, byte-order marks, empty columns and cells that stand for
"nothing" are understood, while a quote that is never closed, which would swallow the rows behind it, is an error.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NoReturn

from dynamicrafter.errors import InputError

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (".csv", ".tsv", *JSON_LINES)
# Names that lists of all kinds give to the columns of files and of texts, in normal form.
FILE_HEADINGS = ("path", "file", "file_name", "filename", "file_path", "filepath")
TEXT_HEADINGS = ("caption", "text", "prompt")

_LONGEST_LINE = 1 << 20  # characters; a caption has a few hundred, and a file that is no text may have no line's end
_SEPARATORS = ",;\t"
_NO_VALUE = frozenset({"", "nan", "NaN", "NAN", "<NA>", "NaT", "None", "#N/A"})  # blank cells of pandas and Excel
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_UNNAMED = re.compile(r"unnamed:?_\d+")  # as pandas reads back the index column that it wrote without a heading

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a list.

    Attributes:
        line: in the file, from 1; where it begins.
        cells: by heading in normal form; text from CSV, any value from JSON. What is blank or null isn't there.
    """

    line: int
    cells: dict[str, Any]


Problem = Callable[[InputError], None]


def normal_heading(text: str) -> str:
    """A heading in the form in which headings are compared: lower case, words joined by underscores."""
    return re.sub(r"[\s-]+", "_", text.strip().lower())


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a list."""
    return path.suffix.lower() in SUFFIXES


def table_columns(path: Path) -> tuple[str, ...]:
    """Headings of a list in normal form: a CSV's, or the keys of a JSON list's first line.

    Raises:
        InputError: there is no such file, or it is no list.
    """
    with _opened(path) as file:
        if path.suffix.lower() in JSON_LINES:
            first = next(_json_values(file, path, _raise), (1, {}))
            return tuple(first[1])
        return tuple(name for name in _CsvRows(file, path, _raise).columns if name)


def table_rows(path: Path, on_problem: Problem | None = None) -> Iterator[TableRow]:
    """Read a list row by row, in little memory.

    Args:
        on_problem: called with each row that is none, which is passed over; without it, the first one raises.

    Raises:
        InputError: there is no such file, it is no text, or a row, whose line is named, is none of a list.
    """
    problem = on_problem or _raise
    with _opened(path) as file:
        if path.suffix.lower() in JSON_LINES:
            for line, values in _json_values(file, path, problem):
                yield TableRow(line, {name: value for name, value in values.items() if not _is_null(value)})
        else:
            yield from _CsvRows(file, path, problem)


def _raise(error: InputError) -> NoReturn:
    raise error


@contextmanager
def _opened(path: Path) -> Generator[IO[str]]:
    if not is_table(path):
        raise InputError(f"{path} must end in {', '.join(SUFFIXES)}, as a list does; rename or convert it.")
    try:
        with path.open("rb") as file:
            mark = file.read(2)
        encoding = "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with path.open(encoding=encoding, newline="") as file:
            yield file
    except UnicodeError as error:
        reason = getattr(error, "reason", None) or str(error)
        raise InputError(f"{path} is no UTF-8 text ({reason}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its name.") from None


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise InputError(f"{path}, line {number} is longer than {_LONGEST_LINE} characters; is it a list?")
        yield line


class _CsvRows:
    """The rows of a CSV file.

    Attributes:
        columns: headings in normal form; empty for a column that has none and is to be empty, or to be passed over.
    """

    def __init__(self, file: IO[str], path: Path, problem: Problem) -> None:
        self._path, self._problem = path, problem
        self._source = _lines(file, path)
        self._line = 0  # read so far
        self._record: list[str] = []  # lines of the row that is being read
        first = next(self._source, "")
        told = re.fullmatch(r'"?sep=(.)"?', first.rstrip("\r\n"), flags=re.IGNORECASE)
        if told is not None:
            self._line, first = 1, next(self._source, "")
        self._separator = told[1] if told is not None else _separator_of(first, path)
        self._reader = csv.reader(
            self._recorded(chain([first] if first else [], self._source)),
            delimiter=self._separator,
            skipinitialspace=self._separator != "\t",
            strict=True,
        )
        self._warned = False
        header = self._next()
        self._header_line = header[0] if header else 1
        self.columns = self._names(header[1] if header else [])

    def __iter__(self) -> Iterator[TableRow]:
        while (found := self._next()) is not None:
            line, values = found
            cells = [value.strip() for value in values]
            while len(cells) > len(self.columns) and not cells[-1]:
                cells.pop()
            if not any(cells):
                continue
            if len(cells) > len(self.columns):
                self._refuse(
                    line,
                    f"has {len(cells)} cells where the header names {len(self.columns)}; put text with "
                    f"{'tabs' if self._separator == chr(9) else repr(self._separator)} into double quotes",
                )
            elif (stray := self._stray(cells)) is not None:
                self._refuse(line, f"has {cells[stray][:40]!r} in column {stray + 1}, which has no heading; name it")
            else:
                yield TableRow(line, self._cells(cells))

    def _cells(self, cells: Sequence[str]) -> dict[str, Any]:
        # Where a semicolon separates, Excel speaks a language whose numbers have a comma.
        comma = self._separator == ";"
        return {
            name: cell.replace(",", ".") if comma and _DECIMAL_COMMA.fullmatch(cell) else cell
            for name, cell in zip(self.columns, cells, strict=False)
            if name and cell not in _NO_VALUE
        }

    def _recorded(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self._line += 1
            self._record.append(line)
            yield line

    def _next(self) -> tuple[int, list[str]] | None:
        """The next row and its line; None behind the last."""
        while True:
            self._record, begins = [], self._line + 1
            try:
                values = next(self._reader)
            except StopIteration:
                return None
            except csv.Error as error:
                self._refuse_quote(begins, str(error))
                continue
            if len(self._record) > 1 and not self._warned:
                self._warn_of_lines(begins, values)
            if values:
                return begins, values

    def _warn_of_lines(self, begins: int, values: Sequence[str]) -> None:
        """Say it where a cell of several lines looks like rows that a quote has swallowed."""
        parts = [part for value in values for part in value.splitlines()[1:]]
        separators = len(values) - 1
        if separators and any(part.count(self._separator) == separators for part in parts):
            self._warned = True
            logger.warning(
                "%s, line %d: a cell in quotes runs on to line %d; if those are rows of their own, a quote is missing.",
                self._path,
                begins,
                self._line,
            )

    def _refuse_quote(self, begins: int, reason: str) -> None:
        opens, closes = _last_quote("".join(self._record), self._separator)
        if opens is None:
            self._refuse(begins, f"is no CSV ({reason}); mend or delete it")
        elif closes is None:
            self._refuse(begins + opens, "opens a double quote that is never closed; close it, or delete it")
        else:
            closed = "" if closes == opens else f" on line {begins + closes}"
            self._refuse(
                begins + opens,
                f"has text behind a double quote that closes{closed}; close each quote at its cell's end, and write a "
                f'quote within the text twice: ""',
            )

    def _refuse(self, line: int, text: str) -> None:
        self._problem(InputError(f"{self._path}, line {line} {text}."))

    def _names(self, headings: Sequence[str]) -> tuple[str, ...]:
        names = [normal_heading(heading) for heading in headings]
        if names and _UNNAMED.fullmatch(names[0]):
            names[0] = ""
        while names and not names[-1]:
            names.pop()
        twice = sorted({name for name in names if name and names.count(name) > 1})
        for name in twice:
            self._refuse(self._header_line, f"names column {name!r} twice; rename one")
        return tuple(names)

    def _stray(self, cells: Sequence[str]) -> int | None:
        """The place of a cell without a heading; the first column's may be a row's number, as pandas writes it."""
        unnamed = (k for k, (name, cell) in enumerate(zip(self.columns, cells, strict=False)) if cell and not name)
        return next((place for place in unnamed if place or not cells[0].isdecimal()), None)


def _separator_of(header: str, path: Path) -> str:
    """The sign that parts the headings: the one that makes most of them, by the file's name where none does."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    counts = {sign: len(next(csv.reader([header], delimiter=sign), [])) for sign in _SEPARATORS}
    return usual if counts[usual] == max(counts.values()) else max(counts, key=lambda sign: counts[sign])


def _last_quote(text: str, separator: str) -> tuple[int | None, int | None]:
    """How many lines down the quote of the cell that breaks a row opens, and closes; None where it doesn't."""
    opened = closed = None
    line, at, begins = 0, 0, True
    inside = False
    while at < len(text):
        sign = text[at]
        line += sign == "\n" or (sign == "\r" and text[at + 1 : at + 2] != "\n")
        if inside:
            if text[at : at + 2] == '""':
                at += 1
            elif sign == '"':
                inside, closed = False, line
                if text[at + 1 : at + 2] not in (separator, "\r", "\n", ""):
                    break
        elif sign == '"' and begins:
            inside, opened, closed = True, line, None
        begins = not inside and (sign in (separator, "\n", "\r") or (begins and sign == " "))
        at += 1
    return opened, closed


def _json_values(file: IO[str], path: Path, problem: Problem) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line and the keys and values of each row, nulls among them."""
    for line, text in enumerate(_lines(file, path), start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text, object_pairs_hook=_once_each)
            if not isinstance(value, dict):
                raise InputError('must be a JSON object, such as {"path": …, "caption": …}, one a line')
            value = _once_each([(normal_heading(name), cell) for name, cell in value.items()])
        except InputError as error:
            problem(InputError(f"{path}, line {line} {error}."))
        except (ValueError, RecursionError):
            problem(InputError(f"{path}, line {line} is no JSON; write one object a line."))
        else:
            yield line, value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of pairs. Raises InputError where a name is there twice, of which JSON would take the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"names {twice!r} twice; remove one")
    return values


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
