"""A worker's inside: the model, and orders → finished files as bytes. It writes nothing that anyone else sees."""

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
from dynamicrafter.animator.options import AnimateOptions, Mode
from dynamicrafter.errors import InputError
from dynamicrafter.jobs.outputs import NOTE, Product, collect
from dynamicrafter.media.pictures import read_picture

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.animator.clip import Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a worker needs to know once: the model, as `Animator.from_pretrained` takes it, and where it computes.

    Attributes:
        threads: of the CPU. Sums over several round otherwise than over one, so it must not depend on the workers.
        aside: a folder for unfinished files; None for the system's own.
    """

    model: str
    preset: str | None = None
    encoders: str | None = None
    device: str | None = None
    dtype: str | None = None
    lora: tuple[str, ...] = ()
    memory: str | None = None
    threads: int = 1
    aside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One take, with all that a worker on another machine can't see.

    Attributes:
        pictures: name, content, path for the metadata, and hash of the pixels as they were checked.
        output: name of the file to make.
    """

    key: str
    sample: int
    fingerprint: str
    mode: Mode
    prompt: str
    pictures: tuple[tuple[str, bytes, str, str], ...]
    options: AnimateOptions
    output: str
    format: str
    fps: str | None
    crf: int | None


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker is ready.

    Attributes:
        process: its number, on its machine.
    """

    device: str
    version: str
    process: int


@dataclass(frozen=True, slots=True)
class Made:
    """Orders were carried out.

    Attributes:
        warnings: that came up meanwhile.
    """

    products: tuple[Product, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Orders, or the setup, could not be carried out.

    Attributes:
        text: one line that says why.
        by_rule: something that was given breaks a rule; trying again is no use.
        broken: the worker may be in no state to go on.
    """

    text: str
    by_rule: bool
    broken: bool = False


class Maker:
    """A loaded model that carries out orders.

    Raises:
        InputError: the model can't be loaded, or there is no such device.
    """

    def __init__(self, setup: Setup) -> None:
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
        self.animator: Animator = Animator.from_pretrained(
            setup.model,
            preset=setup.preset,
            encoders=setup.encoders,
            device=setup.device,
            dtype=setup.dtype,
            lora=setup.lora,
            memory=setup.memory,
        )
        self.animator.pipeline.set_progress_bar_config(disable=True)
        gc.freeze()
        gc.enable()

    def hello(self) -> Hello:
        return Hello(str(self.animator.device), dynamicrafter.__version__, os.getpid())

    def make(self, orders: Sequence[Order], on_step: Callable[[int, int], None] | None = None) -> tuple[Product, ...]:
        """Make clips as one batch.

        Raises:
            InputError: an order breaks a rule, or its picture is another by now.
        """
        from dynamicrafter.animator.shots import Shot

        with tempfile.TemporaryDirectory(dir=self.setup.aside, ignore_cleanup_errors=True) as folder:
            shots = []
            for number, order in enumerate(orders):
                pictures = []
                for place, (name, content, _, _) in enumerate(order.pictures):
                    path = Path(folder) / f"{number}-{place}{Path(name).suffix}"
                    path.write_bytes(content)
                    pictures.append(read_picture(path))
                shots.append(
                    Shot(
                        image=pictures[0],
                        last_image=pictures[1] if len(pictures) == 2 else None,
                        prompt=order.prompt,
                        mode=order.mode,
                        options=order.options,
                        item=order.key,
                        sample=order.sample,
                    )
                )
            clips = self.animator.run(shots, on_step=on_step)
            return tuple(_finish(clip, order, Path(folder)) for clip, order in zip(clips, orders, strict=True))


def answer(maker: Maker, orders: Sequence[Order], on_step: Callable[[int, int], None] | None = None) -> Made | Refused:
    """Carry out orders, and say how it went, whatever happens."""
    began = time.monotonic()
    with _Warnings() as warnings:
        try:
            products = maker.make(orders, on_step)
        except Exception as error:
            return refusal(error)
    return Made(products, time.monotonic() - began, tuple(warnings.texts))


def refusal(error: Exception) -> Refused:
    """What an error means for the orders, and for the worker."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, InputError):
        return Refused(text, by_rule=True)
    short_of_memory = isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
    if short_of_memory:
        return Refused(f"out of memory; try a smaller size, fewer frames or a smaller batch ({text}).", by_rule=False)
    return Refused(f"{type(error).__name__}: {text}", by_rule=False, broken=True)


def _finish(clip: Clip, order: Order, folder: Path) -> Product:
    """Write a clip with what tells it from others, and take it up as bytes."""
    for kept, (name, _, path, expected) in zip(clip.metadata["pictures"], order.pictures, strict=True):
        if kept["sha256"] != expected:
            raise InputError(f"{name} changed while the list was being made; run it again.")
        kept["path"] = path
    note: dict[str, Any] = {NOTE: {"key": order.key, "fingerprint": order.fingerprint}}
    path = folder / order.output
    replace(clip, metadata=clip.metadata | note).save(path, fps=order.fps, crf=order.crf, format=order.format)
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
