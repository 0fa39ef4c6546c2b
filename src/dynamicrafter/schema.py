"""Options as data: what an annotated dataclass says of its fields, and how their values are read and written.

A field's type and the `Range` or `ValueKind` beside it in `Annotated` give its rule, the text below it its help. The
command line, the page, lists of jobs, stories, training settings and clips' metadata are adapters of this schema, so a
spelling is right in all of them or wrong in all with the same words. Importable without torch.
"""

from __future__ import annotations

import ast
import inspect
import json
import operator
import re
import sys
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from dynamicrafter.errors import InputError

_SHOWN = 50  # characters of a wrong value that a message repeats
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class OptionError(InputError):
    """An option breaks its rule.

    Attributes:
        option: its name.
    """

    def __init__(self, option: str, text: str) -> None:
        super().__init__(f"{option} {text}")
        self.option = option


@dataclass(frozen=True, slots=True)
class Range:
    """The lowest and the highest value that an option takes, both included."""

    low: float
    high: float

    def check(self, name: str, value: float) -> None:
        """Raises OptionError for a value outside, and for NaN."""
        if not self.low <= value <= self.high:
            near = self.high if value > self.high else self.low
            raise OptionError(name, f"must be between {self.low} and {self.high}, got {value}; try {near}.")


@dataclass(frozen=True, slots=True)
class Group:
    """The heading under which faces show an option; those without stand in sight."""

    title: str


@dataclass(frozen=True, slots=True)
class Called:
    """The name by which faces know a field that has another one in Python."""

    name: str


@dataclass(frozen=True, slots=True)
class Unset:
    """The words for an optional value that is not given, where it is not simply the preset's."""

    words: str


