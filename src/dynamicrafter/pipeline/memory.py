"""How much memory a run takes, and what makes it fit: a plan from shapes alone, made before anything runs.

What each part of a run needs is in closed form, so that a plan costs no time; the constants are counts of live tensors
on the meta device (`accounting.count_call`), and tests hold them against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psutil
import torch
from torch import nn

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import COMPONENTS, dtype_for
from dynamicrafter.kernels.parts import part_bytes
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.pipeline.autoencoder import Autoencoder, pixels_of_a_latent, tile_pixels
from dynamicrafter.pipeline.eight_bits import bytes_in_eight_bits, widest_bytes
from dynamicrafter.pipeline.groups import window_bytes

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

# Activations of one UNet call at their peak: so many elements per base channel and latent element of the video, and the
# parts in which the feed-forward widens its tokens. `accounting.count_call` finds 16 (one row) to 17 (several) at the
# published widths, for short clips and for long ones in windows, and in every dtype. Nothing grows faster than the
# video, as fused attention keeps no matrix of pairs. PyTorch's own record on a CPU is the same to the byte.
PEAK_PER_ELEMENT = 17
PARTS_BYTES = 48 * 2**20
# The same for the published autoencoder, per pixel and base channel, and for CLIP's towers, per token and channel.
ENCODING_PER_PIXEL = 5.1
DECODING_PER_PIXEL = 7.6
CONDITIONING_PER_TOKEN = 14
# The bundled model's autoencoder has no width that all its parts share; per pixel.
PATCHES_PER_PIXEL = 120

_ROUNDING = 3  # times the decoded video in float32, while it is turned into whole numbers
_SCALING_BYTES = 16 * 2**20  # for a picture that is blurred and scaled for CLIP, in float32

SHARE = 0.6  # of the device's memory for one batch of all passes; the rest is for the other networks and programs
_HEADROOM = 0.9  # of a device's memory that a run may plan with; the rest is the driver's and the allocator's
# On a CPU a process is resident with more than its tensors: the libraries, and gaps between tensors that glibc keeps
# (docs/benchmarks.md): some times the activations, but no more than so many bytes, as tensors of more than 32 MiB leave
# none. Where freed memory goes back at once, little is left of the gaps.
LIBRARIES_BYTES = 700 * 10**6
_GAPS, _MOST_GAPS = 2.2, 900 * 10**6
_GAPS_TUNED = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the parts of a run take, in bytes: all that a plan is made of.

    Attributes:
        weights: of each network.
        weights_int8: of the UNet in 8 bits, with the largest weight widened.
        window, window_int8: of the UNet's weights on the device at once when its blocks come one by one.
        encoding, conditioning, decoding: activations at their peak.
        encoding_tiled, decoding_tiled: the same in tiles; no less where the autoencoder knows none.
        denoising, denoising_together: of one pass, and of all passes of a step as one batch.
        fixed: networks that can't leave, as their weights are no file's.
    """

    weights: Mapping[Component, int]
    weights_int8: int
    window: int
    window_int8: int
    encoding: int
    encoding_tiled: int
    conditioning: int
    denoising: int
    denoising_together: int
    decoding: int
    decoding_tiled: int
    fixed: frozenset[Component] = frozenset()


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
                weights["unet"] = footprint.window_int8 if "int8" in plan.measures else footprint.window
        elif "int8" in plan.measures:
            weights["unet"] = footprint.weights_int8
    return weights


