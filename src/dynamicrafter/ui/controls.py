"""Components from the options' dataclass, and options from the components' values.

A field that is added to `AnimateOptions` appears on the page by itself: its type chooses the component, its docstring
is the help, and the numbers "LOW to HIGH" in it are the range.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from dynamicrafter.animator.options import AnimateOptions, parse_interval, parse_size
from dynamicrafter.errors import InputError
from dynamicrafter.presets import Preset

if TYPE_CHECKING:
    import gradio as gr

Kind = Literal["whole", "real", "text", "size", "interval", "switch", "choice"]

FREQUENT = ("motion", "frames", "steps", "seed")  # in sight; the others are folded
FINEST_SLIDER = 100  # positions; a finger can't hit more
MODELS_OWN = "model's own"
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:to|…|–)\s*(-?\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One option as the page shows it.

    Attributes:
        name: the field's.
        kind: what its values are.
        help: its docstring.
        low, high: the range that the docstring names.
        choices: of a choice, and words that another kind takes beside its values.
        optional: None stands for the preset's value.
    """

    name: str
    kind: Kind
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").capitalize()

    @property
    def is_frequent(self) -> bool:
        return self.name in FREQUENT


@cache
def controls() -> tuple[Control, ...]:
    """One for each field, the frequent ones first, in the order of the dataclass otherwise."""
    hints, helps = get_type_hints(AnimateOptions), _docstrings(AnimateOptions)
    found = [_control(field.name, hints[field.name], helps.get(field.name, "")) for field in fields(AnimateOptions)]
    order = {name: place for place, name in enumerate(FREQUENT)}
    return tuple(sorted(found, key=lambda control: order.get(control.name, len(order))))


def _control(name: str, hint: Any, help: str) -> Control:  # noqa: A002
    parts = [hint] if get_origin(hint) in (Literal, tuple) or not get_args(hint) else list(get_args(hint))
    words = tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))
    kinds = [part for part in parts if part is not NoneType and get_origin(part) is not Literal]
    kind: Kind
    if any(get_origin(part) is tuple for part in kinds):
        kind = "size" if name == "size" else "interval"
    elif not kinds and words:
        kind = "choice"
    else:
        kind = {bool: "switch", int: "whole", float: "real"}.get(kinds[0], "text")  # pyrefly: ignore
    low, high = _range(help) if kind in ("whole", "real") else (None, None)
    return Control(name=name, kind=kind, help=help, low=low, high=high, choices=words, optional=NoneType in parts)


def _range(text: str) -> tuple[float | None, float | None]:
    found = _RANGE.search(text)
    return (float(found[1]), float(found[2])) if found else (None, None)


def _docstrings(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass, on one line."""
    [body] = [node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef)]
    helps = {}
    for field, text in pairwise(body):
        documented = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if documented and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            helps[field.target.id] = " ".join(str(text.value.value).split())  # pyrefly: ignore
    return helps


def build(control: Control, preset: Preset, **more: Any) -> gr.components.Component:
    """The component of an option, with the preset's range and value."""
    import gradio as gr

    settings = look(control, preset)
    kind = settings.pop("component")
    return getattr(gr, kind)(label=control.label, **settings, **more)


def look(control: Control, preset: Preset) -> dict[str, Any]:
    """Everything about a component that depends on the preset: its kind, range, value and help."""
    value = getattr(AnimateOptions().resolved(preset), control.name)
    info = {"info": control.help} if control.help else {}
    if control.kind == "switch":
        return {"component": "Checkbox", "value": value, **info}
    if control.kind == "choice":
        usual = [(f"{value or 'none'} ({MODELS_OWN})", "")] if control.optional else []
        choices = [*usual, *((name, name) for name in control.choices)]
        return {"component": "Dropdown", "choices": choices, "value": "" if control.optional else value, **info}
    if control.kind == "text":
        return {"component": "Textbox", "value": "", "max_length": 4000, **info}
    low, high = control.low, control.high
    if control.name == "motion":
        motion = preset.motion
        low, high = motion.low, motion.high
        lively = "larger" if motion.lively > motion.calm else "smaller"
        info = {"info": f"{motion.unit.capitalize()}; {lively} moves more"}
    whole = control.kind == "whole"
    # A slider always says something, where an optional value may also be left to the model, or to another option.
    if (
        (not control.optional or control.name == "motion")
        and not control.choices
        and low is not None
        and high is not None
    ):
        step = 1 if whole else (high - low) / FINEST_SLIDER
        if (high - low) / step <= FINEST_SLIDER:
            return {"component": "Slider", "minimum": low, "maximum": high, "step": step, "value": value, **info}
    # No number field: Gradio's can't stay empty, and a browser rounds large seeds in it.
    if not control.optional:
        return {"component": "Textbox", "value": _written(value), "max_length": 24, **info}
    usual = "none" if value is None else _written(value)
    if control.kind == "interval":
        usual = "all" if value is None else f"{value[0]}-{value[1]}"
    placeholder = " or ".join([f"{usual} ({MODELS_OWN})", *control.choices])
    return {"component": "Textbox", "value": "", "placeholder": placeholder, "max_length": 24, **info}


def _written(value: Any) -> str:
    """A value as the page writes it; sizes width first, as people do."""
    if isinstance(value, tuple):
        return f"{value[1]}x{value[0]}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def options_from(values: Iterable[Any] | Mapping[str, Any]) -> AnimateOptions:
    """Options from what the components hold, in the order of `controls` or by name; empty ones are left out.

    Raises:
        InputError: a value that can't be read, or an unknown name.
    """
    if not isinstance(values, Mapping):
        values = {control.name: value for control, value in zip(controls(), values, strict=True)}
    known = {control.name: control for control in controls()}
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return AnimateOptions.from_dict(
        {name: _read(known[name], value) if name in known else value for name, value in given.items()}
    )


def _read(control: Control, value: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if text in control.choices:
            return text
        try:
            if control.kind == "whole":
                return int(text)
            if control.kind == "real":
                return float(text)
            if control.kind == "size":
                return parse_size(text)
            if control.kind == "interval":
                return parse_interval(text)
        except ValueError as error:
            rule = str(error) if control.kind in ("size", "interval") else f"must be a number, got {text[:40]!r}."
            raise InputError(f"{control.name} {rule}") from None
    if control.kind == "whole" and isinstance(value, float) and value.is_integer():  # browsers know no other numbers
        return int(value)
    return value


def shown(options: AnimateOptions, preset: Preset) -> list[Any]:
    """What the components show for given options, in the order of `controls`."""
    return [_shown(control, getattr(options, control.name), preset) for control in controls()]


def _shown(control: Control, value: Any, preset: Preset) -> Any:
    usual = look(control, preset)
    if value is None:
        return usual["value"]
    if control.kind == "interval":
        return f"{value[0]}-{value[1]}"
    return _written(value) if usual["component"] == "Textbox" else value
