"""Between frozen dataclasses and plain values: YAML in, JSON out, every key known and every type checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dynamicrafter.errors import InputError
from dynamicrafter.schema import ValueKind, schema_of

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
    hints, options = get_type_hints(type(base)), schema_of(type(base))
    changes = {}
    for key, value in values.items():
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            remedy = f"did you mean {at}{close[0]}?" if close else f"known are {', '.join(hints)}."
            raise InputError(f"{at}{key} is no setting; {remedy}")
        changes[key] = _convert(hints[key], options[key].kind, value, getattr(base, key), at=f"{at}{key}")
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


def _convert(hint: Any, kind: ValueKind, value: Any, current: Any, *, at: str) -> Any:
    parts = get_args(hint)
    if value is None and NoneType in parts:
        return None
    nested = next((part for part in (hint, *parts) if is_dataclass(part)), None)
    if nested is None:
        return kind.read(at, value)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{at} must be a list, got {value!r}.")
        return tuple(_convert(nested, kind, item, None, at=f"{at}[{index}]") for index, item in enumerate(value))
    if not isinstance(value, Mapping):
        raise InputError(f"{at} must be settings as `key: value`, got {value!r}.")
    return from_mapping(current if isinstance(current, nested) else _blank(nested, value, at=at), value, at=f"{at}.")


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