def shown(value: object) -> str:
    """A wrong value as a message repeats it, cut where it is long."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class ValueKind:
    """The values that a field takes.

    Attributes:
        rule: what they are, in words that follow "must be".
        metavar: what stands for one in a command's help.
    """

    rule: str
    metavar: str

    def convert(self, value: Any) -> Any:
        """A value in its own type. Raises ValueError or TypeError where there is none."""
        raise NotImplementedError

    def write(self, value: Any) -> str:
        """A value as people write it; `convert` reads it back."""
        return str(value)

    def read(self, name: str, value: Any) -> Any:
        """A value from any spelling of it.

        Raises:
            OptionError: it has none.
        """
        try:
            return self.convert(value)
        except InputError:
            raise
        except (ValueError, TypeError, OverflowError):
            raise OptionError(name, f"must be {self.rule}, got {shown(value)}.") from None


@dataclass(frozen=True, slots=True)
class WholeNumber(ValueKind):
    rule = "a whole number"
    metavar = "INT"

    def convert(self, value: Any) -> int:
        if isinstance(value, bool):
            raise TypeError
        if isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                if "e" in value.lower():  # a spreadsheet has shortened it, and its last digits are gone
                    raise
                value = float(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return operator.index(value)


@dataclass(frozen=True, slots=True)
class Number(ValueKind):
    rule = "a number"
    metavar = "NUMBER"

    def convert(self, value: Any) -> float:
        if isinstance(value, bool):
            raise TypeError
        if type(value) in (int, float):
            return value  # 2 stays 2, as files of earlier versions have it
        if not isinstance(value, str | Real):
            raise TypeError
        return float(value)

    def write(self, value: Any) -> str:
        return f"{value:g}"


@dataclass(frozen=True, slots=True)
class Switch(ValueKind):
    rule = "true or false"
    metavar = "true|false"

    def convert(self, value: Any) -> bool:
        word = str(value).strip().lower()
        if word not in (*_TRUE, *_FALSE):
            raise ValueError
        return word in _TRUE

    def write(self, value: Any) -> str:
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Text(ValueKind):
    """Text.

    Attributes:
        most: characters of the longest; None for any length.
        advice: what to do with a longer one.
    """

    most: int | None = None
    advice: str = "shorten it."
    rule = "text"
    metavar = "TEXT"

    def convert(self, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        return value

    def read(self, name: str, value: Any) -> str:
        text = ValueKind.read(self, name, value)
        if self.most is not None and len(text) > self.most:
            raise OptionError(name, f"must be at most {self.most} characters, got {len(text)}; {self.advice}")
        return text


@dataclass(frozen=True, slots=True)
class FilePath(ValueKind):
    rule = "a path"
    metavar = "PATH"

    def convert(self, value: Any) -> Path:
        if not isinstance(value, str | Path):
            raise TypeError
        return Path(value)

    def read(self, name: str, value: Any) -> Path:
        if value == "":  # as a path it would be the current folder
            raise OptionError(name, "must not be empty; name a file or a folder.")
        return ValueKind.read(self, name, value)


@dataclass(frozen=True, slots=True)
class Instance(ValueKind):
    """An object of a class, which only Python can give."""

    of: type
    metavar = "OBJECT"

    @property
    def rule(self) -> str:  # pyrefly: ignore [bad-override]
        return f"of type {self.of.__name__}"

    def convert(self, value: Any) -> Any:
        if not isinstance(value, self.of):
            raise TypeError
        return value


@dataclass(frozen=True, slots=True)
class Choice(ValueKind):
    """One of several words; `choices` is asked each time, so that a table may grow."""

    choices: Callable[[], tuple[Any, ...]]

    @property
    def rule(self) -> str:  # pyrefly: ignore [bad-override]
        return f"one of {', '.join(map(str, self.choices()))}"

    @property
    def metavar(self) -> str:  # pyrefly: ignore [bad-override]
        return "|".join(map(str, self.choices()))

    def convert(self, value: Any) -> Any:
        known = self.choices()
        word = value.strip() if isinstance(value, str) else value
        return known[known.index(word)]


@dataclass(frozen=True, slots=True)
class FrameSize(ValueKind):
    """A frame size as (height, width): text is WxH, a list is [height, width], and a comma alone says neither.

    Attributes:
        auto: whether "auto" is one too.
    """

    auto: bool = False

    @property
    def rule(self) -> str:  # pyrefly: ignore [bad-override]
        return "width x height in pixels, such as 1024x576" + (", or auto" if self.auto else "")

    @property
    def metavar(self) -> str:  # pyrefly: ignore [bad-override]
        return "WxH|auto" if self.auto else "WxH"

    def convert(self, value: Any) -> tuple[int, int] | Literal["auto"]:
        if not isinstance(value, str):
            return _pair(value)
        text = value.strip()
        if self.auto and text.lower() == "auto":
            return "auto"
        if text.startswith("["):
            return _pair(json.loads(text))
        sides = re.fullmatch(r"(\d{1,6})\s*[x×*]\s*(\d{1,6})", text, flags=re.IGNORECASE)
        if sides is None:
            raise ValueError
        return int(sides[2]), int(sides[1])

    def write(self, value: Any) -> str:
        return value if isinstance(value, str) else f"{value[1]}x{value[0]}"


@dataclass(frozen=True, slots=True)
class Timesteps(ValueKind):
    """An interval of timesteps as (first, last), the lower first: 200-800 or [200, 800]."""

    last: int
    metavar = "FIRST-LAST"

    @property
    def rule(self) -> str:  # pyrefly: ignore [bad-override]
        return f"two timesteps from 0 to {self.last}, the lower first, such as 200-800"

    def convert(self, value: Any) -> tuple[int, int]:
        if isinstance(value, str) and not value.strip().startswith("["):
            ends = re.fullmatch(r"(\d{1,6})\s*[-–]\s*(\d{1,6})", value.strip())
            if ends is None:
                raise ValueError
            low, high = int(ends[1]), int(ends[2])
        else:
            low, high = _pair(json.loads(value) if isinstance(value, str) else value)
        if not 0 <= low <= high <= self.last:
            raise ValueError
        return low, high

    def write(self, value: Any) -> str:
        return f"{value[0]}-{value[1]}"


@dataclass(frozen=True, slots=True)
class Several(ValueKind):
    """A tuple of values of their own kinds; of any number of one kind where `length` is None."""

    kinds: tuple[ValueKind, ...]
    length: int | None = None
    metavar = "LIST"

    @property
    def rule(self) -> str:  # pyrefly: ignore [bad-override]
        number = "" if self.length is None else f"{self.length} values, "
        return f"a list of {number}each {' or '.join(dict.fromkeys(kind.rule for kind in self.kinds))}"

    def convert(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or self.length not in (None, len(value)):
            raise TypeError
        kinds = self.kinds if self.length is not None else self.kinds * len(value)
        return tuple(kind.convert(item) for kind, item in zip(kinds, value, strict=True))

    def write(self, value: Any) -> str:
        return json.dumps(list(value), default=str)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, str | bytes | Mapping):
        raise TypeError
    first, second = map(WholeNumber().convert, value)
    return first, second


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One field of a dataclass.

    Attributes:
        called: the name that faces and messages use.
        optional: whether None stands for a value that is decided elsewhere.
        group: the heading under which it is folded away; None where it is in sight.
        unset: words for None.
        help: the text below the field, on one line, and its range.
    """

    name: str
    called: str
    kind: ValueKind
    default: Any
    optional: bool
    range: Range | None
    group: str | None
    unset: str
    help: str

    @property
    def label(self) -> str:
        """The name as a heading."""
        return self.called.replace("_", " ").capitalize()

    def read(self, value: Any) -> Any:
        """A value from any spelling of it, held against the range.

        Raises:
            OptionError: it has none, or is outside.
        """
        if value is None and self.optional:
            return None
        converted = self.kind.read(self.called, value)
        if self.range is not None:
            self.range.check(self.called, converted)
        return converted

    def write(self, value: Any) -> str:
        """A value as people write it; empty for None."""
        return "" if value is None else self.kind.write(value)


