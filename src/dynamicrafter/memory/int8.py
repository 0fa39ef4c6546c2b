"""Weights in 8 bits: whole numbers from -127 to 127, and a scale for each output channel.

A weight is widened when its layer works, and nothing else changes: half the memory of bfloat16, at the price of the
rounding (docs/memory.md states what it comes to). Whole numbers keep closer to a weight than float8 does, which spends
most of its codes on magnitudes that no weight of the channel has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_LARGEST = 127
_FEWEST = 4096  # elements; smaller weights keep their format, for they take next to nothing
# Where errors hurt most and little is to be gained: first and last layers, embeddings; and adapters, which are small.
_KEPT = ("conv_in", "conv_out", "time_embedding", "motion_embedding", "lora_")


class Int8Weight(nn.Module):
    """Turns a weight into 8 bits and back, as `torch.nn.utils.parametrize` asks for it."""

    def forward(self, codes: Tensor, scale: Tensor) -> Tensor:
        """The weight, (out, …), of codes (out, …) and scale (out, 1, …), in the scale's format."""
        return codes.to(scale.dtype) * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and scale of a weight."""
        whole = weight.float()
        largest = whole.abs().amax(dim=tuple(range(1, whole.ndim)), keepdim=True)
        # The scale is rounded first, and codes made for what it then is, so that no channel grows as a whole.
        scale = torch.where(largest > 0, largest / _LARGEST, torch.ones_like(largest)).to(weight.dtype)
        codes = (whole / scale.float()).round().clamp(-_LARGEST, _LARGEST)
        return codes.to(torch.int8, memory_format=torch.preserve_format), scale


def quantize(network: nn.Module) -> None:
    """Turn the weights of a network's large layers into 8 bits, in place."""
    for _, layer in list(_large_layers(network)):
        layer.weight.requires_grad_(False)
        # "Unsafe" allows that the weight that comes back is not quite the one that went in.
        parametrize.register_parametrization(layer, "weight", Int8Weight(), unsafe=True)


def is_quantized(network: nn.Module) -> bool:
    return any(parametrize.is_parametrized(layer, "weight") for layer in network.modules())


def restore(network: nn.Module, exact: nn.Module) -> None:
    """Give a network in 8 bits the weights of an equal one, which may lack the adapters."""
    weights = exact.state_dict()
    for name, layer in list(network.named_modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            key = f"{name.replace('.base_layer', '')}.weight"
            layer.weight = nn.Parameter(weights[key].to(layer.weight.device), requires_grad=False)


def quantized_bytes(network: nn.Module, itemsize: int) -> int:
    """Bytes that a network's parameters take, or would take, in 8 bits.

    Args:
        itemsize: bytes of each parameter that keeps its format.
    """
    large = [_kept(layer).shape for _, layer in _large_layers(network)]
    exact = sum(parameter.numel() for parameter in network.parameters()) * itemsize
    return exact - sum(shape.numel() * (itemsize - 1) - shape[0] * itemsize for shape in large)


def widest_weight_bytes(network: nn.Module, itemsize: int) -> int:
    """Bytes of the largest weight that is widened while its layer works."""
    return max((_kept(layer).numel() for _, layer in _large_layers(network)), default=0) * itemsize


def _large_layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in network.named_modules():
        treated = isinstance(layer, nn.Linear | nn.Conv2d) and not any(word in name for word in _KEPT)
        if treated and _kept(layer).numel() >= _FEWEST:
            yield name, layer


def _kept(layer: Any) -> Tensor:
    """The weight of a layer as it is kept, in 8 bits or not."""
    return layer.parametrizations.weight.original0 if parametrize.is_parametrized(layer, "weight") else layer.weight
