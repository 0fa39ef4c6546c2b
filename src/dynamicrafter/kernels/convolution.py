"""Convolutions that keep the size, as matrix products where a processor multiplies faster than it convolves."""

from __future__ import annotations

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.nn import functional as F

from dynamicrafter.kernels.products import is_plain, linear


class FrameConvolution(nn.Conv2d):
    """3×3 on each frame.

    oneDNN fills its matrix tiles along a row of pixels, so that rows shorter than a tile leave most of it empty: a
    third of the machine's rate on 4 pixels. Over the pixels of all frames at once, one matrix product fills them.
    """

    def forward(self, pictures: Tensor) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        """(n, c, h, w) → (n, c′, h, w)."""
        if _may_unfold(pictures, self.weight) and pictures.shape[-1] <= 8:
            return _as_product(self, pictures)
        return super().forward(pictures)


class TimeConvolution(nn.Conv2d):
    """(3, 1) on the plane of time and pixels; one matrix product where channels are many enough to repay the copies."""

    def forward(self, planes: Tensor) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        """(b, c, f, n) in and out."""
        if _may_unfold(planes, self.weight) and self.in_channels >= 640:
            return _as_product(self, planes)
        return super().forward(planes)


def _may_unfold(pictures: Tensor, weight: Tensor) -> bool:
    """Whether this is for a processor's kernels, which alone gain; a backward pass would keep every copy.

    Asked before any length, on which a compiled graph would else depend.
    """
    if is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return is_plain(pictures) and is_plain(weight, like=pictures)


def _as_product(conv: nn.Conv2d, pictures: Tensor) -> Tensor:
    """A convolution that keeps the size, as one matrix product over every pixel's neighbourhood."""
    high, wide = conv.kernel_size
    padded = F.pad(pictures.permute(0, 2, 3, 1), (0, 0, wide // 2, wide // 2, high // 2, high // 2))
    neighbourhoods = padded.unfold(1, high, 1).unfold(2, wide, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
    return linear(neighbourhoods, weight, conv.bias).permute(0, 3, 1, 2)
