"""Options as controls of a page or of a node: what `schema` knows of them, for one preset.

An option that is added to `AnimateOptions` becomes a control by itself, and its annotation decides of which kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dynamicrafter.presets import Preset
from dynamicrafter.schema import Choice, FrameSize, Option, OptionError, Range, Switch, WholeNumber, schema_of
from dynamicrafter.specs.options import AnimateOptions

FREQUENT = ("quality", "motion", "frames", "seed", "size", "steps")  # in sight, in this order
FINEST_SLIDER = 100  # positions; a finger can't hit more

ControlKind = Literal["switch", "choice", "slider", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One option as a person sets it for one preset.

    Attributes:
        usual: what holds where nothing is chosen.
        limits: the option's range, narrowed to what the preset was made for.
    """

    option: Option
    kind: ControlKind
    usual: Any
    limits: Range | None
    help: str

    @property
    def name(self) -> str:
        return self.option.name

    @property
    def is_whole(self) -> bool:
        return isinstance(self.option.kind, WholeNumber)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The words to choose from, where there are any."""
        return self.option.kind.choices() if isinstance(self.option.kind, Choice) else ()

    @property
    def placeholder(self) -> str:
        """What stands in an empty field: the usual value, and other words that it takes."""
        usual = self.option.write(self.usual) or "none"
        auto = isinstance(self.option.kind, FrameSize) and self.option.kind.auto
        return f"{usual} (model's own)" + (" or auto" if auto else "")


def frequent_first() -> list[Option]:
    """All options: the frequent ones, then the others in the order of the dataclass."""
    options = schema_of(AnimateOptions)
    return [options[name] for name in FREQUENT] + [each for each in options.values() if each.name not in FREQUENT]


def groups() -> dict[str, list[Option]]:
    """The options that are folded away, under their headings."""
    found: dict[str, list[Option]] = {}
    for option in frequent_first():
        if option.name not in FREQUENT:
            found.setdefault(option.group or "General", []).append(option)
    return found


def controls(preset: Preset, most: Mapping[str, int] | None = None) -> list[Control]:
    """All options for one preset, the frequent ones first.

    Args:
        most: the highest values that a face takes, by the options' names; others' ranges are the schema's.
    """
    usual = AnimateOptions().resolved(preset)
    options = (_narrowed(option, (most or {}).get(option.name)) for option in frequent_first())
    return [_control(option, getattr(usual, option.name), preset) for option in options]


def _narrowed(option: Option, most: int | None) -> Option:
    if most is None or option.range is None or most >= option.range.high:
        return option
    text = option.help.replace(f" to {option.range.high:,}.", f" to {most:,}.")
    return replace(option, range=Range(option.range.low, most), help=text)


def _control(option: Option, usual: Any, preset: Preset) -> Control:
    limits, text = option.range, option.help
    if option.name == "motion":
        limits = Range(preset.motion.low, preset.motion.high)
        direction = "larger" if preset.motion.lively > preset.motion.calm else "smaller"
        text = f"{preset.motion.unit.capitalize()}; {direction} moves more"
    kind: ControlKind = "text"
    if isinstance(option.kind, Switch):
        kind = "switch"
    elif isinstance(option.kind, Choice):
        kind = "choice"
    # A slider always says something, where an optional value may also be left to the model, or to another option.
    elif limits is not None and (not option.optional or option.name == "motion"):
        whole = isinstance(option.kind, WholeNumber)
        kind = "slider" if not whole or limits.high - limits.low <= FINEST_SLIDER else "text"
    return Control(option=option, kind=kind, usual=usual, limits=limits, help=text)


def options_from(values: Iterable[Any] | Mapping[str, Any], most: Mapping[str, int] | None = None) -> AnimateOptions:
    """Options from what controls hold, in their order or by name; empty ones are left out.

    Args:
        most: as for `controls`.

    Raises:
        InputError: a value that breaks its rule or a limit, or an unknown name.
    """
    if not isinstance(values, Mapping):
        values = {option.name: value for option, value in zip(frequent_first(), values, strict=True)}
    given = {name: value for name, value in values.items() if value not in (None, "")}
    for name, limit in (most or {}).items():  # before the schema's own, which might advise more than is taken
        number = schema_of(AnimateOptions)[name].kind.read(name, given[name]) if name in given else 0
        if number > limit:
            raise OptionError(name, f"must be at most {limit} on this server, got {number}; try {limit}.")
    return AnimateOptions.from_dict(given)
