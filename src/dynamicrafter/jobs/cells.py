"""What a cell of a list says, as a job: its columns are a clip's options, its pictures and its output's form."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynamicrafter.errors import InputError
from dynamicrafter.files.names import as_stored, composed, listed_path
from dynamicrafter.files.tables import FILE_HEADINGS, TEXT_HEADINGS, normal_heading
from dynamicrafter.jobs.job import Defaults, Job, check_key
from dynamicrafter.modes import Mode, get_mode, mode_for
from dynamicrafter.schema import Text, schema_of
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.specs.options import AnimateOptions, merged
from dynamicrafter.specs.output import OutputOptions

# The first name is the one that messages and documentation use.
_ALIASES = {
    "name": ("name", "key"),
    "image": ("image", "picture", "first", *FILE_HEADINGS),
    "last": ("last", "last_image"),
    "prompt": ("prompt", *TEXT_HEADINGS),
}
_OPTIONS, _OUTPUT = tuple(schema_of(AnimateOptions)), tuple(schema_of(OutputOptions))
COLUMNS = ("name", "image", "last", "prompt", "mode", *_OPTIONS, *_OUTPUT)


def column_of(heading: str) -> str:
    """The column that a heading or a JSON key means.

    Raises:
        InputError: none.
    """
    name = normal_heading(heading)
    for column, names in _ALIASES.items():
        if name in names:
            return column
    if name in COLUMNS:
        return name
    if name in {option.called for option in schema_of(ModelSpec).values()}:  # one model serves a whole list
        raise InputError(f"column {heading!r} can't differ from job to job; give --{name.replace('_', '-')} to all.")
    close = difflib.get_close_matches(name, COLUMNS, n=1)
    advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(COLUMNS)}."
    raise InputError(f"unknown column {heading!r}; {advice}")


def job_from(cells: Mapping[str, Any], *, where: str, folder: Path, defaults: Defaults) -> Job:
    """A job of one line.

    Args:
        cells: by column, as text or as JSON has them; what is empty or null isn't there.
        where: the line's place, for messages.
        folder: where paths begin.

    Raises:
        InputError: a value breaks its rule, or picture and mode don't go together.
    """
    texts = {name: _text(name, cells[name]) for name in ("name", "image", "last", "prompt") if name in cells}
    if "image" not in texts:
        raise InputError("image is missing; name the picture.")
    pictures = tuple(
        as_stored(folder / listed_path(texts[name], folder)) for name in ("image", "last") if name in texts
    )
    key = composed(texts.get("name", "-".join(path.stem for path in pictures)))
    check_key(key)
    return Job(
        where=where,
        clip=ClipSpec(
            pictures=pictures,
            prompts=(texts.get("prompt", defaults.prompt or ""),),
            mode=_mode(cells.get("mode") or defaults.mode, len(pictures)),
            options=merged(defaults.options, {name: cells[name] for name in _OPTIONS if name in cells}),
            item=key,
        ),
        output=replace(defaults.output, **{name: cells[name] for name in _OUTPUT if name in cells}),
    )


def _mode(given: Any, num_pictures: int) -> Mode:
    if given is None:
        return mode_for(num_pictures)
    entry = get_mode(given)
    least, most = entry.pictures
    if num_pictures < least:
        raise InputError(f"last is missing; mode {entry.name} needs the picture to end on.")
    if most is not None and num_pictures > most:
        raise InputError(f"last must be left out with mode {entry.name}, which takes one picture.")
    return entry.name


def _text(name: str, cell: Any) -> str:
    if isinstance(cell, list) and len(cell) == 1:
        [cell] = cell  # as lists of captions have it
    if isinstance(cell, list) and name == "prompt":
        raise InputError(f"prompt must be one text, got {len(cell)}; write a row for each.")
    if name == "name" and isinstance(cell, int | float) and not isinstance(cell, bool):
        return str(cell)
    return Text().read(name, cell)
