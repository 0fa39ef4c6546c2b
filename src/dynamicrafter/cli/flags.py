"""Flags from dataclasses: what `schema` knows of a field decides how its flag is read, named and explained."""

from __future__ import annotations

from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import Fixed, Positional, Suppress, UseAppendAction, arg

from dynamicrafter.errors import InputError
from dynamicrafter.schema import Group, Option, Several, ValueKind, schema_of

EXPERT = Group("Rarely needed")  # of a command's own flags: explained by --help-all only
Hidden = Annotated[Any, Fixed, Suppress]
_Spec = tyro.constructors.PrimitiveConstructorSpec


def flags_of(kind: type, *, full: bool = True) -> type:
    """A dataclass like `kind` whose fields tyro can read; `unwrap` turns its instances into `kind` again.

    Args:
        full: whether flags that stand under a heading of their own are explained by the help.
    """
    return _flags_of(kind, full)


@cache
def _flags_of(kind: type, full: bool) -> type:
    hints, options = get_type_hints(kind, include_extras=True), schema_of(kind)
    made = make_dataclass(
        kind.__name__,
        [(each.name, _hint(hints[each.name], options[each.name], full), _default(each, full)) for each in fields(kind)],
        kw_only=True,
        frozen=True,
    )
    made.__doc__ = kind.__doc__
    return made


def wrap(instance: Any, *, full: bool = True) -> Any:
    """An instance of the flags of its class, with the same values."""
    values = {each.name: getattr(instance, each.name) for each in fields(instance)}
    nested = {each.name for each in fields(instance) if each.default is MISSING and is_dataclass(values[each.name])}
    return flags_of(type(instance), full=full)(
        **{name: wrap(value, full=full) if name in nested else value for name, value in values.items()}
    )


def unwrap(flags: Any, kind: type) -> Any:
    """An instance of `kind` with the values of its flags."""
    hints = get_type_hints(kind)
    values = {each.name: getattr(flags, each.name) for each in fields(kind)}
    return kind(
        **{
            name: unwrap(value, hints[name]) if is_dataclass(hints[name]) and value is not None else value
            for name, value in values.items()
        }
    )


def flag_names(kind: type) -> list[str]:
    """The flags of a command and those in it, with dashes; what is positional or hidden is none."""
    names = []
    hints = get_type_hints(kind, include_extras=True)
    for option in schema_of(kind).values():
        bare, extras = _parts(hints[option.name])
        if is_dataclass(bare):
            names += flag_names(bare)
        elif not {Positional, Suppress} & set(extras):
            names.append(f"--{option.called.replace('_', '-')}")
    return names


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _default(each: Field[Any], full: bool) -> Any:
    factory = each.default_factory
    if factory is not MISSING:
        return field(default_factory=lambda: wrap(factory(), full=full))
    return each.default if each.default is not MISSING else field()


def _hint(hint: Any, option: Option, full: bool) -> Any:
    bare, extras = _parts(hint)
    if is_dataclass(bare):
        return flags_of(bare, full=full)
    if Suppress in extras:
        return hint
    hidden = () if full or option.group is None else (Suppress,)
    kept = tuple(extra for extra in extras if not isinstance(extra, ValueKind | Group))
    told = arg(
        name=None if option.called == option.name else option.called,
        help=option.help,
        help_behavior_hint=_behaviour(option),
    )
    if bare is bool:
        return Annotated[(bool, told, *kept, *hidden)]
    if isinstance(option.kind, Several):
        element, how = get_args(bare)[0], _spec(option, option.kind.kinds[0])
        one: Any = Annotated[element, how]
        several: Any = GenericAlias(tuple, (one, ...))
        return UseAppendAction[Annotated[(several, told, *kept, *hidden)]]
    omitted = Positional in extras and (option.optional or option.default is not None)
    return Annotated[(Any, _spec(option, option.kind, omitted=omitted), told, *kept, *hidden)]


def _behaviour(option: Option) -> str:
    if option.default == ():
        return ""
    if option.default is None:
        return f"(default: {option.unset})" if option.optional else "(required)"
    if isinstance(option.default, bool):
        return "(default: no)"
    return f"(default: {option.write(option.default) or 'nothing'})"


def _spec(option: Option, kind: ValueKind, *, omitted: bool = False) -> _Spec:
    """How tyro reads one value of an option, in the words that all faces use for what is wrong with it.

    Args:
        omitted: whether it may be left out; tyro then hands over nothing where a misspelt option stands in its place.
    """

    def read(words: list[str]) -> Any:
        if omitted and not (words and words[0]):
            return option.default
        try:
            return kind.read(option.called, words[0]) if kind is not option.kind else option.read(words[0])
        except InputError as error:
            raise ValueError(str(error).removeprefix(f"{option.called} ")) from None

    return _Spec(
        nargs=1,
        metavar=kind.metavar,
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=lambda value: ["none" if value is None else str(kind.write(value))],
    )
