"""What page and API share: models, devices, the queue and the results, behind three calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dynamicrafter.animator.options import AnimateOptions
from dynamicrafter.errors import InputError
from dynamicrafter.ui.catalogue import AUTOMATIC, Catalogue
from dynamicrafter.ui.engine import Engine
from dynamicrafter.ui.folder import ServerFolder
from dynamicrafter.ui.jobs import Job, JobQueue, Progress
from dynamicrafter.ui.requests import ClipRequest, Task, Upload, check_request
from dynamicrafter.ui.results import Result, ResultStore, sweep_files
from dynamicrafter.ui.settings import ServerSettings
from dynamicrafter.ui.story import StoryShot
from dynamicrafter.ui.uploads import Uploads

_SWEEP = 60.0  # seconds between two looks for what is too old
_PICTURES = {
    "animate": "the picture",
    "interpolate": "both pictures",
    "loop": "the picture",
    "story": "a picture for the first shot",
}


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
        self.queue = JobQueue(
            [self._worker(engine) for engine in engines],
            most_waiting=settings.max_waiting,
            most_each=settings.max_waiting_each,
            clock=clock,
        )
        self._closing = threading.Event()
        threading.Thread(target=self._sweep_now_and_then, name="sweeper", daemon=True).start()

    def submit(
        self,
        mode: Task,
        pictures: Sequence[Upload | None],
        *,
        prompt: str = "",
        shots: Sequence[StoryShot] = (),
        options: AnimateOptions | None = None,
        model: str = AUTOMATIC,
        owner: str,
    ) -> Job:
        """Check a request and put it into the queue.

        Raises:
            InputError: it breaks a rule or a limit, or the queue is full.
        """
        if not pictures or any(picture is None for picture in pictures):
            raise InputError(f"choose {_PICTURES[mode]} first.")
        request = ClipRequest(
            mode=mode,
            pictures=tuple(picture for picture in pictures if picture is not None),
            prompt=prompt,
            shots=tuple(shots),
            options=options or AnimateOptions(),
            model=self.catalogue.find(model, mode),
            key=model,
        )
        check_request(request, self.settings)
        return self.queue.submit(request, owner=owner)

    def sweep(self) -> None:
        """Remove clips and uploads that are too old."""
        self.results.sweep()
        sweep_files(self.uploads.folder, older_than=self.settings.keep_hours * 3600, keep=self.uploads.public)
        self.uploads.forget_missing()

    def close(self) -> None:
        """End all jobs, and remove what they made."""
        self._closing.set()
        self.queue.close()
        if self._own:
            self._own.remove()

    def _worker(self, engine: Engine) -> Callable[[Job, Progress], Result]:
        def work(job: Job, progress: Progress) -> Result:
            clip = engine.make(job.request, progress)
            progress.on_phase("Saving")
            seconds = self.queue.clock() - job.began
            return self.results.add(clip, job.request, owner=job.owner, seconds=seconds, notes=job.notes)

        return work

    def _sweep_now_and_then(self) -> None:
        while not self._closing.wait(_SWEEP):
            self.sweep()
