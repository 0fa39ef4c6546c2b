"""A worker's inside: the model, and tasks → finished files as bytes. It writes nothing that anyone else sees."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import dynamicrafter
from dynamicrafter.errors import InputError
from dynamicrafter.jobs.outputs import NOTE, OutputFiles, collect
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.specs.clip import CheckedClip, ClipSpec
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.specs.options import ResolvedOptions
from dynamicrafter.specs.output import OutputOptions
from dynamicrafter.specs.pictures import LoadedPicture

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.animator.clip import Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What a worker needs to know once: the model, and where it computes.

    Attributes:
        threads: of the CPU. Sums over several round otherwise than over one, so it must not depend on the workers.
        aside: a folder for unfinished files; None for the system's own.
    """

    model: ModelSpec
    threads: int = 1
    aside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPicture:
    """A picture on its way to a worker that may not see its file.

    Attributes:
        name: of the file, for its extension and for messages.
        path: for the metadata.
        sha256: of the pixels as they were checked.
    """

    name: str
    content: bytes
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One take, with all that a worker on another machine can't see.

    Attributes:
        clip: without its pictures' files.
        options: the clip's, none of them left open.
        name: of the file to make.
    """

    clip: ClipSpec
    options: ResolvedOptions
    pictures: tuple[SentPicture, ...]
    output: OutputOptions
    fingerprint: str
    name: str


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker is ready.

    Attributes:
        process: its number, on its machine.
    """

    device: str
    version: str
    process: int


@dataclass(frozen=True, slots=True)
class TasksDone:
    """Tasks were carried out.

    Attributes:
        warnings: that came up meanwhile.
    """

    products: tuple[OutputFiles, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TasksFailed:
    """Tasks, or the setup, could not be carried out.

    Attributes:
        text: one line that says why.
        by_rule: something that was given breaks a rule; trying again is no use.
        broken: the worker may be in no state to go on.
    """

    text: str
    by_rule: bool
    broken: bool = False


class Worker:
    """A loaded model that carries out tasks.

    Raises:
        InputError: the model can't be loaded, or there is no such device.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        gc.disable()  # importing torch and diffusers makes a million objects that stay
        import torch
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        from dynamicrafter.animator.animator import Animator

        for library in (diffusers_logging, transformers_logging):
            library.disable_progress_bar()  # whoever waits sees that of the whole list
        tqdm.set_lock(threading.RLock())  # its own is of the system's, and stays behind when a worker is killed
        torch.set_num_threads(setup.threads)
        self.setup = setup
        self.animator: Animator = Animator.load(setup.model)
        self.animator.pipeline.set_progress_bar_config(disable=True)
        gc.freeze()
        gc.enable()

    def ready(self) -> WorkerReady:
        return WorkerReady(str(self.animator.device), dynamicrafter.__version__, os.getpid())

    def make(self, tasks: Sequence[Task], on_step: Callable[[int, int], None] | None = None) -> tuple[OutputFiles, ...]:
        """Make clips as one batch.

        Raises:
            InputError: a task breaks a rule, or its picture is another by now.
        """
        with tempfile.TemporaryDirectory(dir=self.setup.aside, ignore_cleanup_errors=True) as folder:
            clips = self.animator.run([_unpacked(task, Path(folder)) for task in tasks], on_step=on_step)
            return tuple(_finish(clip, task, Path(folder)) for clip, task in zip(clips, tasks, strict=True))


def _unpacked(task: Task, folder: Path) -> CheckedClip:
    """A task's clip with its pictures read."""
    pictures = []
    for sent in task.pictures:
        path = folder / f"picture{Path(sent.name).suffix}"
        path.write_bytes(sent.content)
        picture = LoadedPicture(image=read_picture(path), path=sent.path)
        if picture.sha256 != sent.sha256:
            raise InputError(f"{sent.name} changed while the list was being made; run it again.")
        pictures.append(picture)
    return CheckedClip(spec=task.clip, options=task.options, pictures=tuple(pictures))


def answer(
    worker: Worker, tasks: Sequence[Task], on_step: Callable[[int, int], None] | None = None
) -> TasksDone | TasksFailed:
    """Carry out tasks, and say how it went, whatever happens."""
    began = time.monotonic()
    with _Warnings() as warnings:
        try:
            products = worker.make(tasks, on_step)
        except Exception as error:
            return refusal(error)
    return TasksDone(products, time.monotonic() - began, tuple(warnings.texts))


def refusal(error: Exception) -> TasksFailed:
    """What an error means for the tasks, and for the worker."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, InputError):
        return TasksFailed(text, by_rule=True)
    short_of_memory = isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    if short_of_memory:
        return TasksFailed(
            f"out of memory; try a smaller size, fewer frames or a smaller batch ({text}).", by_rule=False
        )
    return TasksFailed(f"{type(error).__name__}: {text}", by_rule=False, broken=True)


def _finish(clip: Clip, task: Task, folder: Path) -> OutputFiles:
    """Write a clip with what tells it from others, and take it up as bytes."""
    note: dict[str, Any] = {NOTE: {"key": task.clip.item, "fingerprint": task.fingerprint}}
    path, output = folder / task.name, task.output
    replace(clip, metadata=clip.metadata | note).save(path, fps=output.fps, crf=output.crf, format=output.format)
    return collect(path)


class _Warnings(logging.Handler):
    """Collects the package's warnings while entered, for someone in another process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._logger = logging.getLogger("dynamicrafter")

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in self.texts:
            self.texts.append(text)

    def __enter__(self) -> _Warnings:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
