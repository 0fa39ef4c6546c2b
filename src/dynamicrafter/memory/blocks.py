"""The UNet's blocks on the device one by one, through diffusers' group offloading.

The units of each level form groups; beside them stay the first and the middle blocks, whose weights are few. On CUDA
the next group is copied on a stream of its own while one works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from diffusers.hooks import HookRegistry
from torch import nn

from dynamicrafter.models.unet import DynamiCrafterUNet

# By these names diffusers' hooks of group offloading are taken off again, for which it has no call.
_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", "group_offloading")


def offload_blocks(unet: DynamiCrafterUNet, device: torch.device) -> None:
    """Keep a UNet's weights in the processor's memory, and copy each block to the device for its moment.

    Args:
        unet: with its weights in the processor's memory.
    """
    streams = device.type == "cuda"
    levels = (str(number) for number in range(max(len(unet.down), len(unet.up))))
    # Down to the units, as a stage has no call of its own that could bring it.
    blocks: Any = ["down", "up", *levels, "resize"]  # annotated as one name
    unet.enable_group_offload(
        onload_device=device,
        offload_type="block_level",
        num_blocks_per_group=1,
        block_modules=blocks,
        use_stream=streams,
        record_stream=streams,
    )


def remove_block_offload(unet: DynamiCrafterUNet) -> None:
    """Undo `offload_blocks`; the weights stay in the processor's memory."""
    for module in unet.modules():
        if hasattr(module, "_diffusers_hook"):
            registry = HookRegistry.check_if_exists_or_initialize(module)
            for name in _HOOKS:
                registry.remove_hook(name, recurse=False)


@contextmanager
def projections_on(unet: DynamiCrafterUNet, device: torch.device) -> Iterator[None]:
    """Have the layers on a device that project text and picture, wherever the UNet's weights wait.

    They work once before the first step, when no block has been called that would bring them.
    """
    kept: dict[Any, Any] = {}
    for layer in _projections(unet):
        for tensor in layer.parameters():
            if tensor.device != device:
                kept[tensor] = tensor.data
                tensor.data = tensor.data.to(device)
    try:
        yield
    finally:
        for tensor, data in kept.items():
            tensor.data = data


def blocks_bytes(unet: DynamiCrafterUNet, size: Callable[[nn.Module], int]) -> int:
    """Bytes of a UNet's weights on the device at once: what always stays, a group, and the next on its way.

    Args:
        size: bytes of a module's weights.
    """
    groups = [part for stage in (*unet.down, *unet.up) for part in _parts(stage)]
    sizes = [size(part) for part in groups]
    together = max((one + other for one, other in pairwise(sizes)), default=0)
    return size(unet) - sum(sizes) + together


def _parts(stage: Any) -> list[nn.Module]:
    return [*stage.units, *([] if stage.resize is None else [stage.resize])]


def _projections(unet: DynamiCrafterUNet) -> Iterator[nn.Module]:
    for name, module in unet.named_modules():
        if name.rpartition(".")[2] in ("to_k_text", "to_v_text", "to_k_image", "to_v_image"):
            yield module
