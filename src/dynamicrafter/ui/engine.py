"""A device and the model on it: one request in, one clip out."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dynamicrafter.ui.catalogue import ModelChoice
from dynamicrafter.ui.previews import Previewer
from dynamicrafter.ui.requests import ClipRequest
from dynamicrafter.ui.story import make_story

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.animator.clip import Clip


class Report(Protocol):
    """Who is told how a request fares; an error that a method raises ends the work."""

    def on_phase(self, text: str) -> None: ...
    def on_step(self, done: int, steps: int) -> None: ...
    def on_preview(self, address: str) -> None: ...


class Engine:
    """Makes clips on one device with one model at a time, which stays loaded until another is asked for.

    Args:
        device: as `Animator.from_pretrained` takes it.
        dtype: number format, likewise.
        load: loads an animator; for tests.
    """

    def __init__(
        self, device: str | None = None, dtype: str | None = None, *, load: Callable[..., Animator] | None = None
    ) -> None:
        self.device, self._dtype = device, dtype
        self._load = load or _load
        self._loaded: tuple[ModelChoice, Animator] | None = None
        self._alone = threading.Lock()

    def make(self, request: ClipRequest, report: Report) -> Clip:
        """Make a clip; the metadata name pictures as their owner does, and no path of this machine.

        Raises:
            InputError: a picture or an option that the model refuses, or a model that can't be loaded.
        """
        with self._alone:
            animator = self._animator(request.model, report)
            report.on_phase("Reading the picture")
            preview = Previewer(animator.pipeline, report.on_preview)
            if request.mode == "story":
                clip = make_story(animator, request, report)
            else:
                clip = _made(animator, request, on_step=report.on_step, on_denoised=preview)
        return replace(clip, metadata=without_paths(clip.metadata, request))

    def _animator(self, model: ModelChoice, report: Report) -> Animator:
        if self._loaded is not None and self._loaded[0] == model:
            return self._loaded[1]
        report.on_phase(f"Loading {model.label.partition(':')[0]}")
        self._loaded = None  # two models may not fit beside each other
        gc.collect()
        settings: dict[str, Any] = {"device": self.device, "dtype": self._dtype, **model.load}
        animator = self._load(**settings)
        animator.pipeline.set_progress_bar_config(disable=True)
        self._loaded = (model, animator)
        return animator


def _made(animator: Animator, request: ClipRequest, **watchers: Any) -> Clip:
    from dynamicrafter.animator.keys import KeyShot
    from dynamicrafter.animator.shots import Shot

    pictures = tuple(str(picture.path) for picture in request.pictures)
    if len(pictures) > 2:
        shot = KeyShot(pictures=pictures, prompts=(request.prompt,), options=request.options)
        return animator.run_through(shot, **watchers)
    [clip] = animator.run(
        [
            Shot(
                image=pictures[0],
                last_image=pictures[1] if len(pictures) > 1 else None,
                prompt=request.prompt,
                mode=request.model_mode,
                options=request.options,
            )
        ],
        **watchers,
    )
    return clip


def without_paths(metadata: dict[str, Any], request: ClipRequest) -> dict[str, Any]:
    """A clip's metadata as its owner may see them: no folder of this machine, and pictures by their owner's names."""
    pictures = [
        {**kept, "path": picture.name} for kept, picture in zip(metadata["pictures"], request.pictures, strict=False)
    ]
    loras = [{**adapter, "path": Path(adapter["path"]).name} for adapter in metadata["lora"]]
    model = {**metadata["model"], "name": Path(metadata["model"]["name"]).name}
    return {**metadata, "pictures": pictures, "lora": loras, "model": model}


def _load(**settings: Any) -> Animator:
    from dynamicrafter.animator.animator import Animator

    return Animator.from_pretrained(**settings)


@contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """What the package warns of in this thread while entered, each once.

    Yields:
        The list that fills.
    """
    said: list[str] = []
    thread = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.thread == thread and text not in said:
                said.append(text)

    listener, package = Listener(logging.WARNING), logging.getLogger("dynamicrafter")
    package.addHandler(listener)
    try:
        yield said
    finally:
        package.removeHandler(listener)
