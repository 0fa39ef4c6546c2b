"""How far a story is, over the whole of it: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamicrafter.faces.progress import ProgressBar

if TYPE_CHECKING:
    from dynamicrafter.story.clips import StoryClip
    from dynamicrafter.story.kept import Records
    from dynamicrafter.story.plan import StoryPlan


class StoryProgress(ProgressBar):
    """Counts the steps of all clips that are missing, as `story.making.StoryCallbacks`."""

    def __init__(self, plan: StoryPlan, there: Records, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._plan = plan
        self._expected = {clip.key: clip.options.steps for clip in plan.clips if clip.key not in there}
        self._clip: StoryClip | None = None
        self._done = 0  # steps of clips that are complete
        self.num_made = self.num_kept = 0

    @property
    def num_there(self) -> int:
        return self.num_made + self.num_kept

    @property
    def _total(self) -> int:
        return self._done + sum(self._expected.values())

    def begins(self, clip: StoryClip) -> None:
        """A clip is about to be made."""
        if self._clip is None:  # loading the model is not a step's pace
            self.start()
        self._clip = clip

    def on_step(self, done: int, steps: int) -> None:
        """Called after each step of a clip."""
        assert self._clip is not None
        self.show(self._done + done, self._total, f"Denoising {self._clip.name}, step")

    def made(self, clip: StoryClip) -> None:
        """A clip is complete, and kept."""
        self._done += self._expected.pop(clip.key, 0)
        self.num_made += 1
        self.say(f"Made {clip.name}: {self.num_there} of {len(self._plan.clips)} clips")

    def kept(self, clip: StoryClip) -> None:
        """A clip was there already."""
        self._expected.pop(clip.key, None)
        self.num_kept += 1

    def on_frame(self, done: int) -> None:
        """Called after each frame that goes into the film."""
        if done == 1:
            self.start()
            self.say(f"Joining {self._plan.num_frames} frames…")
        self.show(done, self._plan.num_frames, "Joining, frame")
