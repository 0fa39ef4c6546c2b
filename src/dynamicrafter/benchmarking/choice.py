"""Which cases a machine does in the time that is granted: estimated from its rate, before any is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dynamicrafter.benchmarking.cases import OPTIONS, BenchCase, Option, count_flop
from dynamicrafter.memory.devices import free_memory
from dynamicrafter.memory.footprint import activation_bytes, weight_bytes
from dynamicrafter.memory.tiles import pixels_of_a_latent
from dynamicrafter.pipeline.loading import empty_model
from dynamicrafter.presets import BUNDLED

_SHARE = 0.4  # of the rate of matrix products that a call reaches on a modest machine (docs/benchmarks.md)
_DRAWING = 4e7  # parameters a second that are drawn from their names, on one core


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEstimate:
    """What a case is expected to take.

    Attributes:
        seconds: with drawing the weights and all calls.
        bytes: of weights and activations.
    """

    case: BenchCase
    seconds: float
    bytes: int


def estimate(case: BenchCase, *, flop_per_second: float, calls: int) -> CaseEstimate:
    """Expect from shapes alone, as if the case drew its own weights.

    Args:
        flop_per_second: of plain matrix products in the case's format.
        calls: after the first, which counts twice.
    """
    networks, preset = empty_model(case.model)
    unet, itemsize = networks["unet"], getattr(torch, case.dtype).itemsize
    size = (preset.height, preset.width)
    factor = pixels_of_a_latent(networks["vae"])
    flop = count_flop(networks, case, size=size)
    activations = activation_bytes(
        unet,
        batch=case.rows,
        num_frames=case.frames,
        height=size[0] // factor,
        width=size[1] // factor,
        itemsize=itemsize,
    )
    parameters = sum(parameter.numel() for parameter in unet.parameters())
    took = parameters / _DRAWING + (2 + calls) * flop / (_SHARE * flop_per_second)
    return CaseEstimate(case=case, seconds=took, bytes=weight_bytes(unet, itemsize) + activations)


def choose(
    estimates: Sequence[CaseEstimate], *, granted: float, device: torch.device
) -> tuple[list[BenchCase], list[tuple[BenchCase, str]]]:
    """Divide cases into those that are run and those that are left out, with the reason; the first always runs.

    Args:
        estimates: in the order of their worth.
        granted: seconds for all together.
    """
    chosen: list[BenchCase] = []
    left: list[tuple[BenchCase, str]] = []
    free = free_memory(device)
    for each in estimates:
        if each.bytes > 0.8 * free:
            left.append((each.case, f"needs {each.bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"))
        elif each.seconds > granted and chosen:
            left.append((each.case, f"would take about {each.seconds:.0f} s"))
        else:
            granted -= each.seconds
            chosen.append(each.case)
    return chosen, left


def combine(*, presets: Sequence[str], dtypes: Sequence[str], options: Sequence[Option]) -> list[BenchCase]:
    """Every combination, the ones that say most first: small before large, plain before optional."""
    ranked = [
        (place + 2 * number + rank, BenchCase(preset=preset, dtype=dtype, option=option))
        for place, preset in enumerate(presets)
        for number, dtype in enumerate(dtypes)
        for rank, option in enumerate(options)
    ]
    return [case for _, case in sorted(ranked, key=lambda pair: pair[0])]


def in_groups(cases: Sequence[BenchCase]) -> list[BenchCase]:
    """The same cases, those that share weights side by side, and what changes the weights last."""
    order = list(OPTIONS)
    return sorted(cases, key=lambda case: (case.preset != BUNDLED.name, case.dtype, order.index(case.option)))
