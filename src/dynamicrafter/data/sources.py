"""From a list of clips or a folder to records, read once, in order, without holding them.

Lists come from anywhere: their paths must stay in the source's root, by their words alone. Links that lie in the root
are its owner's and are followed, but a folder is not searched behind them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.records import ClipRecord, clean
from dynamicrafter.errors import InputError
from dynamicrafter.files.names import composed, listed_path
from dynamicrafter.files.tables import FILE_HEADINGS, TEXT_HEADINGS, TableRow, table_columns, table_rows

WEBVID_COLUMNS = ("videoid", "page_dir", "name")
MOTION_COLUMNS = ("dynamic_confidence", "dynamic_wording", "dynamic_source_category")
PATH_COLUMNS = ("path", "file", "video", *FILE_HEADINGS[2:], "video_path")  # the first that is there
CAPTION_COLUMNS = TEXT_HEADINGS
VIDEO_SUFFIXES = frozenset(
    f".{name}" for name in ("mp4", "m4v", "mov", "mkv", "webm", "avi", "flv", "3gp", "mpg", "mpeg", "ts", "mts", "m2ts")
) | {".gif", ".webp", ".npy"}
_LONGEST_CAPTION_FILE = 1 << 16  # bytes
_SHOWN = 3  # of what a message lists


@dataclass(slots=True, kw_only=True)
class Tally:
    """What reading a source met: clips listed, left out by either filter, without a caption, and confidences."""

    listed: int = 0
    unsure: int = 0
    other_sources: int = 0
    uncaptioned: int = 0
    least_confidence: float = math.inf
    most_confidence: float = -math.inf
    first_uncaptioned: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was looked at: its kind, its file or folder, and the root of its paths."""

    kind: Literal["webvid", "table", "folder"]
    path: Path
    root: Path
    columns: tuple[str, ...]


def find_source(config: DataConfig) -> Source:
    """Tell a source's kind by its columns, or by being a folder.

    Raises:
        InputError: nothing is there, or it is not of the kind that was asked for, or not of any.
    """
    path = Path(os.path.abspath(config.check()))  # noqa: PTH100 links stay as they are
    root = path if path.is_dir() else path.parent
    root = root if config.root is None else Path(os.path.abspath(config.root))  # noqa: PTH100
    if not path.exists():
        raise InputError(f"{config.path} does not exist; name a CSV or JSONL file of clips, or a folder of videos.")
    if not root.is_dir():
        raise InputError(f"data.root {config.root} is no folder; name the one that the list's paths start from.")
    if path.is_dir():
        if config.kind not in ("auto", "folder"):
            raise InputError(f"{config.path} is a folder, where data.kind {config.kind} wants a file; name the list.")
        if config.root is not None:
            raise InputError(f"data.root {config.root} is for lists, and {config.path} is a folder; leave it out.")
        return Source("folder", path, path, ())
    if config.kind == "folder":
        raise InputError(f"{config.path} is a file, where data.kind folder wants a folder; leave the kind out.")
    return _find_table(config, path, root)


def _find_table(config: DataConfig, path: Path, root: Path) -> Source:
    columns = table_columns(path)
    webvid = config.kind == "webvid" or (config.kind == "auto" and set(WEBVID_COLUMNS) <= set(columns))
    missing = [name for name in WEBVID_COLUMNS if name not in columns] if webvid else []
    if not webvid:
        wanted = PATH_COLUMNS, CAPTION_COLUMNS if config.captions == "required" else ()
        missing = [" or ".join(names) for names in wanted if names and not set(names) & set(columns)]
    if config.min_confidence is not None or config.motion_sources or config.motion_caption_probability:
        missing += [name for name in MOTION_COLUMNS if name not in columns]
    if missing:
        remedy = "; `dynamicrafter data annotate` adds those" * (missing[0] in MOTION_COLUMNS)
        raise InputError(
            f"{config.path} has no column {', '.join(missing)}, only {', '.join(columns) or 'none'}{remedy}."
        )
    return Source("webvid" if webvid else "table", path, root, columns)


