"""Matrix products as a processor's library does them best: oneDNN's, with what follows fused into the product.

PyTorch adds a bias by copying it over the whole result before the product, and multiplies float32 matrices by a library
that knows only half of what some makers' processors can do. oneDNN adds the bias, or applies the GELU, while a tile of
the result is still in the registers. Where it can't, or where gradients are asked for, all is as PyTorch does it.
"""

from __future__ import annotations

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
    if fuses(tokens):
        # How Inductor calls it: the function that follows, its numbers (none) and its form (the exact one, no tanh).
        follows = ("gelu", [], "none") if gelu else ("none", [], "")
        return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, *follows)
    product = F.linear(tokens, weight, bias)
    return F.gelu(product) if gelu else product


def fuses(tokens: Tensor) -> bool:
    """Whether `linear` fuses what follows a product of these tokens."""
    if tokens.device.type != "cpu" or is_grad_enabled():
        return False
    if torch.compiler.is_compiling() or not _has_onednn():  # the compiler fuses by itself
        return False
    return tokens.dtype is torch.float32 or multiplies_bfloat16(tokens)


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
