"""Between frozen dataclasses and plain values: YAML in, JSON out, every key known and every type checked."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dynamicrafter.errors import InputError

T = TypeVar("T")


def from_mapping(base: T, values: Mapping[str, Any], *, at: str = "") -> T:
    """A copy of a dataclass with some fields set, nested ones by nested mappings.

    Args:
        base: gives the fields, and the values of those that aren't named.
        values: by field.
        at: where `values` stand, for messages, such as "optimizer.".

    Raises:
        InputError: a key that is no field, or a value of another type.
    """
    hints = get_type_hints(type(base))
    changes = {}
    for key, value in values.items():
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            remedy = f"did you mean {at}{close[0]}?" if close else f"known are {', '.join(hints)}."
            raise InputError(f"{at}{key} is no setting; {remedy}")
        changes[key] = _convert(hints[key], value, getattr(base, key), at=f"{at}{key}")
    return replace(base, **changes)  # pyrefly: ignore [bad-argument-type, bad-specialization]


def set_by_path(base: T, path: str, value: Any) -> T:
    """`from_mapping` for one setting, named by a path such as "optimizer.lr"."""
    nested: Any = value
    for name in reversed(path.split(".")):
        nested = {name: nested}
    return from_mapping(base, nested)


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file; nothing in the file is executed.

    Raises:
        InputError: no such file, no YAML, or something else than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} can't be read ({error}); name a YAML file.") from error
    value = parse_yaml(text, name=f"config {path}")
    if not isinstance(value, dict):
        raise InputError(f"config {path} must hold settings as `key: value`, got {type(value).__name__}.")
    return value


def parse_yaml(text: str, *, name: str) -> Any:
    """A YAML value.

    Raises:
        InputError: no YAML.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{name} is no YAML{line} ({getattr(error, 'problem', None) or error}).") from error


def to_plain(value: Any) -> Any:
    """Nested dataclasses as what JSON and YAML can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(plain: Mapping[str, Any], *, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested mappings by its path."""
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from flatten(value, at=f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _convert(hint: Any, value: Any, current: Any, *, at: str) -> Any:
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(options, value, current, at=at)
    if origin is Literal:
        if value not in options:
            raise InputError(f"{at} must be one of {', '.join(map(str, options))}, got {value!r}.")
        return value
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{at} must be settings as `key: value`, got {value!r}.")
        return from_mapping(current if isinstance(current, hint) else _blank(hint, value, at=at), value, at=f"{at}.")
    if origin is tuple:
        return _convert_tuple(options, value, at=at)
    return _convert_plain(hint, value, at=at)


def _convert_union(options: tuple[Any, ...], value: Any, current: Any, *, at: str) -> Any:
    if value is None and type(None) in options:
        return None
    kinds = [option for option in options if option is not type(None)]
    failures = []
    for kind in kinds:
        try:
            return _convert(kind, value, current, at=at)
        except InputError as error:
            failures.append(error)
    raise failures[0]


def _convert_tuple(options: tuple[Any, ...], value: Any, *, at: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{at} must be a list, got {value!r}.")
    kinds = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
    if len(kinds) != len(value):
        raise InputError(f"{at} must hold {len(kinds)} values, got {len(value)}.")
    pairs = zip(kinds, value, strict=True)
    return tuple(_convert(kind, item, None, at=f"{at}[{index}]") for index, (kind, item) in enumerate(pairs))


def _convert_plain(hint: Any, value: Any, *, at: str) -> Any:
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    raise InputError(f"{at} must be {names.get(hint, hint)}, got {value!r}.")


def _blank(kind: Any, given: Mapping[str, Any], *, at: str) -> Any:
    """An instance to start from, where none stands yet, as in a list.

    Raises:
        InputError: a field without a default is not given.
    """
    required = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    for name in required:
        if name not in given:
            raise InputError(f"{at}.{name} is missing; it has no default.")
    return kind(**dict.fromkeys(required))
