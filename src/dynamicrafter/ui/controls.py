"""Gradio's components for the controls that all faces share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynamicrafter.faces.controls import FINEST_SLIDER, Control
from dynamicrafter.schema import Text

if TYPE_CHECKING:
    import gradio as gr

LONGEST_TEXT, LONGEST_VALUE = 4000, 24  # characters that a field takes


def build(control: Control, **more: Any) -> gr.components.Component:
    """The component of a control."""
    import gradio as gr

    settings = look(control)
    kind = settings.pop("component")
    return getattr(gr, kind)(label=control.option.label, **settings, **more)


def look(control: Control) -> dict[str, Any]:
    """Everything about a component that depends on the preset: its kind, range, value and help."""
    info = {"info": control.help} if control.help else {}
    if control.kind == "switch":
        return {"component": "Checkbox", "value": control.usual, **info}
    if control.kind == "choice":
        usual = [(control.placeholder, "")] if control.option.optional else []
        choices = [*usual, *((str(word), word) for word in control.choices)]
        value = "" if control.option.optional else control.usual
        return {"component": "Dropdown", "choices": choices, "value": value, **info}
    if control.kind == "slider":
        assert control.limits is not None
        low, high = control.limits.low, control.limits.high
        step = 1 if control.is_whole else (high - low) / FINEST_SLIDER
        return {"component": "Slider", "minimum": low, "maximum": high, "step": step, "value": control.usual, **info}
    if isinstance(control.option.kind, Text):
        return {"component": "Textbox", "value": control.usual or "", "max_length": LONGEST_TEXT, **info}
    # No number field: Gradio's can't stay empty, and a browser rounds large seeds in it.
    field = {"component": "Textbox", "max_length": LONGEST_VALUE, **info}
    if control.option.optional:
        return {**field, "value": "", "placeholder": control.placeholder}
    return {**field, "value": control.option.write(control.usual)}


def value_of(control: Control, value: Any) -> Any:
    """What a component holds for an option's value; for None, what it holds untouched."""
    settings = look(control)
    if value is None:
        return settings["value"]
    return control.option.write(value) if settings["component"] == "Textbox" else value
