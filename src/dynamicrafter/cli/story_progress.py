"""How far a story is, over the whole of it: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from dynamicrafter.cli.console import minutes, say

if TYPE_CHECKING:
    from dynamicrafter.story.clips import StoryClip
    from dynamicrafter.story.kept import Records
    from dynamicrafter.story.plan import StoryPlan

_PAUSE = 15.0  # seconds between two lines where nobody watches
_BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {remaining} left"


class StoryProgress:
    """Counts the steps of all clips that are missing; as `story.making.StoryCallbacks`."""

    def __init__(self, plan: StoryPlan, there: Records, *, watched: bool, quiet: bool) -> None:
        self._plan = plan
        self._expected = {clip.key: clip.options.steps for clip in plan.clips if clip.key not in there}
        self._watched, self._quiet = watched and not quiet, quiet
        self._clip: StoryClip | None = None
        self._done = 0  # steps of clips that are complete
        self._began = self._said = 0.0
        self._bar: tqdm | None = None
        self.num_made = self.num_kept = 0

    @property
    def num_there(self) -> int:
        return self.num_made + self.num_kept

    @property
    def _total(self) -> int:
        return self._done + sum(self._expected.values())

    def begins(self, clip: StoryClip) -> None:
        """A clip is about to be made."""
        if not self._began:  # loading the model is not a step's pace
            self._began = self._said = time.monotonic()
        self._clip = clip

    def on_step(self, done: int, steps: int) -> None:
        """Called after each step of a clip."""
        assert self._clip is not None
        all_done = self._done + done
        if self._watched:
            self._draw(all_done, f"Denoising {self._clip.name}, step", self._total)
        elif time.monotonic() - self._said >= _PAUSE and done < steps:
            self._say(f"{self._clip.name}: step {done}/{steps}{self._left(all_done)}")

    def made(self, clip: StoryClip) -> None:
        """A clip is complete, and kept."""
        self._done += self._expected.pop(clip.key, 0)
        self.num_made += 1
        self._say(f"Made {clip.name}: {self.num_there} of {len(self._plan.clips)} clips{self._left(self._done)}")

    def kept(self, clip: StoryClip) -> None:
        """A clip was there already."""
        self._expected.pop(clip.key, None)
        self.num_kept += 1

    def on_frame(self, done: int) -> None:
        """Called after each frame that goes into the film."""
        total = self._plan.num_frames
        if self._watched:
            self._draw(done, "Joining, frame", total)
        elif done == 1:
            self._say(f"Joining {total} frames…")
        elif time.monotonic() - self._said >= _PAUSE:
            self._say(f"Joining: frame {done}/{total}")

    def _left(self, done: int) -> str:
        if not 0 < done < self._total:
            return ""
        left = (time.monotonic() - self._began) / done * (self._total - done)
        return f", {minutes(left)} left"

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._said = time.monotonic()
            say(text)

    def _draw(self, done: int, text: str, total: int) -> None:
        if self._bar is None or self._bar.total != total or done < self._bar.n:
            self.close()
            self._bar = tqdm(
                total=total,
                initial=done,
                bar_format=_BAR,
                leave=False,
                file=sys.stderr,
                dynamic_ncols=True,
            )
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
