"""Matrix products as a processor's library does them best: oneDNN's, with what follows fused into the product.

PyTorch adds a bias by copying it over the whole result before the product, and multiplies float32 matrices by a library
that knows only half of what some makers' processors can do. oneDNN adds the bias, or applies the GELU, while a tile of
the result is still in the registers. Where it can't, or where gradients are asked for, all is as PyTorch does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.nn import functional as F


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """tokens · weightᵀ + bias, and the exact GELU of it where asked.

    Args:
        tokens: (…, c).
        weight: (c′, c).
        bias: (c′,).

    Returns:
        (…, c′).
    """
    if fuses(tokens, weight):
        # How Inductor calls it: the function that follows, its numbers (none) and its form (the exact one, no tanh).
        follows = ("gelu", [], "none") if gelu else ("none", [], "")
        return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, *follows)
    product = F.linear(tokens, weight, bias)
    return F.gelu(product) if gelu else product


def fuses(tokens: Tensor, weight: Tensor) -> bool:
    """Whether `linear` fuses what follows a product of these two."""
    if not is_plain(tokens) or not is_plain(weight, like=tokens) or is_grad_enabled():
        return False
    if torch.compiler.is_compiling() or not _has_onednn():  # the compiler fuses by itself
        return False
    return tokens.dtype is torch.float32 or multiplies_bfloat16(tokens)


def is_plain(tensor: Tensor, *, like: Tensor | None = None) -> bool:
    """Whether these are a processor's dense numbers, to be taken as they are, and of another tensor's format.

    They are not where a subclass stands for them (quantised weights), where they wait elsewhere (offloaded ones), or
    where autocast would give them another format.
    """
    if tensor.device.type != "cpu" or type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided:
        return False
    return (like is None or tensor.dtype is like.dtype) and not torch.is_autocast_enabled("cpu")


def multiplies_bfloat16(tokens: Tensor) -> bool:
    """Whether these are bfloat16, and on a processor whose products of them are fast."""
    if tokens.device.type != "cpu" or tokens.dtype is not torch.bfloat16:
        return False
    if torch.compiler.is_compiling() or not torch.backends.mkldnn.is_available():
        return False
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """The usual layer, multiplied by `linear`."""

    def forward(self, tokens: Tensor) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        """(…, c) → (…, c′)."""
        return linear(tokens, self.weight, self.bias)


def joint_product(tokens: Tensor, layers: Sequence[nn.Module]) -> Tensor | None:
    """Several layers' answers to the same tokens, side by side, (…, n·c′), by one product; None where it gains nothing.

    It does in a compiled call, where one kernel gathers the weights and what follows turns all answers round at once,
    and where nothing but the weights makes a layer's answer: no bias, adapter, hook or subclass.
    """
    if not torch.compiler.is_compiling() or not all(_is_bare(layer) for layer in layers):
        return None
    return F.linear(tokens, torch.cat([cast("Tensor", layer.weight) for layer in layers]))


def _is_bare(layer: nn.Module) -> bool:
    if type(layer) is not Linear or layer.bias is not None or type(layer.weight) not in (Tensor, nn.Parameter):
        return False
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)


class GatedLinear(Linear):
    """The usual layer, which can also answer what GEGLU makes of its output: the first half times the second's GELU."""

    def forward(self, tokens: Tensor, *, gated: bool = False) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        """(…, c) → (…, 2·c′), or (…, c′) where gated."""
        if not gated:
            return super().forward(tokens)
        # What oneDNN's GELU and two products for one change, bfloat16 can't tell, but float32 can.
        if tokens.dtype is torch.bfloat16 and fuses(tokens, self.weight):
            value_weight, gate_weight = self.weight.chunk(2)
            value_bias, gate_bias = self.bias.chunk(2)
            gate = linear(tokens, gate_weight, gate_bias, gelu=True)
            return linear(tokens, value_weight, value_bias).mul_(gate)
        return _gate(super().forward(tokens))


def geglu(layer: nn.Module, tokens: Tensor) -> Tensor:
    """GEGLU (arXiv:2002.05202) of a layer's output, (…, c) → (…, c′).

    The layer is always called itself, for its hooks may bring its weights. What stands in its place, an adapter say, or
    what watches its output knows the ungated one only.
    """
    if isinstance(layer, GatedLinear) and not layer._forward_hooks:
        return layer(tokens, gated=True)
    return _gate(layer(tokens))


def _gate(output: Tensor) -> Tensor:
    value, gate = output.chunk(2, dim=-1)
    return value * F.gelu(gate)