@cache
def schema_of(kind: type) -> dict[str, Option]:
    """The options that a dataclass defines, by name, in its order."""
    hints, texts = get_type_hints(kind, include_extras=True), _docstrings(kind)
    return {
        field.name: _option(field.name, hints[field.name], field.default, texts.get(field.name, ""))
        for field in fields(kind)
    }


def _option(name: str, hint: Any, default: Any, text: str) -> Option:
    hint, extras = _bare(hint)
    limits = next((extra for extra in extras if isinstance(extra, Range)), None)
    kind = next((extra for extra in extras if isinstance(extra, ValueKind)), None)
    if limits is not None:
        text = f"{text} {limits.low:,} to {limits.high:,}.".strip() if limits.high < 10**6 else text
    return Option(
        name=name,
        called=next((extra.name for extra in extras if isinstance(extra, Called)), name),
        kind=kind or kind_of(hint),
        default=None if default is MISSING else default,
        optional=NoneType in get_args(hint),
        range=limits,
        group=next((extra.title for extra in extras if isinstance(extra, Group)), None),
        unset=next((extra.words for extra in extras if isinstance(extra, Unset)), "the preset's own"),
        help=text,
    )


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without `Annotated`, and what stood there."""
    return (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def kind_of(hint: Any) -> ValueKind:
    """The kind of value that a plain annotation asks for.

    Raises:
        TypeError: one that a single value can't be read for.
    """
    hint, _ = _bare(hint)
    if get_origin(hint) is Literal:
        return Choice(lambda: get_args(hint))
    if get_origin(hint) is tuple:
        *each, last = get_args(hint)
        if last is Ellipsis:
            return Several((kind_of(each[0]),))
        return Several(tuple(kind_of(part) for part in (*each, last)), length=len(each) + 1)
    if get_origin(hint) in (Union, types.UnionType):
        return kind_of(next(part for part in get_args(hint) if part is not NoneType))
    if is_dataclass(hint):
        return Instance(hint)
    kinds: dict[Any, ValueKind] = {
        bool: Switch(),
        int: WholeNumber(),
        float: Number(),
        str: Text(),
        Path: FilePath(),
    }
    if hint not in kinds:
        raise TypeError(f"no single value is read as {hint}")
    return kinds[hint]


def read_fields(instance: Any, kind: type | None = None) -> None:
    """Bring every field of a frozen dataclass to its own type, for its `__post_init__`.

    Args:
        kind: the class whose schema holds; None for the instance's own.

    Raises:
        OptionError: a value that breaks its field's rule.
    """
    for option in schema_of(kind or type(instance)).values():
        value = getattr(instance, option.name)
        read = option.read(value)
        if read is not value:
            object.__setattr__(instance, option.name, read)


def _docstrings(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass and of those that it inherits from, on one line."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        body = _bodies(base.__module__).get(base.__qualname__) or _body(textwrap.dedent(inspect.getsource(base)))
        for field, text in pairwise(body):
            documented = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if documented and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[field.target.id] = " ".join(str(text.value.value).split())  # pyrefly: ignore
    return texts


@cache
def _bodies(module: str) -> dict[str, list[ast.stmt]]:
    """The statements of each class that stands at a module's top; it is parsed once for all of them."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def _body(source: str) -> list[ast.stmt]:
    """The statements of a class that stands elsewhere, such as in a function."""
    [body] = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return body
