"""`--dry-run`: what a clip takes in memory, and what is done to make it fit; reads no weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dynamicrafter.animator.options import AnimateOptions
from dynamicrafter.cli.commands import MakeCommand
from dynamicrafter.cli.console import importing
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.units import parse_memory

if TYPE_CHECKING:
    from dynamicrafter.memory.plan import MemoryPlan


def show(command: MakeCommand, model: str) -> None:
    """Print the plan on stdout.

    Raises:
        InputError: no such model or device, or an option that breaks its rule.
    """
    with importing():
        from dynamicrafter.animator.memory import clip_needs
        from dynamicrafter.memory.advice import advise
        from dynamicrafter.memory.devices import choose_device, choose_dtype, total_memory
        from dynamicrafter.pipeline.loading import empty_model

    networks, preset = empty_model(model, preset=command.model.preset)
    options = AnimateOptions(**command.clip.as_dict()).resolved(
        preset, mode=command.mode, picture=picture_size(command)
    )
    device = choose_device(command.model.device)
    dtype = choose_dtype(command.model.dtype, device)
    budget = command.model.memory
    needs = clip_needs(
        networks,
        options,
        device=device,
        budget=total_memory(device) if budget is None else parse_memory(budget),
        dtype=dtype,
    )
    plan = needs.plan()
    assert isinstance(options.size, tuple)
    height, width = options.size
    name = str(dtype).removeprefix("torch.")
    print(f"A clip of {options.frames} frames at {width}x{height} ({model}) in {name} on {device}")
    granted = "this machine" if budget is None else "--memory"
    print("\n".join(describe(plan, granted=granted, advice="" if plan.fits else advise(needs))))


def picture_size(command: MakeCommand) -> tuple[int, int]:
    """Height and width of the (first) picture."""
    picture = command.pictures[0]
    assert picture is not None
    width, height = read_picture(picture).size
    return height, width


def describe(plan: MemoryPlan, *, granted: str, advice: str) -> Iterator[str]:
    """A plan as lines, and whether it fits.

    Args:
        granted: where its budget comes from.
        advice: flags with which it would fit; empty for none.
    """
    for label, text in plan.describe():
        yield f"  {label:<12} {text}"
    budget = f"{plan.budget / 1e9:,.2f} GB of {granted}"
    if plan.fits:
        yield f"  fits         into the {budget}"
    else:
        way = f"it would fit with {advice}" if advice else "nor does a smaller clip fit; use a larger one"
        yield f"  too large    for the {budget}; {way}"
