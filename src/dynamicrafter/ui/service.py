"""What page and API share: models, devices, the queue and the results, behind three calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import AUTOMATIC, Catalogue
from dynamicrafter.media.notes import parse_fps
from dynamicrafter.modes import get_mode
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.ui.checks import checked
from dynamicrafter.ui.engine import Engine
from dynamicrafter.ui.folder import ServerFolder
from dynamicrafter.ui.requests import STORY, ClipRequest, StoryRow, StorySpec, Upload, mode_of
from dynamicrafter.ui.results import Result, ResultStore, sweep_files
from dynamicrafter.ui.settings import ServerSettings
from dynamicrafter.ui.tasks import ClipTask, TaskProgress, TaskQueue
from dynamicrafter.ui.uploads import Uploads

_SWEEP = 60.0  # seconds between two looks for what is too old


class Service:
    """Everything behind the page.

    Args:
        settings: limits.
        catalogue: models.
        engines: one for each device.
        folder: where clips and uploads go; None for one of its own, which `close` removes.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        settings: ServerSettings,
        catalogue: Catalogue,
        engines: Sequence[Engine],
        *,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.catalogue = settings, catalogue
        self._own = None
        if folder is None:
            self._own = ServerFolder()
            folder = self._own.path
        self.folder = folder
        self.uploads = Uploads(self.folder / "uploads")
        self.results = ResultStore(
            self.folder / "results", most_each=settings.max_results, keep=settings.keep_hours * 3600, clock=clock
        )
        self.queue = TaskQueue(
            [self._worker(engine) for engine in engines],
            most_waiting=settings.max_waiting,
            most_each=settings.max_waiting_each,
            clock=clock,
        )
        self._closing = threading.Event()
        threading.Thread(target=self._sweep_now_and_then, name="sweeper", daemon=True).start()

    def submit(
        self,
        tab: str,
        pictures: Sequence[Upload | None],
        *,
        prompt: str = "",
        rows: Sequence[StoryRow] = (),
        fps: str = "",
        sample: int = 0,
        options: AnimateOptions | None = None,
        model: str = AUTOMATIC,
        owner: str,
    ) -> ClipTask:
        """Check a request and put it into the queue.

        Args:
            tab: a mode, or `STORY`.
            rows: of a story; `prompt` is its name then.
            fps: frames per second at which a clip plays; empty for its own.
            sample: 0 for the first take of it, 1 for the second, …

        Raises:
            InputError: it breaks a rule or a limit, or the queue is full.
        """
        uploads = tuple(picture for picture in pictures if picture is not None)
        if (tab == STORY and not pictures) or len(uploads) < len(pictures):
            raise InputError(f"choose {_wanted(tab)} first.")
        paths, given = tuple(upload.path for upload in uploads), options or AnimateOptions()
        spec: ClipSpec | StorySpec
        if tab == STORY:
            spec = StorySpec(pictures=paths, prompts=(prompt,), rows=tuple(rows), options=given)
        else:
            spec = ClipSpec(pictures=paths, prompts=(prompt,), mode=tab, options=given, sample=sample)
        chosen, described = self.catalogue.find(model, mode_of(tab)), self.catalogue.describe(model, mode_of(tab))
        request = ClipRequest(spec=spec, uploads=uploads, model=chosen, key=model, fps=parse_fps(fps) if fps else None)
        request = checked(request, described, self.settings)
        return self.queue.submit(request, owner=owner, notes=request.notes)

    def sweep(self) -> None:
        """Remove clips and uploads that are too old."""
        self.results.sweep()
        sweep_files(self.uploads.folder, older_than=self.settings.keep_hours * 3600, keep=self.uploads.public)
        self.uploads.forget_missing()

    def close(self) -> None:
        """End all tasks, and remove what they made."""
        self._closing.set()
        self.queue.close()
        if self._own:
            self._own.remove()

    def _worker(self, engine: Engine) -> Callable[[ClipTask, TaskProgress], Result]:
        def work(task: ClipTask, progress: TaskProgress) -> Result:
            clip = engine.make(task.request, progress)
            progress.on_phase("Saving")
            seconds = self.queue.clock() - task.began
            return self.results.add(clip, task.request, owner=task.owner, seconds=seconds, notes=task.notes)

        return work

    def _sweep_now_and_then(self) -> None:
        while not self._closing.wait(_SWEEP):
            self.sweep()


def _wanted(tab: str) -> str:
    """What must be given before a tab's button can do anything."""
    if tab == STORY:
        return "a picture for the first shot"
    least = get_mode(tab).pictures[0]
    return {1: "the picture", 2: "both pictures"}.get(least, f"all {least} pictures")
