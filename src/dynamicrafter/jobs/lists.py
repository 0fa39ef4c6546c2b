"""Jobs from a CSV or JSONL file, with everything that is wrong in it said at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamicrafter.errors import InputError
from dynamicrafter.files.tables import JSON_LINES, is_table, table_columns, table_rows
from dynamicrafter.jobs.cells import column_of, job_from
from dynamicrafter.jobs.folders import jobs_in_folder
from dynamicrafter.jobs.job import Defaults, Job, JobsError

_LONGEST = 64 * 2**20  # bytes; a line takes some 200, and a file of another kind may take all memory


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
    if not is_table(source):
        raise InputError(f"{source} must be a folder of pictures, or a list that ends in .csv, .tsv or .jsonl.")
    _check_length(source)
    problems: list[str] = []
    jobs = []
    columns = _columns(source, problems)
    if columns is not None:
        for row in table_rows(source, lambda error: problems.append(str(error))):
            where = f"{source}, line {row.line}"
            try:
                cells = _by_column({name: columns.get(name) or column_of(name) for name in row.cells}, row.cells)
                jobs.append(job_from(cells, where=where, folder=source.parent, defaults=defaults))
            except InputError as error:
                problems.append(f"{where}: {error}")
    if problems:
        raise JobsError(source, problems, jobs=jobs)
    return jobs


def _check_length(source: Path) -> None:
    try:
        if source.stat().st_size > _LONGEST:
            raise InputError(f"{source} is larger than {_LONGEST >> 20} MiB; is it a list of jobs?")
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); check its name.") from None


def _columns(source: Path, problems: list[str]) -> dict[str, str] | None:
    """Column by heading of a CSV; None where a heading means nothing, or two the same."""
    if source.suffix.lower() in JSON_LINES:  # whose lines have keys of their own
        return {}
    columns: dict[str, str] = {}
    for heading in table_columns(source):
        try:
            columns[heading] = column_of(heading)
        except InputError as error:
            problems.append(f"{source}: {error}")
    try:
        _by_column(columns, columns)
    except InputError as error:
        problems.append(f"{source}: {error}")
    return None if problems else columns


def _by_column(columns: Mapping[str, str], cells: Mapping[str, Any]) -> dict[str, Any]:
    """Cells by column instead of by heading. Raises InputError where two headings mean one column."""
    found: dict[str, Any] = {}
    for heading, column in columns.items():
        if column in found:
            same = " and ".join(name for name, meant in columns.items() if meant == column)
            raise InputError(f"columns {same} mean the same; remove one.")
        found[column] = cells[heading]
    return found
