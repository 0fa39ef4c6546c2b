"""One call of the UNet at a preset's size, timed in turn with matrix products.

Calls and products alternate, so that a neighbour who takes half the machine takes half of both, and the ratio stays.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from dynamicrafter.benchmarking.clock import PeakMemory, bytes_in_use, matmul_flop_per_second, seconds
from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.hub import resolve
from dynamicrafter.memory.blocks import BlockOffload
from dynamicrafter.memory.counting import count_call
from dynamicrafter.memory.footprint import image_context_shape
from dynamicrafter.memory.int8 import quantize
from dynamicrafter.memory.malloc import keep_freed_memory, trim_heap
from dynamicrafter.memory.tiles import pixels_of_a_latent
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.pipeline.loading import SEEDED, empty_model, folder_origin, seeded_components
from dynamicrafter.pipeline.long_clips import plan_windows
from dynamicrafter.presets import BUNDLED, NUM_FRAMES, WINDOW_STRIDE

Option = Literal["plain", "together", "int8", "blocks", "compile"]
OPTIONS: dict[Option, str] = {
    "plain": "one pass of one step",
    "together": "the two passes of a guided step as one batch",
    "int8": "weights in 8 bits",
    "blocks": "blocks that come one by one (CUDA)",
    "compile": "torch.compile, the whole UNet as one graph",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCase:
    """What is timed.

    Attributes:
        preset: 256, 512, 1024 or bundled; gives networks and frame size.
        dtype: float32, bfloat16 or float16.
        option: of `OPTIONS`.
        frames: of the clip.
    """

    preset: str
    dtype: str
    option: Option = "plain"
    frames: int = NUM_FRAMES

    @property
    def rows(self) -> int:
        return 2 if self.option == "together" else 1

    @property
    def model(self) -> str:
        """Its name; weights of the published sizes are drawn from their names, on which the time doesn't depend."""
        return BUNDLED.name if self.preset == BUNDLED.name else f"{SEEDED}{self.preset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one case took; memory in bytes.

    Attributes:
        flop: arithmetic of a call, a multiplication and an addition counting 2.
        first, warm, best: seconds of the first call, and median and least of those after it.
        flop_per_second: at the median.
        matmul_flop_per_second: of plain products in the same format, timed between the calls.
        share: of each call in the rate of the products around it; the median.
        memory_before, memory_peak: in use with the weights loaded, and at most.
    """

    case: BenchCase
    height: int
    width: int
    flop: int
    first: float
    warm: float
    best: float
    flop_per_second: float
    matmul_flop_per_second: float
    share: float
    memory_before: int
    memory_peak: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Bench:
    """Times cases one after the other; those that share weights draw them once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: tuple[tuple[bool, str], DynamiCrafterUNet] | None = None

    def measure(self, case: BenchCase, *, calls: int = 3) -> Measurement:
        """Time one case.

        Args:
            calls: timed after the first.
        """
        unet = self._unet(case)
        try:
            return measure(case, unet, device=self.device, calls=calls)
        finally:
            if case.option not in ("plain", "together"):  # which leave the UNet as it was
                self._kept = None

    def _unet(self, case: BenchCase) -> DynamiCrafterUNet:
        # The published presets' networks differ in 16 numbers.
        key = (case.preset == BUNDLED.name, case.dtype)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # before the next one takes its memory
            self._kept = (key, make_unet(case))
        unet: Any = self._kept[1]  # whose `to` diffusers annotates strangely
        if case.option == "int8":
            quantize(unet)
        if case.option == "blocks":
            BlockOffload(unet.to("cpu"), self.device).load()
            return unet
        unet.to(self.device)
        if case.option == "compile":
            unet.compile(fullgraph=True, dynamic=False)
        return unet


def measure(case: BenchCase, unet: DynamiCrafterUNet, *, device: torch.device, calls: int) -> Measurement:
    """Time a UNet that has its case's option already."""
    networks, preset = empty_model(case.model)
    size = (preset.height, preset.width)
    flop = count_flop(networks, case, size=size)
    inputs = make_inputs(unet, networks, case, size=size, device=device)
    if device.type == "cpu":
        keep_freed_memory()  # as the pipeline does
        trim_heap()  # what drawing weights left
    before = bytes_in_use(device)

    def call() -> object:
        return unet(**inputs)

    dtype = getattr(torch, case.dtype)
    with PeakMemory(device) as peak, torch.inference_mode():
        first = seconds(call, device)
        matmuls, warm = [matmul_flop_per_second(device, dtype)], []
        for _ in range(calls):
            warm.append(seconds(call, device))
            matmuls.append(matmul_flop_per_second(device, dtype))
    shares = [flop / took / ((matmuls[i] + matmuls[i + 1]) / 2) for i, took in enumerate(warm)]
    return Measurement(
        case=case,
        height=preset.height,
        width=preset.width,
        flop=flop,
        first=first,
        warm=statistics.median(warm),
        best=min(warm),
        flop_per_second=flop / statistics.median(warm),
        matmul_flop_per_second=statistics.median(matmuls),
        share=statistics.median(shares),
        memory_before=before,
        memory_peak=peak.bytes,
    )


def count_flop(networks: Mapping[Component, Any], case: BenchCase, *, size: tuple[int, int]) -> int:
    """Arithmetic of one call, from shapes alone.

    Args:
        networks: on the meta device.
        size: height and width in pixels.
    """
    unet = networks["unet"]
    inputs = make_inputs(unet, networks, case, size=size, device=torch.device("meta"))
    return count_call(lambda: unet(**inputs)).flops


def make_unet(case: BenchCase) -> DynamiCrafterUNet:
    """The UNet of a case on the processor, laid out as the pipeline has it."""
    dtype = getattr(torch, case.dtype)
    if case.model.startswith(SEEDED):
        _, origin = seeded_components(case.model, dtype=dtype, lazy=True)
    else:
        origin = folder_origin(resolve(case.model).path, dtype=dtype, variant=None)
    unet: Any = origin("unet")
    return unet.to(memory_format=torch.channels_last)


def make_inputs(
    unet: DynamiCrafterUNet,
    networks: Mapping[Component, Any],
    case: BenchCase,
    *,
    size: tuple[int, int],
    device: torch.device,
) -> dict[str, Any]:
    """Arguments of one call, with keys and values of the contexts projected beforehand as the pipeline has them."""
    like: dict[str, Any] = {"device": device, "dtype": unet.dtype}
    width, factor = unet.config["cross_attention_dim"], pixels_of_a_latent(networks["vae"])
    tokens = networks["text_encoder"].config.max_position_embeddings
    rows, frames = case.rows, case.frames
    image = image_context_shape(networks, frames)
    windows = plan_windows(frames, window=NUM_FRAMES, stride=WINDOW_STRIDE, max_frames=unet.config["max_frames"])
    with torch.inference_mode():
        context = unet.project_context(
            torch.randn(rows, tokens, width, **like), None if image is None else torch.randn(rows, *image, **like)
        )
    latent = (frames, size[0] // factor, size[1] // factor)
    return {
        "sample": torch.randn(rows, unet.config["in_channels"], *latent, **like),
        "timestep": torch.full((rows,), 601, device=device),
        "context": context,
        "windows": windows,
    }
