"""From words on the command line to a frozen dataclass, or to one line that says what is wrong with them."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import tyro

from dynamicrafter.cli.flags import flag_names, flags_of, unwrap, wrap
from dynamicrafter.errors import InputError
from dynamicrafter.schema import Instance, schema_of

T = TypeVar("T")

HELP_ALL = "--help-all"
_FLAT = (tyro.conf.OmitArgPrefixes,)  # flags are --steps, whichever dataclass they stand in
_LENGTHS = ("--seconds", "--duration", "--length", "--num-frames")


class UsageError(InputError):
    """A word on the command line is unknown, missing or misspelt."""


def parse(kind: type[T], words: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """Read a dataclass from the command line.

    Args:
        kind: whose fields are the flags.
        words: what follows the name of the sub-command; `--help` explains the usual flags, `--help-all` all of them.
        prog: how the command is called, for its help.
        default: values of what isn't given, instead of the dataclass's own.

    Raises:
        UsageError: an unknown option or argument, or a value that can't be read.
        SystemExit: help was asked for, and shown.
    """
    full = "--help" not in words and "-h" not in words
    said = io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": wrap(default, full=full)}
    try:
        with contextlib.redirect_stderr(said):
            read, unknown = tyro.cli(
                flags_of(kind, full=full),
                prog=prog,
                description=_described(kind, full=full),
                args=["--help" if word == HELP_ALL else word for word in words],
                return_unknown_args=True,
                config=_FLAT,
                **options,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_first_sentence(said.getvalue())) from None
    if unknown:
        raise UsageError(_describe_unknown(unknown[0], kind, prog))
    return unwrap(read, kind)


def suggest(word: str, known: Sequence[str]) -> str:
    """A question that names the closest of `known`, or nothing where none is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" did you mean {close[0]}?" if close else ""


def _described(kind: type, *, full: bool) -> str:
    text = inspect.cleandoc(kind.__doc__ or "")
    if not full and _has_rare(kind):
        text += f"\n\nThese are the usual options; {HELP_ALL} explains all of them."
    return text


def _has_rare(kind: type) -> bool:
    return any(
        option.group is not None or (isinstance(option.kind, Instance) and _has_rare(option.kind.of))
        for option in schema_of(kind).values()
    )


def _describe_unknown(word: str, kind: Any, prog: str) -> str:
    listed = f" `{prog} --help` lists what there is."
    names = {field.name for field in fields(kind)}
    if word.startswith("-"):
        name = word.partition("=")[0]
        if name in _LENGTHS and "clip" in names:
            return f"unknown option {name}; --frames is a clip's length, and --fps how fast they play: 16 at 8 are 2 s."
        if " " in word and "prompt" in names:
            return f'unknown option {name}; a prompt that begins with a dash is given as --prompt="…".'
        return f"unknown option {name};{suggest(name, ['--help', HELP_ALL, *flag_names(kind)]) or listed}"
    remedy = " put a prompt of several words into quotes, and the output behind -o." if "prompt" in names else listed
    if "more" in names:
        remedy = " let pictures and prompt follow one another, before or behind all options."
    return f"unexpected argument {word!r};{remedy}"


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
