"""From words on the command line to a frozen dataclass, or to one line that says what is wrong with them."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from dynamicrafter.animator.options import parse_interval, parse_size, parse_size_or_auto
from dynamicrafter.errors import InputError

T = TypeVar("T")
Spec = tyro.constructors.PrimitiveConstructorSpec

_FLAT = (tyro.conf.OmitArgPrefixes,)  # flags are --steps, whichever dataclass they stand in
_SHOWN = 50  # characters of a wrong value that a message repeats
_PRESET_VALUE = ["preset", "value"]  # words of the help text that explains None


class UsageError(InputError):
    """A word on the command line is unknown, missing or misspelt."""


def parse(kind: type[T], words: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """Read a dataclass from the command line.

    Args:
        kind: whose fields are the flags.
        words: what follows the name of the sub-command.
        prog: how the command is called, for its help.
        default: values of what isn't given, instead of the dataclass's own.

    Raises:
        UsageError: an unknown option or argument, or a value that can't be read.
        SystemExit: help was asked for, and shown.
    """
    said = io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            command, unknown = tyro.cli(
                kind,
                prog=prog,
                args=list(words),
                return_unknown_args=True,
                config=_FLAT,
                registry=_registry(),
                **options,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_first_sentence(said.getvalue())) from None
    if unknown:
        raise UsageError(_describe_unknown(unknown[0], kind, prog))
    return command


def suggest(word: str, known: Sequence[str]) -> str:
    """A question that names the closest of `known`, or nothing where none is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" did you mean {close[0]}?" if close else ""


def _size(metavar: str, parse_text: Callable[[str], Any]) -> Spec:
    return Spec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: parse_text(words[0]),
        is_instance=lambda value: value in (None, "auto") or isinstance(value, tuple),
        str_from_instance=lambda size: (
            _PRESET_VALUE if size is None else [size if isinstance(size, str) else f"{size[1]}x{size[0]}"]
        ),
    )


SIZE = _size("WxH", parse_size)
SIZE_OR_AUTO = _size("WxH|auto", parse_size_or_auto)


INTERVAL = Spec(
    nargs=1,
    metavar="FIRST-LAST",
    instance_from_str=lambda words: parse_interval(words[0]),
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda ends: _PRESET_VALUE if ends is None else [f"{ends[0]}-{ends[1]}"],
)
# A picture may be left out; tyro hands over an empty value where a misspelt option stands in its place.
PICTURE = Spec(
    nargs=1,
    metavar="PICTURE",
    instance_from_str=lambda words: Path(words[0]) if words[0] else None,
    is_instance=lambda value: value is None or isinstance(value, Path),
    str_from_instance=lambda path: [str(path)],
)


def _number(metavar: str, convert: Callable[[str], Any], rule: str) -> Spec:
    return Spec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: _convert(words[0], convert, rule),
        is_instance=lambda value: value is None or isinstance(value, int | float),
        str_from_instance=lambda value: _PRESET_VALUE if value is None else [f"{value}"],
    )


def _choice(choices: tuple[str, ...]) -> Spec:
    return Spec(
        nargs=1,
        metavar="|".join(choices),
        instance_from_str=lambda words: _convert(
            words[0], lambda word: choices[choices.index(word)], f"one of {', '.join(choices)}"
        ),
        is_instance=lambda value: value is None or value in choices,
        str_from_instance=lambda value: _PRESET_VALUE if value is None else [value],
    )


def _convert(word: str, convert: Callable[[str], Any], rule: str) -> Any:
    try:
        return convert(word)
    except ValueError:
        raise ValueError(f"must be {rule}, got {_short(word)!r}.") from None


def _short(word: str) -> str:
    """A word that fits into tyro's box, which would break a longer one."""
    return word if len(word) <= _SHOWN else f"{word[:_SHOWN]}…"


def _parse_path(word: str) -> Path:
    if not word:  # as a path it would be the current folder
        raise ValueError("must not be empty; name a file or a folder.")
    return Path(word)


_TEXT = Spec(
    nargs=1,
    metavar="TEXT",
    instance_from_str=lambda words: words[0],
    is_instance=lambda value: value is None or isinstance(value, str),
    str_from_instance=lambda text: [str(text)],
)
_PATH = Spec(
    nargs=1,
    metavar="PATH",
    instance_from_str=lambda words: _parse_path(words[0]),
    is_instance=lambda value: value is None or isinstance(value, Path),
    str_from_instance=lambda path: [str(path)],
)


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Numbers and choices, whose errors tyro would word at length, and names, of which it would take None for none."""
    whole, real = _number("INT", int, "a whole number"), _number("NUMBER", float, "a number")
    specs = [(int, whole), (int | None, whole), (float, real), (float | None, real)]
    specs += [(str | None, _TEXT), (Path, _PATH), (Path | None, _PATH)]
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def number_or_choice(info: tyro.constructors.PrimitiveTypeInfo) -> Spec | None:
        for kind in (info.type, *get_args(info.type)):
            if get_origin(kind) is Literal:
                return _choice(get_args(kind))
        return next((spec for kind, spec in specs if info.type == kind), None)

    return registry


def _describe_unknown(word: str, kind: Any, prog: str) -> str:
    listed = f" `{prog} --help` lists what there is."
    if word.startswith("-"):
        name = word.partition("=")[0]
        return f"unknown option {name};{suggest(name, ['--help', *_flags(kind)]) or listed}"
    names = {field.name for field in fields(kind)}
    remedy = " put a prompt of several words into quotes, and the output behind -o." if "prompt" in names else listed
    if "more" in names:
        remedy = " let pictures and prompt follow one another, before or behind all options."
    return f"unexpected argument {word!r};{remedy}"


def _flags(kind: Any) -> Iterator[str]:
    """The options of a dataclass and those in it, without what is no option."""
    hints = get_type_hints(kind, include_extras=True)
    for hint, name in ((hints[field.name], field.name) for field in fields(kind)):
        if is_dataclass(hint):
            yield from _flags(hint)
        elif not {tyro.conf.Positional, tyro.conf.Suppress} & set(getattr(hint, "__metadata__", ())):
            yield f"--{name.replace('_', '-')}"


def _first_sentence(box: str) -> str:
    """What tyro says first in a box of its own, without the box and, where stdout isn't UTF-8, without its title."""
    lines = [re.sub(r"^\s*│ ?|\s*│\s*$", "", line).strip() for line in box.splitlines()]
    if not any(line.startswith("╭") for line in lines):  # then its title stands above a rule of its own
        lines = lines[2:]
    said = []
    for line in lines:
        if re.match(r"─|-{5}", line):
            break
        if not line.startswith(("╭", "╰")):
            said.append(line)
    text = " ".join(filter(None, said))
    text = re.sub(r"^Missing from (.+?): (\S+).*", r"\2 is missing; `\1 --help` explains.", text)
    text = re.sub(r"^Missing value for argument [('\"]*([\w-]+).*", r"\1 needs a value.", text)
    return re.sub(r"^Error parsing (\S+):", r"\1", text) or "the command line can't be read; see --help."
