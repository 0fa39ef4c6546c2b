"""`bench`: how fast this machine is, with no weights: a table of presets, number formats and options, or a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

from tyro.conf import UseAppendAction, arg

from dynamicrafter.cli.commands import Switch
from dynamicrafter.cli.console import hide_loading_bars, importing, say, silence_libraries
from dynamicrafter.errors import InputError
from dynamicrafter.presets import BUNDLED, PRESETS, get_preset

if TYPE_CHECKING:
    import torch

    from dynamicrafter.benchmarking.cases import BenchCase, Measurement
    from dynamicrafter.benchmarking.growth import Growth

Option = Literal["plain", "together", "int8", "blocks", "compile"]
_LONGEST = 24 * 3600.0  # seconds
_MOST_CALLS = 1000


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """Measure this machine: seconds, TFLOP/s beside those of plain matrix products, and memory. Needs no weights."""

    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: all that the time allows)")] = None
    """256, 512, 1024 or bundled; weights of the published sizes are drawn from their names."""
    quick: Annotated[Switch, arg(help_behavior_hint="")] = False
    """The small model of the package alone: less than a minute on a modest machine."""
    dtype: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: what suits the device)")] = None
    """Number format: float32, bfloat16 or float16."""
    option: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="NAME", help_behavior_hint="")]] = ()
    """plain, together, int8, blocks or compile; may be given several times (default: those that the device knows)."""
    device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the best there is)")] = None
    """cpu, cuda, cuda:N or mps."""
    seconds: float = 180.0
    """What it may take in all, about; what doesn't fit is left out, and named."""
    calls: int = 3
    """Timed calls of each case, after the first."""
    sweep: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Make clips of growing length, size and steps instead, and say how the time grows."""
    steps: int = 2
    """Of the clips of a sweep."""
    json: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Print one JSON object."""


def run(command: BenchCommand) -> None:
    """Print the table, or the sweep, on stdout; what goes on goes to stderr.

    Raises:
        InputError: an option that breaks its rule.
    """
    check(command)
    silence_libraries()
    with importing():
        import torch

        from dynamicrafter.benchmarking.clock import device_name
        from dynamicrafter.memory.devices import choose_device, choose_dtype
    hide_loading_bars()
    device = choose_device(command.device)
    dtype = str(choose_dtype(command.dtype, device)).removeprefix("torch.")
    machine = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    show = _show_sweep if command.sweep else _show_table
    show(command, machine, device, dtype)


def check(command: BenchCommand) -> None:
    """Raises InputError where an option breaks its rule."""
    if command.preset is not None:
        get_preset(command.preset)
    if not 1 <= command.seconds <= _LONGEST:
        raise InputError(f"seconds must be between 1 and {_LONGEST:g}, got {command.seconds:g}; try 180.")
    if not 1 <= command.calls <= _MOST_CALLS:
        raise InputError(f"calls must be between 1 and {_MOST_CALLS}, got {command.calls}; try 3.")
    if not 1 <= command.steps <= _MOST_CALLS:
        raise InputError(f"steps must be between 1 and {_MOST_CALLS}, got {command.steps}; try 2.")
    unknown = next((name for name in command.option if name not in get_args(Option)), None)
    if unknown is not None:
        raise InputError(f"option must be one of {', '.join(get_args(Option))}, got {unknown!r}.")


def _presets() -> tuple[str, ...]:
    """The small model, and one released preset for each frame size."""
    by_size = {(preset.height, preset.width): preset.name for preset in reversed(PRESETS.values())}
    return (BUNDLED.name, *reversed(by_size.values()))


