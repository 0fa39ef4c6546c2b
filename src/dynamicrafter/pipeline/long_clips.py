"""Clips longer than the network was trained for (FreeNoise, arXiv:2310.15169): windows, noise, image context.

Temporal attention sees one window of frames at a time (`models.windows`). So that every window looks like a clip of its
own, the noise of the first one comes again in the later ones, in another order, and frames share the image tokens that
were learned for the frames of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.models.windows import TimeWindows
from dynamicrafter.randomness import draw


def plan_windows(
    num_frames: int, *, window: int, stride: int, max_frames: int, anchors: tuple[int, ...] = ()
) -> TimeWindows | None:
    """The windows of a clip; None for one that the network sees as a whole.

    Raises:
        InputError: a window or stride that breaks its rule, for a clip of any length.
    """
    windows = TimeWindows(window, stride, anchors)
    if num_frames > max_frames < window:
        raise InputError(f"window must be at most {max_frames} frames for this model, got {window}; try {max_frames}.")
    return windows if num_frames > window else None


@dataclass(frozen=True, slots=True, eq=False)
class ShuffledNoise:
    """Noise for a long clip, made of a window's.

    Attributes:
        sources: for each video and frame the frame of the first window whose noise it takes, (b, f).
        size: frames of the first window.
    """

    sources: Tensor
    size: int

    @classmethod
    def draw_order(
        cls, count: int, num_frames: int, windows: TimeWindows, generators: Generator | Sequence[Generator] | None
    ) -> ShuffledNoise:
        """Shuffle for `count` videos, each by its own generator where there are several.

        The frames that a window gains over the last one take the noise of those that it lost, in a random order: so
        every window holds the noise of the first one, each frame of it once.
        """
        each = list(generators) if isinstance(generators, Sequence) else [generators] * count
        orders = [_order(num_frames, windows, partial(torch.randperm, generator=generator)) for generator in each]
        return cls(torch.stack(orders), windows.size)

    def draw(self, shape: Sequence[int], generators: Generator | Sequence[Generator] | None) -> Tensor:
        """Noise of a shape (b, c, f, h, w), of which only a window's is drawn."""
        count, channels, _, height, width = shape
        first = draw((count, channels, self.size, height, width), generators)
        return torch.stack([noise[:, order] for noise, order in zip(first, self.sources, strict=True)])


def _order(num_frames: int, windows: TimeWindows, permute: Callable[[int], Tensor]) -> Tensor:
    order = torch.arange(num_frames)
    for gained in range(windows.size, num_frames, windows.stride):
        number = min(windows.stride, num_frames - gained)
        lost = gained - windows.size
        order[gained : gained + number] = order[lost + permute(number)]
    return order


def spread_context(image: Tensor, num_frames: int, windows: TimeWindows) -> Tensor:
    """Image tokens for the frames of a long clip, of those for one window's: (b, size, m, c) → (b, f, m, c).

    Animating, frames take their turns, so that any window sees all of them once and in order, from wherever it begins.
    Between two pictures they mean progress from the first to the last, and are drawn out over the whole clip.
    """
    size = image.shape[1]
    if not windows.anchors:
        return image[:, torch.arange(num_frames, device=image.device) % size]
    places = torch.linspace(0, size - 1, num_frames, device=image.device)
    before = places.long().clamp(max=size - 2)
    share = (places - before).to(image.dtype)[:, None, None]
    return torch.lerp(image[:, before], image[:, before + 1], share)
