"""The three columns of motion, made from a list's captions.

What is answered goes to a journal beside the output, a line for each row, in order. So a run that was killed goes on
behind the journal's last whole line, and the output appears only when all rows are done.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

from dynamicrafter.data.language_models import Ask
from dynamicrafter.data.motion_words import motion_by_rules
from dynamicrafter.data.motions import Motion, parse_answer
from dynamicrafter.data.records import clean
from dynamicrafter.data.sources import CAPTION_COLUMNS, MOTION_COLUMNS, WEBVID_COLUMNS
from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import check_target, one_line_errors, replacing_file
from dynamicrafter.files.json_files import json_line
from dynamicrafter.files.locks import LOCK, locked
from dynamicrafter.files.tables import table_columns, table_rows

ASKED = 3  # times, before a caption is left without an answer
_NO_ANSWER = ("", "", "")


@dataclass(slots=True)
class AnnotateReport:
    """rows: of the list. resumed: of them, answered by an earlier run. unanswered: left with empty columns.
    bad_answers: why answers of this run were refused, and how often; each was asked for again, up to `ASKED` times.
    """

    rows: int = 0
    resumed: int = 0
    unanswered: int = 0
    bad_answers: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Annotator:
    """Who answers: a name that tells it from others, captions at a time, and the function, None for the rules."""

    name: str
    batch: int
    ask: Ask | None = None


RULES = Annotator("rules", 1000)


def annotate(
    source: Path, target: Path, annotator: Annotator, *, on_rows: Callable[[int], None] | None = None
) -> AnnotateReport:
    """Write a list again with `dynamic_confidence`, `dynamic_wording` and `dynamic_source_category`.

    Rows that get no good answer keep these cells empty.

    Args:
        source: a CSV with a column of captions: name (WebVid), caption, text or prompt.
        target: the CSV to write or replace.
        on_rows: called now and then with the rows done.

    Raises:
        InputError: the list has no captions, or has the columns already; the journal is of another list or annotator,
            or another run writes it; the model can't be asked.
        OutputError: target or journal can't be written.
    """
    columns, caption_column = _columns(source, target)
    report = AnnotateReport()
    journal = target.with_name(f"{target.name}.progress.jsonl")
    with one_line_errors(journal), _opened_journal(journal, annotator.name) as file:
        report.rows = report.resumed = _check_done(file, _captions(source, caption_column), journal)
        try:
            _answer_all(file, islice(_captions(source, caption_column), report.rows, None), annotator, report, on_rows)
            with one_line_errors(target), replacing_file(target) as aside:
                report.unanswered = _write(source, columns, _journaled(file), aside)
            journal.unlink()
        except BaseException:
            if not report.rows:
                journal.unlink(missing_ok=True)
            raise
    return report


def _answer_all(
    file: IO[bytes],
    captions: Iterator[str],
    annotator: Annotator,
    report: AnnotateReport,
    on_rows: Callable[[int], None] | None,
) -> None:
    """Answer captions batch by batch; each batch is on the disk before the next is asked about."""
    while batch := list(islice(captions, annotator.batch)):
        motions = _answers(batch, annotator, report)
        file.write(b"".join(_line(*pair) for pair in zip(batch, motions, strict=True)))
        file.flush()
        os.fsync(file.fileno())
        report.rows += len(batch)
        if on_rows is not None:
            on_rows(report.rows)


def _columns(source: Path, target: Path) -> tuple[tuple[str, ...], str]:
    """Columns of the list, and which holds the captions."""
    for path, name in ((source, "the list"), (target, "the output")):
        if path.suffix.lower() not in (".csv", ".tsv"):
            raise InputError(f"{name} must end in .csv or .tsv, got {path}; convert it first.")
    columns = table_columns(source)
    there = [name for name in MOTION_COLUMNS if name in columns]
    if there:
        raise InputError(f"{source} has a column {there[0]} already; remove the columns of motion to make them anew.")
    wanted = ("name",) if set(WEBVID_COLUMNS) <= set(columns) else CAPTION_COLUMNS
    column = next((name for name in wanted if name in columns), None)
    if column is None:
        raise InputError(f"{source} has no column {' or '.join(wanted)}, only {', '.join(columns) or 'none'}.")
    check_target(target, folder=False)
    if target.exists() and target.samefile(source):
        raise InputError(f"output {target} would replace the list that it is made of; choose another name.")
    return columns, column


def _captions(source: Path, column: str) -> Iterator[str]:
    return (clean(row.cells.get(column, "")) for row in table_rows(source))


def _answers(captions: Sequence[str], annotator: Annotator, report: AnnotateReport) -> list[Motion | None]:
    """A motion for each caption; None where no answer is good however often it is asked for."""
    if annotator.ask is None:
        return [motion_by_rules(caption) for caption in captions]
    motions: list[Motion | None] = [None] * len(captions)
    open_places = list(range(len(captions)))
    for asked in range(ASKED):
        answers = annotator.ask([captions[place] for place in open_places], asked)
        still_open = []
        for place, answer in zip(open_places, answers, strict=True):
            try:
                motions[place] = parse_answer(answer, captions[place])
            except ValueError as error:
                report.bad_answers[str(error)] += 1
                still_open.append(place)
        open_places = still_open
        if not open_places:
            break
    return motions


@contextmanager
def _opened_journal(path: Path, annotator: str) -> Generator[IO[bytes]]:
    """Open the journal for this run alone, begun by the same annotator, ending in a whole line."""
    head = json_line({"annotator": annotator})
    busy = f"{path} is being written by another run; wait for it."
    with locked(path.with_name(f".{path.name}{LOCK}"), busy=busy), path.open("a+b") as file:
        file.seek(0)
        # A line without an end was cut off when a run was killed.
        num_lines, size = 0, 0
        for line in file:
            num_lines += line.endswith(b"\n")
            size += len(line) if line.endswith(b"\n") else 0
        file.seek(0)
        found = file.readline()
        begun = num_lines > 1  # not only by whom
        if begun and found != head:
            raise InputError(
                f"{path} was begun by {_begun_by(found)}, not {annotator}; finish with that, or delete it."
            )
        file.truncate(size if begun else 0)
        if not begun:
            file.write(head)
        yield file


def _begun_by(head: bytes) -> str:
    try:
        return str(json.loads(head)["annotator"])
    except (ValueError, KeyError, TypeError):
        return "another program"


def _check_done(file: IO[bytes], captions: Iterable[str], journal: Path) -> int:
    """How many rows the journal has, each of the caption that stands in the list."""
    done = 0
    rows = iter(captions)
    for key, _ in _journaled(file):
        caption = next(rows, None)
        if caption is None or key != _key(caption):
            raise InputError(f"{journal} is of another list, at row {done + 1}; delete it, or name another output.")
        done += 1
    file.seek(0, os.SEEK_END)
    return done


def _key(caption: str) -> str:
    return hashlib.sha256(caption.encode(errors="surrogatepass")).hexdigest()[:16]


def _line(caption: str, motion: Motion | None) -> bytes:
    return json_line({"key": _key(caption), "cells": _NO_ANSWER if motion is None else motion.cells()})


def _journaled(file: IO[bytes]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """The key and cells of each row, from the journal's beginning."""
    file.seek(0)
    for number, line in enumerate(islice(file, 1, None), start=1):
        try:
            entry = json.loads(line)
            confidence, wording, source = map(str, entry["cells"])
            yield str(entry["key"]), (confidence, wording, source)
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{file.name}, line {number + 1} is damaged; delete the file to begin anew.") from None


def _write(
    source: Path, columns: Sequence[str], journaled: Iterator[tuple[str, tuple[str, str, str]]], path: Path
) -> int:
    """Write all rows; how many have no answer."""
    unanswered = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")
        writer.writerow([*columns, *MOTION_COLUMNS])
        for row, (_, cells) in zip(table_rows(source), journaled, strict=True):
            writer.writerow([*(row.cells.get(name, "") for name in columns), *cells])
            unanswered += cells == _NO_ANSWER
    return unanswered
