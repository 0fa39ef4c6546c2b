"""Arithmetic and memory of a run, counted from shapes alone.

A network on the meta device computes shapes and no values. Two modes listen while it does: PyTorch's counter adds up
multiplications, and a second one keeps the books of every piece of memory that a call allocates and lets go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dynamicrafter.architectures import CLIP_PIXELS
from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import dtype_for
from dynamicrafter.memory.footprint import image_context_shape, measure_footprint
from dynamicrafter.memory.plan import MemoryPlan, make_plan
from dynamicrafter.memory.tiles import pixels_of_a_latent
from dynamicrafter.models.deep_features import DeepFeatures
from dynamicrafter.models.windows import TimeWindows


@dataclass(frozen=True, slots=True)
class CallCost:
    """What one call costs.

    Attributes:
        flops: arithmetic of matrix products and convolutions, a multiplication and an addition counting 2.
        peak_bytes: most memory that the call holds at once beyond its arguments and weights, results included.
    """

    flops: int
    peak_bytes: int


def count_call(call: Callable[[], object]) -> CallCost:
    """Count the cost of a call on tensors of the meta device.

    Attention counts as the fused kernels run it, without the matrix of all queries by all keys.
    """
    with LiveMemory() as memory, FlopCounterMode(display=False) as counter, _FusedAttention(), torch.inference_mode():
        result = call()
    del result
    return CallCost(counter.get_total_flops(), memory.peak)


class LiveMemory(TorchDispatchMode):
    """Adds up the storages that calls within allocate, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._sizes: dict[int, int] = {}  # by address of the storage

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):
            self._note(tensor, counted=False)  # weights and inputs, which results may be views of
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            self._note(tensor, counted=True)
        return result

    def _note(self, tensor: Any, *, counted: bool) -> None:
        if not isinstance(tensor, Tensor):
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._sizes:
            return
        self._sizes[address] = storage.nbytes() if counted else 0
        self._live += self._sizes[address]
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._release, address)

    def _release(self, address: int) -> None:
        self._live -= self._sizes.pop(address)


