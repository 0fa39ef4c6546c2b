"""Memory in a user's words: the plan of a clip, and which option makes one fit that doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.memory.footprint import measure_footprint
from dynamicrafter.memory.plan import Measure, MemoryPlan, make_plan, measures_on

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
_SMALLER = ((320, 512), (256, 256), (128, 128))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipNeeds:
    """All that a clip's memory depends on.

    Attributes:
        networks: the five, filled or empty.
        height, width: pixels.
        num_frames: of the clip.
        passes: of a guided step, 1 to 3.
        device: to run on.
        budget: bytes that it may take.
        dtype: of the networks; None for the one that they are in.
        videos: made as one batch.
        decode_chunk_size: frames decoded at a time.
        fixed: networks that can't leave the device.
        measures: those that may be chosen; None for all that the device knows.
    """

    networks: Mapping[Component, Any]
    height: int
    width: int
    num_frames: int
    passes: int
    device: torch.device
    budget: int
    dtype: torch.dtype | None = None
    videos: int = 1
    decode_chunk_size: int = 1
    fixed: frozenset[Component] = frozenset()
    measures: tuple[Measure, ...] | None = None

    def plan(self) -> MemoryPlan:
        """What the clip takes, and what makes it fit."""
        footprint = measure_footprint(
            self.networks,
            height=self.height,
            width=self.width,
            num_frames=self.num_frames,
            passes=self.passes,
            videos=self.videos,
            decode_chunk_size=self.decode_chunk_size,
            dtype=self.dtype,
            fixed=self.fixed,
        )
        measures = measures_on(self.device.type) if self.measures is None else self.measures
        return make_plan(footprint, device=self.device.type, budget=self.budget, measures=measures)


def advise(needs: ClipNeeds) -> str:
    """The first of a few savings, in flags, with which a clip fits; empty where none of them suffices."""
    own = needs.dtype or next(needs.networks["unet"].parameters()).dtype
    half = needs if own.itemsize == torch.bfloat16.itemsize else replace(needs, dtype=torch.bfloat16)
    flags = [] if half is needs else ["--dtype bfloat16"]
    candidates = [(flags, half)] if flags else []
    if needs.num_frames > 8:
        candidates.append(([*flags, "--frames 8"], replace(half, num_frames=8)))
    candidates += [
        ([*flags, f"--size {smaller[1]}x{smaller[0]}"], replace(half, height=smaller[0], width=smaller[1]))
        for smaller in _SMALLER
        if smaller[0] * smaller[1] < needs.height * needs.width
    ]
    return next((" ".join(words) for words, changed in candidates if changed.plan().fits), "")


def remedy(needs: ClipNeeds, *, free: int) -> str:
    """What to do about a clip that ran out of memory.

    Args:
        needs: of the clip, with the budget that it ran under.
        free: bytes of the device that are this program's or nobody's.
    """
    used, now = needs.plan(), replace(needs, budget=min(free, needs.budget))
    # What was reckoned to fit and did not gets every measure that a smaller budget would ask for.
    for tighter in (replace(now, budget=now.budget * tenths // 10) for tenths in range(10, 0, -1)):
        plan = tighter.plan()
        if plan.fits and (plan.measures, plan.together) != (used.measures, used.together):
            does = ", ".join(plan.measures) or "one pass at a time"
            return f"--memory {tighter.budget // 10**7 / 100:g}GB makes it fit ({does})"
    flags = advise(now)
    return f"{flags} makes it fit" if flags else "take a smaller --size, or close other programs that use the memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; of PyTorch's, only CUDA's has a class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _WORDS)
