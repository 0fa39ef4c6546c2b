"""Windows over time, through which attention looks at clips longer than it was trained for (arXiv:2310.15169, §3.3).

Attention over all frames of a long clip meets more of them than it ever saw, and its cost grows with their square. Here
it looks at one window of the trained length at a time; windows overlap, and where they do, what each attended to is
blended, weighted by how far the frame is from the window's edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.presets import SMALLEST_WINDOW


@dataclass(frozen=True, slots=True)
class TimeWindows:
    """How windows lie over a clip.

    Attributes:
        size: frames that attention sees at once.
        stride: frames from one window's beginning to the next one's, 1 to `num_own`.
        anchors: frames that hold a picture of their own, ascending. A window that lies between two of them sees both
            besides its own frames, which are fewer by these two; windows without anchors see nothing but their own.
        edge: weight of a window's outermost frames, where each frame further in weighs 1 more. At 0.5 the weights end
            on the window's edges; LongerCrafter published 1.

    Raises:
        InputError: a stride that leaves frames to no window, or a window without frames of its own.
    """

    size: int
    stride: int
    anchors: tuple[int, ...] = ()
    edge: float = 0.5

    def __post_init__(self) -> None:
        if self.size < SMALLEST_WINDOW:
            raise InputError(f"window must be at least {SMALLEST_WINDOW} frames, got {self.size}; try 16.")
        if not 1 <= self.stride <= self.num_own:
            why = ", as every window sees both ends besides its own frames" * bool(self.anchors)
            raise InputError(f"window_stride must be between 1 and {self.num_own}{why}, got {self.stride}; try 4.")

    @property
    def num_own(self) -> int:
        """Frames that a window answers for."""
        return self.size - 2 if self.anchors else self.size

    def over(self, num_frames: int) -> tuple[Window, ...]:
        """The windows of a clip of at least `num_own` frames, in order; the last one always ends on the last frame."""
        starts = self._starts(num_frames)
        places = torch.arange(self.num_own)
        # Seen as a function, the weights are a hat that is 0 on the window's edges. Where the stride divides half a
        # window, hats add up to the same everywhere, and the mean of the places that a frame has in its windows moves
        # on evenly: no window begins or ends with a jolt.
        hat = torch.minimum(places, self.num_own - 1 - places) + self.edge
        total = torch.zeros(num_frames)
        for start in starts:
            total[start : start + self.num_own] += hat
        return tuple(
            Window(
                start=start,
                stop=start + self.num_own,
                seen=self._seen(start, start + self.num_own),
                weights=hat / total[start : start + self.num_own],
            )
            for start in starts
        )

    def borders(self, num_frames: int) -> tuple[int, ...]:
        """Frames at which a window of such a clip begins, or the first after one's end; not the clip's own ends."""
        starts = self._starts(num_frames)
        ends = [start + self.num_own for start in starts]
        return tuple(sorted({*starts, *ends} - {0, num_frames}))

    def _starts(self, num_frames: int) -> list[int]:
        last = num_frames - self.num_own
        return [*range(0, last, self.stride), last]

    def _seen(self, start: int, stop: int) -> tuple[int, ...]:
        before = [anchor for anchor in self.anchors if anchor < start][-1:]
        after = [anchor for anchor in self.anchors if anchor >= stop][:1]
        return (*before, *range(start, stop), *after)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One window of a clip.

    Attributes:
        start, stop: the frames that it answers for.
        seen: the frames that these attend to.
        weights: of its answer for each of its frames, (stop − start,); those of all windows of a frame add up to 1.
        index: the frames that it sees as a tensor where they don't lie in a row, else None.
    """

    start: int
    stop: int
    seen: tuple[int, ...]
    weights: Tensor
    index: Tensor | None = None

    @property
    def view(self) -> slice | None:
        """The frames that it sees where they lie in a row, as a view takes them."""
        first, last = self.seen[0], self.seen[-1]
        return slice(first, last + 1) if last - first + 1 == len(self.seen) else None


def attend_in_windows(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    windows: Sequence[Window],
) -> Tensor:
    """Attention along time, window by window; blended where windows overlap. Shapes (n, f, heads, d) throughout.

    Nothing larger than the clip and one window's attention is kept.
    """
    blended = torch.zeros_like(value)
    for window in windows:
        own = slice(window.start, window.stop)
        seen = window.view or (list(window.seen) if window.index is None else window.index)
        attended = attend(query[:, own], key[:, seen], value[:, seen])
        blended[:, own] += attended * window.weights[:, None, None]
    return blended


@lru_cache(maxsize=16)
def windows_on(windows: TimeWindows, num_frames: int, device: torch.device, dtype: torch.dtype) -> tuple[Window, ...]:
    """The windows of a clip with their tensors on a device, copied there once and not in every call."""
    with torch.inference_mode(False):  # kept tensors may be asked for with gradients later
        return tuple(
            replace(
                window,
                weights=window.weights.to(device, dtype),
                index=None if window.view else torch.tensor(window.seen, device=device),
            )
            for window in windows.over(num_frames)
        )