def read_records(source: Source, config: DataConfig, tally: Tally | None = None) -> Iterator[ClipRecord]:
    """Read the clips that pass the filters.

    Args:
        tally: counts along.

    Raises:
        InputError: a line is damaged or leads out of the root; at the end, captions are missing or no clip is left.
    """
    tally = tally or Tally()
    found = _folder_records(source.path) if source.kind == "folder" else _table_records(source, config, tally)
    kept = 0
    for name, record in found:
        tally.listed += source.kind == "folder"
        if not record.caption:
            tally.uncaptioned += 1
            if len(tally.first_uncaptioned) < _SHOWN:
                tally.first_uncaptioned.append(name)
        kept += 1
        yield record
    if tally.uncaptioned and config.captions == "required":
        more = ", …" * (tally.uncaptioned > len(tally.first_uncaptioned))
        raise InputError(
            f"{config.path}: {tally.uncaptioned} of {kept} clips have no caption ({', '.join(tally.first_uncaptioned)}"
            f"{more}); write them, or let captions be optional."
        )
    if not kept:
        reason = f"none of its {tally.listed} clips passes the filters; lower them" if tally.listed else "it is empty"
        raise InputError(f"{config.path} holds no clips: {reason}.")


def _table_records(source: Source, config: DataConfig, tally: Tally) -> Iterator[tuple[str, ClipRecord]]:
    path_column = next((name for name in PATH_COLUMNS if name in source.columns), "")
    caption_column = next((name for name in CAPTION_COLUMNS if name in source.columns), "")
    sources = None if config.motion_sources is None else {name.strip().lower() for name in config.motion_sources}
    for row in table_rows(source.path):
        tally.listed += 1
        where = f"{config.path}, line {row.line}"
        if not _passes(row, config.min_confidence, sources, tally, where):
            continue
        if source.kind == "webvid":
            video = _cell(row, "videoid", where).removesuffix(".0")  # as pandas writes it where a cell is blank
            named, captions = f"videos/{_cell(row, 'page_dir', where)}/{video}.mp4", _captions(row, "name")
        else:
            named, captions = _cell(row, path_column, where), _captions(row, caption_column)
        key = _key(named, source.root, where)
        motion = clean(_text(row, "dynamic_wording")) or None
        yield f"line {row.line}", ClipRecord(source.root / key, captions[0], key, motion, captions[1:])


def _cell(row: TableRow, column: str, where: str) -> str:
    value = _text(row, column)
    if not value:
        raise InputError(f"{where} has no {column}; fill it in or delete the line.")
    return value


def _text(row: TableRow, column: str) -> str:
    """A cell as text; empty where there is none, or where JSON has a list or the like."""
    value = row.cells.get(column, "")
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _captions(row: TableRow, column: str) -> tuple[str, ...]:
    """A clip's captions, of which JSON may have a list; an empty one where there is none."""
    value = row.cells.get(column)
    if not isinstance(value, list):
        return (clean(_text(row, column)),)
    return tuple(text for item in value if isinstance(item, str) and (text := clean(item))) or ("",)


def _passes(row: TableRow, least: float | None, sources: set[str] | None, tally: Tally, where: str) -> bool:
    confidence = _confidence(row, where)
    if confidence is not None:
        tally.least_confidence = min(tally.least_confidence, confidence)
        tally.most_confidence = max(tally.most_confidence, confidence)
    if least is not None and (confidence is None or confidence < least):
        tally.unsure += 1
        return False
    if sources is not None and _text(row, "dynamic_source_category").lower() not in sources:
        tally.other_sources += 1
        return False
    return True


def _confidence(row: TableRow, where: str) -> float | None:
    text = _text(row, "dynamic_confidence")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise InputError(f"{where}: dynamic_confidence must be a number, got {text[:40]!r}; mend the line.")
    return value


def _key(named: str, root: Path, where: str) -> str:
    """The path relative to the root, refused where its words lead elsewhere."""
    try:
        named = listed_path(named, root)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if os.path.isabs(named):  # noqa: PTH117 a million times, for which Path is slow
        named = os.path.relpath(named, root)
    key = os.path.normpath(named)
    if key in (".", os.pardir) or key.startswith(os.pardir + os.sep):
        raise InputError(f"{where}: {named!r} leads out of {root}; name the folder that holds all clips as the root.")
    return key


def _folder_records(root: Path) -> Iterator[tuple[str, ClipRecord]]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        texts = {composed(Path(name).stem): name for name in sorted(files) if name.lower().endswith(".txt")}
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                key = str(path.relative_to(root))
                beside = texts.get(composed(path.stem))
                yield key, ClipRecord(path, "" if beside is None else _caption_in(Path(folder, beside)), key)


def _caption_in(path: Path) -> str:
    """The text of a file beside a clip."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_CAPTION_FILE + 1)
        if len(content) > _LONGEST_CAPTION_FILE:
            raise InputError(f"{path} is longer than {_LONGEST_CAPTION_FILE} bytes, too long for a caption; cut it.")
        return clean(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); change its permissions.") from None
