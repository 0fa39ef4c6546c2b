"""The picture as the CLIP image encoder wants it: squashed to a square, antialiased, normalised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicrafter.architectures import CLIP_PIXELS
from dynamicrafter.errors import InputError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # arXiv:2103.00020, as released with CLIP
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(image: Tensor, *, size: int = CLIP_PIXELS) -> Tensor:
    """Squash pictures to the square that the CLIP image encoder reads, and normalise them.

    An axis that shrinks is blurred first; then torch's bicubic, with corners aligned. Computed in float32.

    Args:
        image: (b, 3, h, w) in [-1, 1], on any device.
        size: pixels along each side of the result.

    Returns:
        (b, 3, size, size), float32, with CLIP's mean and standard deviation taken out.

    Raises:
        InputError: image has another shape or is empty, or size is not positive.

    Source: the published code's `kornia.geometry.resize(antialias=True)`, which the released weights were trained on.
    """
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise InputError(f"image must have shape (b, 3, h, w), none of them 0, got {tuple(image.shape)}.")
    if size < 1:
        raise InputError(f"size must be a positive number of pixels, got {size}; CLIP's own is {CLIP_PIXELS}.")
    pixels = image.float()
    for axis in (3, 2):
        if pixels.shape[axis] > size:
            pixels = _blur(pixels, axis=axis, shrink=pixels.shape[axis] / size)
    pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=True)
    mean = pixels.new_tensor(CLIP_MEAN).view(-1, 1, 1)
    std = pixels.new_tensor(CLIP_STD).view(-1, 1, 1)
    return ((pixels + 1) / 2 - mean) / std


def _blur(pixels: Tensor, *, axis: int, shrink: float) -> Tensor:
    """Smooth one axis (2 or 3) of (b, 3, h, w) by the Gaussian that antialiases a reduction by `shrink` > 1."""
    # σ is rounded to float32 before it is squared: golden pixels differ in their last half-precision bit otherwise.
    sigma = torch.tensor(max((shrink - 1) / 2, 0.001), dtype=torch.float32)
    taps = int(max(4 * sigma.item(), 3)) | 1
    reach = taps // 2  # at most max(1, shrink − 1), so that even a tiny axis is long enough to be reflected
    kernel = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(pixels.device)
    if axis == 3:
        padded = F.pad(pixels, (reach, reach, 0, 0), mode="reflect")
        kernel = kernel.view(1, 1, 1, taps)
    else:
        padded = F.pad(pixels, (0, 0, reach, reach), mode="reflect")
        kernel = kernel.view(1, 1, taps, 1)
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)
