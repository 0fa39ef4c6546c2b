"""Deep features of the UNet, kept from one step of a run to a later one (arXiv:2312.00858).

From step to step, what the UNet computes below its full resolution changes little, and costs most. So the surface, the
first layers and the last unit, runs every time; what the last unit takes from the depth is kept, and computed anew only
for the videos whose surface has moved on. How far is measured and not counted: a step at high noise changes little, one
at low noise much.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, tensor

from dynamicrafter.models.attention import ContextKeysValues


class DeepFeatures:
    """What one guidance pass of one run keeps of the UNet's depth, for each video on its own.

    Args:
        tolerance: the largest change of the surface, relative to itself, over which deep features are used again.

    Attributes:
        computed, reused: how many times the depth was computed and used again, over all videos.
    """

    def __init__(self, *, tolerance: float) -> None:
        self.tolerance = tolerance
        self.computed = self.reused = 0
        self._surface: Tensor | None = None
        self._deep: Tensor | None = None

    def recall(
        self,
        surface: Tensor,
        num_videos: int,
        compute: Callable[[Tensor, Tensor, tuple[ContextKeysValues, ...]], Tensor],
        embedding: Tensor,
        context: tuple[ContextKeysValues, ...],
    ) -> Tensor:
        """The deep features for a surface: those of before where it has changed little, else computed.

        Args:
            surface: (b·f, c, h, w).
            num_videos: b.
            compute: takes surface, embedding and context of any of the videos.
            embedding: (b, e).
            context: keys and values of the videos.

        Returns:
            (b·f, c′, h, w).
        """
        if self._surface is None or self._deep is None:
            stale = list(range(num_videos))
        else:
            stale = [
                video for video, change in enumerate(self._changes(surface, num_videos)) if change > self.tolerance
            ]
        self.computed += len(stale)
        self.reused += num_videos - len(stale)
        if len(stale) == num_videos:  # as without a memory, to the bit
            self._surface, self._deep = surface, compute(surface, embedding, context)
        elif stale:
            assert self._surface is not None
            assert self._deep is not None
            rows = tensor(stale, device=surface.device)
            parts = tuple(ContextKeysValues(*(_rows(kept, rows, num_videos) for kept in layer)) for layer in context)
            fresh = compute(_rows(surface, rows, num_videos), embedding[rows], parts)
            self._surface = _replaced(self._surface, _rows(surface, rows, num_videos), rows, num_videos)
            self._deep = _replaced(self._deep, fresh, rows, num_videos)
        assert self._deep is not None
        return self._deep

    def _changes(self, surface: Tensor, num_videos: int) -> list[float]:
        assert self._surface is not None
        before, now = (kept.reshape(num_videos, -1).float() for kept in (self._surface, surface))
        return ((now - before).norm(dim=1) / before.norm(dim=1)).tolist()


def _rows(values: Tensor, rows: Tensor, num_videos: int) -> Tensor:
    """The parts of some videos, of a tensor whose first axis holds all of them, frame by frame or whole."""
    return values.unflatten(0, (num_videos, -1))[rows].flatten(0, 1)


def _replaced(values: Tensor, fresh: Tensor, rows: Tensor, num_videos: int) -> Tensor:
    """A copy with the parts of some videos put in."""
    copy = values.clone()
    copy.unflatten(0, (num_videos, -1))[rows] = fresh.unflatten(0, (len(rows), -1))
    return copy
