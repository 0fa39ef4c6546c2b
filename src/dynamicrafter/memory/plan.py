"""How much memory a run takes, and what makes it fit: a plan from shapes alone, made before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import COMPONENTS
from dynamicrafter.kernels.parts import part_bytes
from dynamicrafter.memory.footprint import PARTS_BYTES, Footprint

Phase = Literal["encoding", "conditioning", "denoising", "decoding"]
Measure = Literal["encoders", "tiles", "networks", "blocks", "int8", "heap"]

CONDITIONERS: frozenset[Component] = frozenset({"text_encoder", "image_encoder", "image_projector"})
AT_WORK: dict[Phase, frozenset[Component]] = {
    "encoding": frozenset({"vae"}),
    "conditioning": CONDITIONERS,
    "denoising": frozenset({"unet"}),
    "decoding": frozenset({"vae"}),
}
# In the order in which they are tried, the cheapest first.
MEASURES: dict[Measure, str] = {
    "encoders": "the encoders of prompt and picture leave once they are used",
    "tiles": "the autoencoder works in tiles",
    "networks": "each network is there only while it works",
    "blocks": "the denoiser's blocks come one by one, the next while one works",
    "int8": "the denoiser's weights are kept in 8 bits",
    "heap": "freed memory goes back to the system at once",
}

INEXACT: frozenset[Measure] = frozenset({"tiles", "int8"})  # the others leave every bit

SHARE = 0.6  # of the device's memory for one batch of all passes; the rest is for the other networks and programs
_HEADROOM = 0.9  # of a device's memory that a run may plan with; the rest is the driver's and the allocator's
# On a CPU a process is resident with more than its tensors: the libraries, and gaps between tensors that glibc keeps
# (docs/benchmarks.md): some times the activations, but no more than so many bytes, as tensors of more than 32 MiB leave
# none. Where freed memory goes back at once, little is left of the gaps.
LIBRARIES_BYTES = 700 * 10**6
_GAPS, _MOST_GAPS = 2.2, 900 * 10**6
_GAPS_TUNED = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMemory:
    """Bytes in use at the peak of one phase."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What a run does to stay within a budget, and what it then takes.

    Attributes:
        device: cpu, cuda or mps.
        budget: bytes that it may take: the device's memory, or what the user grants.
        together: the passes of a guided step go through the UNet as one batch.
        measures: what is done, in the order in which it was chosen.
        phases: what each phase takes with these measures.
        everything: bytes of all five networks' weights.
        beside: bytes that the process takes beside its tensors; 0 on a GPU.
    """

    device: str
    budget: int
    together: bool
    measures: tuple[Measure, ...]
    phases: Mapping[Phase, PhaseMemory]
    everything: int
    beside: int = 0

    @property
    def peak_bytes(self) -> int:
        """Most memory in use at once."""
        return self.beside + max(phase.total for phase in self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether the budget holds it, with a tenth left to the driver, the system and the gaps between tensors."""
        return self.peak_bytes < _HEADROOM * self.budget

    @property
    def part_bytes(self) -> int:
        """Bytes of the parts in which the feed-forward widens its tokens: what suits the device, if there is room.

        A part's neighbours take about as much again. The phases count the smallest parts.
        """
        suits, spare = part_bytes(self.device), _HEADROOM * self.budget - self.peak_bytes
        return max(min(suits, PARTS_BYTES // 2), min(suits, int(spare / 2)))

    @property
    def leaving(self) -> frozenset[Component]:
        """Networks that are on the device only when they are asked for."""
        if "networks" in self.measures:
            return frozenset(COMPONENTS)
        return CONDITIONERS if "encoders" in self.measures else frozenset()

    def describe(self) -> list[tuple[str, str]]:
        """Lines for people, each with its label: what the run takes, when, and what is done to make it fit."""
        beside = f", libraries {_gb(self.beside)} of it" if self.beside else ""
        passes = "all passes at once" if self.together else "one pass at a time"
        phases = "; ".join(
            f"{name} {_gb(phase.total)} (weights {_gb(phase.weights)})" for name, phase in self.phases.items()
        )
        return [
            ("memory", f"{_gb(self.peak_bytes)} at most{beside}; weights {_gb(self.everything)} in all; {passes}"),
            ("by phase", phases),
            *((name, MEASURES[name]) for name in self.measures),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in bytes."""
        return {
            "device": self.device,
            "budget": self.budget,
            "together": self.together,
            "measures": list(self.measures),
            "phases": {
                name: {"weights": phase.weights, "activations": phase.activations}
                for name, phase in self.phases.items()
            },
            "weights": self.everything,
            "beside": self.beside,
            "peak": self.peak_bytes,
            "fits": self.fits,
        }


def measures_on(device: str) -> tuple[Measure, ...]:
    """What can be done on a device.

    Where the processor shares its memory, weights come from a file: blocks would be read in every step, and what is
    rounded to 8 bits must first be read whole.
    """
    if device == "cuda":
        return ("encoders", "tiles", "networks", "blocks", "int8")
    return ("encoders", "tiles", "networks", *(("heap",) if device == "cpu" else ()))


def make_plan(
    footprint: Footprint, *, device: str, budget: int, measures: Iterable[Measure] | None = None
) -> MemoryPlan:
    """Choose measures, in their order, until the run fits; one that doesn't lower the peak is passed over.

    Args:
        device: cpu, cuda or mps.
        budget: bytes.
        measures: those that may be chosen; None for all that the device knows. Where no choice of them fits, the plan
            is the one with the lowest peak, and its `fits` is false.
    """
    left = list(measures_on(device) if measures is None else measures)
    together = footprint.weights["unet"] + footprint.denoising_together < SHARE * budget
    plan = _plan(footprint, device, budget, (), together=together)
    if not plan.fits:
        plan = _plan(footprint, device, budget, (), together=False)
    while not plan.fits:
        candidates = (_plan(footprint, device, budget, (*plan.measures, m), together=False) for m in left)
        better = next((each for each in candidates if each.peak_bytes < plan.peak_bytes), None)
        if better is None:
            break
        left.remove(better.measures[-1])
        plan = better
    if plan.fits and "tiles" in plan.measures:  # which change numbers, and may have become needless
        rest = tuple(name for name in plan.measures if name != "tiles")
        whole = _plan(footprint, device, budget, rest, together=False)
        plan = whole if whole.fits else plan
    return plan


def _plan(
    footprint: Footprint, device: str, budget: int, measures: tuple[Measure, ...], *, together: bool
) -> MemoryPlan:
    tiled = "tiles" in measures
    activations: dict[Phase, int] = {
        "encoding": footprint.encoding_tiled if tiled else footprint.encoding,
        "conditioning": footprint.conditioning,
        "denoising": footprint.denoising_together if together else footprint.denoising,
        "decoding": footprint.decoding_tiled if tiled else footprint.decoding,
    }
    plan = MemoryPlan(
        device=device,
        budget=budget,
        together=together,
        measures=measures,
        phases={},
        everything=sum(footprint.weights.values()),
        beside=LIBRARIES_BYTES if device == "cpu" else 0,
    )
    phases = {
        phase: PhaseMemory(
            weights=sum(_there(footprint, plan, phase).values()),
            activations=activations[phase] + (_gaps(activations[phase], measures) if device == "cpu" else 0),
        )
        for phase in AT_WORK
    }
    return MemoryPlan(**{name: getattr(plan, name) for name in plan.__dataclass_fields__} | {"phases": phases})


def _gaps(activations: int, measures: tuple[Measure, ...]) -> int:
    """Bytes that stay with the process though no tensor is in them."""
    return min(_MOST_GAPS, int(activations * (_GAPS_TUNED if "heap" in measures else _GAPS)))


def _there(footprint: Footprint, plan: MemoryPlan, phase: Phase) -> dict[Component, int]:
    """Bytes of the weights on the device during a phase."""
    weights = {
        name: size
        for name, size in footprint.weights.items()
        if name in AT_WORK[phase] or name in footprint.fixed or name not in plan.leaving
    }
    if "unet" in weights:
        if "blocks" in plan.measures:
            weights["unet"] = 0
            if phase == "denoising":
                weights["unet"] = footprint.blocks_int8 if "int8" in plan.measures else footprint.blocks
        elif "int8" in plan.measures:
            weights["unet"] = footprint.weights_int8
    return weights


def _gb(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"