def _show_table(command: BenchCommand, machine: dict[str, Any], device: torch.device, dtype: str) -> None:
    import torch

    from dynamicrafter.benchmarking.cases import Bench
    from dynamicrafter.benchmarking.choice import choose, combine, estimate, in_groups
    from dynamicrafter.benchmarking.clock import matmul_flop_per_second

    presets = _presets() if command.preset is None else (get_preset(command.preset).name,)
    cases = combine(
        presets=(BUNDLED.name,) if command.quick else presets,
        dtypes=(dtype,) if command.dtype or dtype == "float32" else (dtype, "float32"),
        options=cast("tuple[Option, ...]", command.option) or _usual(device.type),
    )
    say("Estimating what this machine can do…")
    rates = {name: matmul_flop_per_second(device, getattr(torch, name)) for name in {case.dtype for case in cases}}
    estimates = [estimate(case, flop_per_second=rates[case.dtype], calls=command.calls) for case in cases]
    chosen, left = choose(estimates, granted=command.seconds, device=device)
    bench, made = Bench(device), []
    for case in in_groups(chosen):
        say(f"Timing {case.preset} in {case.dtype}, {case.option}…")
        made.append(bench.measure(case, calls=command.calls))
    if command.json:
        table = [each.as_dict() for each in made]
        skipped = [asdict(case) | {"reason": reason} for case, reason in left]
        print(json.dumps({"machine": machine, "measurements": table, "left_out": skipped}, indent=2))
        return
    print("\n".join([*_describe_machine(machine), "", *_table(made), *_left_out(left)]))


def _usual(device: str) -> tuple[Option, ...]:
    """Options that say something about a device."""
    return ("plain", "together", "int8", "blocks", "compile") if device == "cuda" else ("plain", "together", "int8")


def _table(made: Sequence[Measurement]) -> Iterator[str]:
    yield "preset      pixels  format    option     TFLOP  first s   warm s  TFLOP/s  of matmul  peak GB"
    for each in made:
        case, size = each.case, f"{each.width}x{each.height}"
        yield (
            f"{case.preset:<9}{size:>9}  {case.dtype:<9} {case.option:<9}{each.flop / 1e12:>7.2f}{each.first:>9.2f}"
            f"{each.warm:>9.2f}{each.flop_per_second / 1e12:>9.3f}{each.share:>11.2f}{each.memory_peak / 1e9:>9.2f}"
        )
    yield "One call of the UNet on 16 frames; a clip takes steps times passes of them."
    yield "of matmul: share of the rate of plain matrix products, timed between the calls."


def _left_out(left: Sequence[tuple[BenchCase, str]]) -> Iterator[str]:
    if left:
        yield "\nleft out (--seconds grants more time, --preset chooses one):"
    for case, reason in left:
        yield f"  {case.preset} in {case.dtype}, {case.option}: {reason}"


def _describe_machine(machine: dict[str, Any]) -> Iterator[str]:
    yield f"{machine['device']}, {machine['threads']} threads, PyTorch {machine['torch']}"


def _show_sweep(command: BenchCommand, machine: dict[str, Any], device: torch.device, dtype: str) -> None:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.benchmarking.cases import BenchCase
    from dynamicrafter.benchmarking.growth import AXES, sweep

    preset = BUNDLED.name if command.preset is None else get_preset(command.preset).name
    animator = Animator.from_pretrained(BenchCase(preset=preset, dtype=dtype).model, device=str(device), dtype=dtype)
    animator.pipeline.set_progress_bar_config(disable=True)
    found = []
    for axis in AXES:
        say(f"Making clips of {preset} with growing {axis}…")
        found.append(sweep(animator, axis, steps=command.steps, most=command.seconds / 6))
    if command.json:
        settings = {"preset": preset, "dtype": dtype, "steps": command.steps}
        print(json.dumps({"machine": machine, **settings, "growth": [asdict(each) for each in found]}, indent=2))
        return
    print("\n".join([*_describe_machine(machine), *(line for each in found for line in _describe_growth(each))]))


def _describe_growth(found: Growth) -> Iterator[str]:
    power = "" if found.exponent is None else f"; grows as {found.axis}^{found.exponent:.2f}"
    yield f"\n{found.axis}: {found.base:.2f} s + {found.slope:.3g} s for each{power}"
    for point in found.points:
        yield f"  {point.at:>9,}{point.seconds:>9.2f} s{point.memory_peak / 1e9:>8.2f} GB"
