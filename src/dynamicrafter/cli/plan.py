"""`--dry-run`: what a clip takes in memory, and what is done to make it fit; reads no weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dynamicrafter.cli.console import importing, warn
from dynamicrafter.specs.clip import ClipSpec, check_clip
from dynamicrafter.specs.model import ModelSpec

if TYPE_CHECKING:
    from dynamicrafter.memory.plan import MemoryPlan


def show(spec: ClipSpec, model: ModelSpec) -> None:
    """Print the plan on stdout.

    Raises:
        InputError: no such model or device, or an option that breaks its rule.
    """
    with importing():
        from dynamicrafter.animator.memory import clip_needs
        from dynamicrafter.memory.advice import advise
        from dynamicrafter.memory.devices import budget_bytes, choose_dtype, named_device
        from dynamicrafter.pipeline.loading import empty_model

    networks, preset = empty_model(str(model.name), preset=model.preset)
    clip = check_clip(spec, preset)
    warn(clip.notes)
    device = named_device(model.device)
    dtype = choose_dtype(model.dtype, device)
    needs = clip_needs(
        networks,
        clip.options,
        device=device,
        budget=budget_bytes(model.memory, device),
        dtype=dtype,
    )
    plan = needs.plan()
    height, width = clip.options.size
    name = str(dtype).removeprefix("torch.")
    print(f"A clip of {clip.options.frames} frames at {width}x{height} ({model.name}) in {name} on {device}")
    granted = "this machine" if model.memory is None else "--memory"
    print("\n".join(describe(plan, granted=granted, advice="" if plan.fits else advise(needs))))


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
