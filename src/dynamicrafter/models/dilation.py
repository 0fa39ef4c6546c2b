"""Larger pictures than a network was trained on: its 3×3 convolutions look further (ScaleCrafter, arXiv:2310.07702).

A network that sees a larger picture through kernels of the trained size takes it for several pictures, and repeats what
it shows. Dilated kernels give deep layers the view that they were trained with, of twice the pixels. This changes no
weight, and so stands beside the networks: within `dilated`, the named convolutions compute otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_DISPERSED = 5  # side of a dispersed kernel


def redilate(conv: nn.Conv2d, pictures: Tensor, factor: float) -> Tensor:
    """A 3×3 convolution that looks `factor` times as far (§3.2): its dilation is the next whole number, and the picture
    is resized by what is too much.

    Args:
        pictures: (n, c, h, w).
        factor: 1 or more; need not be whole.

    Returns:
        (n, c′, h / stride, w / stride).
    """
    return _spread(pictures, conv.weight, conv.bias, factor, reach=1, stride=conv.stride[0])


def disperse(conv: nn.Conv2d, pictures: Tensor, factor: float) -> Tensor:
    """The same with the kernel enlarged to 5×5 first, which needs half the dilation (§3.3)."""
    kernels = conv.weight.flatten(2) @ dispersion_matrix().to(conv.weight).mT
    weight = kernels.unflatten(-1, (_DISPERSED, _DISPERSED))
    return _spread(pictures, weight, conv.bias, factor / 2, reach=2, stride=conv.stride[0])


def _spread(pictures: Tensor, weight: Tensor, bias: Tensor | None, factor: float, *, reach: int, stride: int) -> Tensor:
    """Resize, convolve with dilation, resize to what the convolution alone would give."""
    height, width = pictures.shape[2:]
    dilation = math.ceil(factor)
    sizes = [round(side * dilation / factor) for side in (height, width)]
    resized = _resize(pictures, sizes)
    padding = reach * dilation
    answer = F.conv2d(resized, weight, bias, stride=stride, padding=padding, dilation=dilation)
    return _resize(answer, [height // stride, width // stride])


def _resize(pictures: Tensor, size: list[int]) -> Tensor:
    if list(pictures.shape[2:]) == size:
        return pictures
    return F.interpolate(pictures, size=size, mode="bilinear", align_corners=False)


@cache
def dispersion_matrix(*, pixels: int = 3, scale: int = 2, pixel_weight: float = 0.05) -> Tensor:
    """How a 5×5 kernel is made of a 3×3 one, both row by row: (25, 9), float64.

    Of all linear ways the one whose kernel, on an enlarged feature map, comes nearest to what the small kernel does
    before enlarging, and a little to what it does on the map itself (eq. 7): least squares over all features.

    Args:
        pixels: along each side of the features.
        scale: of the enlargement, which is bilinear with corners aligned.
        pixel_weight: of the second aim.
    """
    large = scale * (pixels - 1) + 1
    features = torch.eye(pixels**2, dtype=torch.float64).view(-1, 1, pixels, pixels)
    enlarged = F.interpolate(features, size=(large, large), mode="bilinear", align_corners=True)
    wide = torch.cat([_answers(enlarged, _DISPERSED), pixel_weight * _answers(features, _DISPERSED)])
    narrow = _answers(features, 3).view(pixels**2, pixels, pixels, 9).permute(0, 3, 1, 2)
    narrow_enlarged = F.interpolate(narrow, size=(large, large), mode="bilinear", align_corners=True)
    aims = [narrow_enlarged.permute(0, 2, 3, 1).reshape(-1, 9), pixel_weight * _answers(features, 3)]
    return torch.linalg.lstsq(wide, torch.cat(aims)).solution


def _answers(features: Tensor, side: int) -> Tensor:
    """For every feature and place, what each element of a kernel would be multiplied by: (n·h·w, side²)."""
    return F.unfold(features, side, padding=side // 2).mT.reshape(-1, side**2)


@contextmanager
def dilated(network: nn.Module, factors: Mapping[str, float]) -> Iterator[None]:
    """Have some of a network's 3×3 convolutions look further while the context lasts.

    Args:
        factors: by the convolution's name in `network.named_modules()`.
    """
    changed: list[tuple[nn.Module, Any]] = []
    try:
        for name, factor in factors.items():
            conv = network.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            changed.append((conv, conv.__dict__.get("forward")))
            conv.forward = partial(redilate, conv, factor=factor)
        yield
    finally:
        for conv, before in reversed(changed):
            if before is None:
                del conv.forward
            else:
                conv.forward = before