def measure_footprint(
    networks: Mapping[Component, Any],
    *,
    height: int,
    width: int,
    num_frames: int,
    passes: int,
    videos: int = 1,
    dtype: torch.dtype | None = None,
    fixed: frozenset[Component] = frozenset(),
) -> Footprint:
    """What a run's parts take, from shapes alone.

    Args:
        networks: all five, filled or empty.
        height, width: pixels, multiples of 64.
        num_frames: that go through the UNet at once.
        passes: of a guided step, 1 to 3.
        videos: made as one batch.
        dtype: of the networks, as if they were cast to it; None for the one that they have.
        fixed: networks that can't leave.
    """
    unet, vae = networks["unet"], networks["vae"]
    sizes = {name: _itemsize(name, networks[name], dtype) for name in COMPONENTS}
    of_unet = sizes["unet"]
    factor = pixels_of_a_latent(vae)
    latent = {"num_frames": num_frames, "height": height // factor, "width": width // factor, "itemsize": of_unet}
    contexts = _context_bytes(networks, rows=videos * passes, num_frames=num_frames, itemsize=of_unet)
    pixels, tile = height * width, min(height, tile_pixels(vae)) * min(width, tile_pixels(vae))
    picture = 3 * pixels * torch.float32.itemsize
    encoding, decoding = _per_pixel(vae, sizes["vae"])
    video = videos * num_frames * picture
    widest = widest_bytes(unet, of_unet)
    return Footprint(
        weights={name: weight_bytes(networks[name], sizes[name]) for name in COMPONENTS},
        weights_int8=bytes_in_eight_bits(unet, of_unet) + widest,
        window=window_bytes(unet, lambda part: weight_bytes(part, of_unet)),
        window_int8=window_bytes(unet, lambda part: bytes_in_eight_bits(part, of_unet)) + widest,
        encoding=int(videos * (encoding * pixels + 2 * picture)),
        encoding_tiled=int(encoding * tile + videos * 3 * picture),
        conditioning=_conditioning_bytes(networks, rows=videos, itemsize=sizes["image_encoder"]) + contexts,
        denoising=contexts + activation_bytes(unet, batch=videos, **latent),
        denoising_together=contexts + activation_bytes(unet, batch=videos * passes, **latent),
        decoding=int(max(decoding * pixels + video, _ROUNDING * video)),
        decoding_tiled=int(max(decoding * tile + video + 3 * picture, _ROUNDING * video)),
        fixed=fixed,
    )


def weight_bytes(network: nn.Module, itemsize: int) -> int:
    """Bytes of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters()) * itemsize


def activation_bytes(
    unet: DynamiCrafterUNet, *, batch: int, num_frames: int, height: int, width: int, itemsize: int
) -> int:
    """Peak of one call's activations; for the published widths, as no narrower UNet comes near a machine's memory.

    Args:
        height, width: of the latents.
        itemsize: bytes of a number.
    """
    elements = batch * num_frames * height * width * unet.config["block_out_channels"][0]
    return PEAK_PER_ELEMENT * elements * itemsize + PARTS_BYTES


def _itemsize(name: Component, network: nn.Module, dtype: torch.dtype | None) -> int:
    """Bytes of a number in a network at work; an autoencoder in float16 works in float32."""
    own = next(parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    works_in = dtype_for(name, dtype or own)
    assert works_in is not None
    return works_in.itemsize


def _per_pixel(vae: Autoencoder, itemsize: int) -> tuple[float, float]:
    """Bytes of activations for each pixel of a picture that is encoded, and of one that is decoded."""
    widths = vae.config.get("block_out_channels")
    if widths is None:
        return PATCHES_PER_PIXEL * itemsize, PATCHES_PER_PIXEL * itemsize
    return ENCODING_PER_PIXEL * widths[0] * itemsize, DECODING_PER_PIXEL * widths[0] * itemsize


def _conditioning_bytes(networks: Mapping[Component, Any], *, rows: int, itemsize: int) -> int:
    text, image = networks["text_encoder"].config, networks["image_encoder"].config
    tokens = (image.image_size // image.patch_size) ** 2 + 1
    elements = max(text.max_position_embeddings * text.hidden_size, tokens * image.hidden_size)
    return rows * (CONDITIONING_PER_TOKEN * elements * itemsize + _SCALING_BYTES)


def _context_bytes(networks: Mapping[Component, Any], *, rows: int, num_frames: int, itemsize: int) -> int:
    """Keys and values of text and picture, which stay over the run."""
    layers = (module for name, module in networks["unet"].named_modules() if name.endswith("to_v_text"))
    widths = sum(layer.out_features for layer in layers)
    tokens = networks["text_encoder"].config.max_position_embeddings
    tokens += num_frames * networks["image_projector"].config["num_queries"]
    return 2 * rows * tokens * widths * itemsize


def device_bytes(device: torch.device) -> int:
    """Total memory of a device. The total, not what is free, so that the same run is planned alike every time."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def free_bytes(device: torch.device) -> int:
    """What other programs leave of a device's memory, with what this process holds of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def _gb(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"