class _FusedAttention(TorchFunctionMode):
    """Sends attention to a fused operator, for which the meta device would choose the one written out in full."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _fused(*args, **kwargs)
        return func(*args, **kwargs)


def _fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    # Mask and scale change neither shapes nor this count.
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEstimate:
    """What one clip costs: arithmetic by phase, as in `CallCost`, and memory.

    Attributes:
        unet_flops: one pass of one step, with keys and values of its contexts, which a run computes only once.
        denoise_flops: all passes of all steps, with what is projected once for the run.
        encode_flops: prompts and pictures, through CLIP, the projector and the autoencoder.
        decode_flops: all frames.
        memory: what it takes, and what makes it fit.
    """

    unet_flops: int
    denoise_flops: int
    encode_flops: int
    decode_flops: int
    memory: MemoryPlan

    @property
    def flops(self) -> int:
        """Arithmetic of the whole run."""
        return self.encode_flops + self.denoise_flops + self.decode_flops


def estimate_run(
    networks: Mapping[Component, Any],
    *,
    height: int,
    width: int,
    num_frames: int,
    steps: int,
    passes: int,
    dtype: torch.dtype,
    memory_bytes: int,
    windows: TimeWindows | None = None,
    device: str = "cpu",
) -> RunEstimate:
    """Count what a clip costs, from shapes alone; takes seconds, half a minute at 512 frames, and reads no weights.

    Args:
        networks: all five, of any size, on the meta device; they are cast to `dtype`.
        height, width: pixels, multiples of 64.
        passes: of a guided step, 1 to 3.
        dtype: that the networks run in; the autoencoder keeps float32 where it is float16.
        memory_bytes: that the run may take.
        device: cpu, cuda or mps.
        windows: of a clip that is longer than one, as `plan_windows` gives them.
    """
    for name, network in networks.items():
        network.to("meta", dtype_for(name, dtype))
    unet, vae = networks["unet"], networks["vae"]
    factor = pixels_of_a_latent(vae)
    latent = {"num_frames": num_frames, "height": height // factor, "width": width // factor}

    text, image = _contexts(networks, passes=passes, num_frames=num_frames)
    projected = count_call(lambda: unet.project_context(text, image))
    context = unet.project_context(text[:1], None if image is None else image[:1])
    sample = _empty(1, unet.config.in_channels, *latent.values(), dtype=unet.dtype)
    called = count_call(lambda: unet(sample, _empty(1, dtype=torch.int64), context=context, windows=windows))

    frame = _empty(1, vae.config["latent_channels"], height // factor, width // factor, dtype=vae.dtype)
    decoded = count_call(lambda: vae.decode(frame, return_dict=False)[0])
    footprint = measure_footprint(networks, height=height, width=width, num_frames=num_frames, passes=passes)
    return RunEstimate(
        unet_flops=called.flops + projected.flops // passes,  # rows of a batch share no arithmetic
        denoise_flops=called.flops * passes * steps + projected.flops,
        encode_flops=_encoding_flops(
            networks,
            passes=passes,
            height=height,
            width=width,
            num_frames=num_frames if windows is None else windows.size,
        ),
        decode_flops=decoded.flops * num_frames,
        memory=make_plan(footprint, device=device, budget=memory_bytes),
    )


def _empty(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


def _contexts(networks: Mapping[Component, Any], *, passes: int, num_frames: int) -> tuple[Tensor, Tensor | None]:
    unet = networks["unet"]
    width = unet.config.cross_attention_dim
    text = _empty(passes, _text_length(networks), width, dtype=unet.dtype)
    shape = image_context_shape(networks, num_frames)
    return text, None if shape is None else _empty(passes, *shape, dtype=unet.dtype)


def _encoding_flops(networks: Mapping[Component, Any], *, passes: int, height: int, width: int, num_frames: int) -> int:
    """Prompt and picture, and what stands in for them in an unconditional pass; the picture's latents."""
    contexts = min(passes, 2)
    tokens = _empty(contexts, _text_length(networks), dtype=torch.int64)
    calls: list[Callable[[], object]] = [lambda: networks["text_encoder"](tokens)]
    if "image_encoder" in networks:
        vision = networks["image_encoder"]
        pixels = _empty(contexts, 3, CLIP_PIXELS, CLIP_PIXELS, dtype=vision.dtype)
        calls.append(lambda: networks["image_projector"](vision(pixel_values=pixels).last_hidden_state, num_frames))
    if networks["unet"].takes_image_latents:
        picture = _empty(1, 3, height, width, dtype=networks["vae"].dtype)
        calls.append(lambda: networks["vae"].encode(picture))
    return sum(count_call(call).flops for call in calls)


def _text_length(networks: Mapping[Component, Any]) -> int:
    """Tokens of a prompt that the text encoder reads."""
    return networks["text_encoder"].config.max_position_embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetCost:
    """Arithmetic of one pass of one video through the UNet, as in `CallCost`, keys and values of its context left out.

    Attributes:
        whole: all of it.
        surface: what still runs where deep features are used again, see `DeepFeatures`.
    """

    whole: int
    surface: int


def count_unet(unet: Any, *, num_frames: int, height: int, width: int) -> UNetCost:
    """Count the cost of a pass from a UNet's settings; reads no weights.

    Args:
        unet: of any size, on any device.
        height, width: of the latents.
    """
    with torch.device("meta"):
        shape = type(unet).from_config(unet.config).eval()
    depth = shape.config.cross_attention_dim
    # The number of context tokens decides about attention alone: those of the published text encoder and projector.
    context = shape.project_context(
        _empty(1, 77, depth, dtype=shape.dtype), _empty(1, num_frames, 16, depth, dtype=shape.dtype)
    )
    sample = _empty(1, shape.config.in_channels, num_frames, height, width, dtype=shape.dtype)
    timestep, kept = _empty(1, dtype=torch.int64), _AlwaysKept(tolerance=1.0)
    whole, surface = (count_call(lambda: shape(sample, timestep, context=context, memory=kept)).flops for _ in range(2))
    return UNetCost(whole=whole, surface=surface)


class _AlwaysKept(DeepFeatures):
    """Deep features that never grow old, for tensors that have shapes and no values to compare."""

    def recall(self, surface: Tensor, num_videos: int, compute: Any, embedding: Tensor, context: Any) -> Tensor:
        if self._deep is None:
            self._deep = compute(surface, embedding, context)
        return self._deep
