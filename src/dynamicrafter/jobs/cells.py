"""What a cell of a list says, as the value of the option that its column names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from dynamicrafter.animator.options import AnimateOptions, Mode, parse_interval, parse_size_or_auto
from dynamicrafter.errors import InputError
from dynamicrafter.files.names import as_stored, composed, listed_path
from dynamicrafter.files.tables import FILE_HEADINGS, TEXT_HEADINGS, normal_heading
from dynamicrafter.jobs.job import Defaults, Job, check_key

# The first name is the one that messages and documentation use.
_ALIASES = {
    "name": ("name", "key"),
    "image": ("image", "picture", "first", *FILE_HEADINGS),
    "last": ("last", "last_image"),
    "prompt": ("prompt", *TEXT_HEADINGS),
}
_OPTIONS = tuple(option.name for option in fields(AnimateOptions))
COLUMNS = ("name", "image", "last", "prompt", "mode", *_OPTIONS, "samples", "format", "fps", "crf")
# One model serves a whole list.
_FOR_ALL = ("model", "preset", "encoders", "lora", "device", "dtype", "download", "memory")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


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
    if name in _FOR_ALL:
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
        InputError: a value is of a wrong kind, or picture and mode don't go together.
    """
    texts = {name: _text(name, cells[name]) for name in ("image", "last", "prompt", "format", "fps") if name in cells}
    if "image" not in texts:
        raise InputError("image is missing; name the picture.")
    pictures = tuple(
        as_stored(folder / listed_path(texts[name], folder)) for name in ("image", "last") if name in texts
    )
    mode = _mode(cells.get("mode"), defaults.mode, has_last=len(pictures) == 2)
    key = composed(_text("name", cells["name"]) if "name" in cells else "-".join(path.stem for path in pictures))
    check_key(key)
    return Job(
        key=key,
        where=where,
        pictures=pictures,
        prompt=texts.get("prompt", defaults.prompt or ""),
        mode=mode,
        options=_options(cells, defaults.options),
        samples=_whole("samples", cells["samples"]) if "samples" in cells else defaults.samples,
        format=texts.get("format", defaults.format).lower().removeprefix("."),
        fps=texts.get("fps", defaults.fps),
        crf=_whole("crf", cells["crf"]) if "crf" in cells else defaults.crf,
    )


def parse_mode(text: Any) -> Mode:
    """Raises InputError where a text names no mode."""
    known: tuple[Mode, ...] = get_args(Mode)
    if text not in known:
        raise InputError(f"mode must be one of {', '.join(known)}, got {text!r}.")
    return known[known.index(text)]


def _mode(given: Any, default: Mode | None, *, has_last: bool) -> Mode:
    mode = given if given is not None else default
    if mode is None:
        return "interpolate" if has_last else "animate"
    choice = parse_mode(mode)
    if choice == "interpolate" and not has_last:
        raise InputError("last is missing; mode interpolate needs the picture to end on.")
    if choice != "interpolate" and has_last:
        raise InputError(f"last must be left out with mode {choice}, which takes one picture.")
    return choice


def _options(cells: Mapping[str, Any], defaults: AnimateOptions) -> AnimateOptions:
    hints = get_type_hints(AnimateOptions)
    given = {name: _value(name, cells[name], hints[name]) for name in _OPTIONS if name in cells}
    return AnimateOptions.from_dict(defaults.as_dict() | given)


def _value(name: str, cell: Any, hint: Any) -> Any:
    """Text as the kind that an annotation asks for; what JSON gave a kind of its own stays as it is."""
    kinds = _parts(hint)
    if tuple in kinds:
        parse = parse_interval if name == "guidance_interval" else parse_size_or_auto
        return _converted(name, _text(name, cell), parse)
    if float not in kinds and int in kinds and isinstance(cell, float):
        return _whole(name, cell)
    if not isinstance(cell, str) or str in kinds:
        return cell
    if bool in kinds:
        return _switch(name, cell)
    return _whole(name, cell) if float not in kinds else _converted(name, cell, _number)


def _parts(hint: Any) -> set[Any]:
    """The kinds of value in an annotation, those of choices too."""
    if get_origin(hint) is tuple:
        return {tuple}
    if get_args(hint):
        return {kind for part in get_args(hint) for kind in _parts(part)}
    return {hint if isinstance(hint, type) else type(hint)}


def _converted(name: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise InputError(f"{name} {error}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"must be a number, got {text[:50]!r}.") from None


def _switch(name: str, text: str) -> bool:
    if text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    raise InputError(f"{name} must be true or false, got {text[:50]!r}.")


def _whole(name: str, cell: Any) -> int:
    if isinstance(cell, float):
        cell = str(cell)
    if isinstance(cell, int) and not isinstance(cell, bool):
        return cell
    try:
        if isinstance(cell, str):
            return int(re.sub(r"\.0+$", "", cell))  # pandas writes 7.0 where a cell of the column is blank
    except ValueError:
        pass
    raise InputError(f"{name} must be a whole number, got {str(cell)[:50]!r}.")


def _text(name: str, cell: Any) -> str:
    if isinstance(cell, list) and len(cell) == 1:
        [cell] = cell  # as lists of captions have it
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list) and name == "prompt":
        raise InputError(f"prompt must be one text, got {len(cell)}; write a row for each.")
    if isinstance(cell, int | float) and not isinstance(cell, bool) and name in ("name", "fps"):
        return str(cell)
    raise InputError(f"{name} must be text, got {str(cell)[:50]!r}.")
