"""Jobs from a CSV or JSONL file, with everything that is wrong in it said at once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynamicrafter.errors import InputError
from dynamicrafter.jobs.cells import column_of, job_from
from dynamicrafter.jobs.folders import jobs_in_folder
from dynamicrafter.jobs.job import Defaults, Job, JobsError

JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
_LONGEST = 64 * 2**20  # bytes; a line takes some 200, and a file of another kind may take all memory

Row = tuple[str, dict[str, Any]]


def read_jobs(source: Path, defaults: Defaults, *, published_layout: bool = False) -> list[Job]:
    """Read a list of jobs.

    Args:
        source: a CSV, TSV or JSONL file, or a folder of pictures.
        defaults: for what a line leaves open.
        published_layout: the folder's prompts stand in one text file, line by line; see `folders`.

    Raises:
        JobsError: lines that are no jobs, each said with its number.
        InputError: there is no such list, or nothing in it.
    """
    if source.is_dir():
        jobs = jobs_in_folder(source, defaults, published_layout=published_layout)
    elif published_layout:
        raise InputError(f"{source} is no folder, where --published-layout wants one with pictures and their prompts.")
    else:
        jobs = _jobs_in_file(source, defaults)
    if not jobs:
        raise InputError(f"{source} holds no jobs; write a line for each clip, or put pictures into the folder.")
    return jobs


def _jobs_in_file(source: Path, defaults: Defaults) -> list[Job]:
    suffix = source.suffix.lower()
    if suffix not in (*TABLES, *JSON_LINES):
        raise InputError(f"{source} must be a folder of pictures, or a list that ends in .csv, .tsv or .jsonl.")
    text = _text_of(source)
    problems: list[str] = []
    rows = _table_rows(source, text, problems) if suffix in TABLES else _json_rows(source, text, problems)
    jobs = []
    for where, cells in rows:
        try:
            jobs.append(job_from(cells, where=where, folder=source.parent, defaults=defaults))
        except InputError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise JobsError(source, problems)
    return jobs


def _text_of(source: Path) -> str:
    try:
        if source.stat().st_size > _LONGEST:
            raise InputError(f"{source} is larger than {_LONGEST >> 20} MiB; is it a list of jobs?")
        return source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is no UTF-8 text ({error.reason}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); check its name.") from None


def _table_rows(source: Path, text: str, problems: list[str]) -> Iterator[Row]:
    dialect = "excel-tab" if source.suffix.lower() == ".tsv" else "excel"
    reader = csv.reader(io.StringIO(text, newline=""), dialect)
    try:
        columns = _columns(source, next(reader, []), problems)
        if columns is None:
            return
        while True:
            where = f"{source}, line {reader.line_num + 1}"
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                problems.append(
                    f"{where}: {len(cells)} cells where the header names {len(columns)}; put text with commas into "
                    f"double quotes."
                )
                continue
            yield where, {name: cell for name, cell in zip(columns, cells, strict=True) if cell.strip()}
    except csv.Error as error:
        problems.append(f"{source}, line {reader.line_num}: no CSV ({error}); mend or delete it.")


def _columns(source: Path, header: list[str], problems: list[str]) -> list[str] | None:
    columns, before = [], len(problems)
    for heading in header:
        try:
            columns.append(column_of(heading))
        except InputError as error:
            problems.append(f"{source}, line 1: {error}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    problems += [f"{source}, line 1: column {name} is there twice; remove one." for name in twice]
    return None if len(problems) > before else columns


def _json_rows(source: Path, text: str, problems: list[str]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # JSON's own text may hold other line ends
        where = f"{source}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line, object_pairs_hook=_once_each)
            if not isinstance(values, dict):
                raise InputError('must be a JSON object, such as {"image": "a.jpg", "prompt": "rain"}.')
            yield where, _once_each([(column_of(name), value) for name, value in values.items() if value is not None])
        except (ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, InputError) else "no JSON; write one object a line."
            problems.append(f"{where}: {said}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of pairs. Raises InputError where a name is there twice, of which JSON would take the last."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is there twice; remove one.")
    return dict(pairs)
