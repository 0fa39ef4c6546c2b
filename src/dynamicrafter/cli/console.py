"""What a person reads beside the result, all of it on stderr: phases, progress, warnings, errors."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator

from dynamicrafter.faces.progress import ProgressBar, one_line, say
from dynamicrafter.faces.times import time_in_words

__all__ = ["Progress", "Stopped", "one_line", "say", "time_in_words", "warn"]


class Stopped(KeyboardInterrupt):
    """Ctrl-C at a point where more than the usual is to be said; its text says it."""


def warn(notes: Iterable[str]) -> None:
    """Write notes that a check returned, each as a warning of its own."""
    for note in notes:
        say(f"warning: {note}")


class Progress(ProgressBar):
    """Follows the making of clips: phases, steps, and how long they took."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._spent, self._num_steps = 0.0, 0

    def phase(self, text: str) -> None:
        """Name what goes on now."""
        self.say(text)

    def on_step(self, done: int, steps: int) -> None:
        """Called after each step of a clip."""
        self.show(done, steps, "Denoising, step")
        if done == steps:
            self._spent, self._num_steps = time.monotonic() - self._began, steps
            self.phase("Decoding…")

    def pace(self) -> str:
        """How long the steps of the finished run took."""
        each = self._spent / self._num_steps
        return f"{self._num_steps} steps in {time_in_words(self._spent)} ({each:.2f} s/step)"


class _Lines(logging.Handler):
    """Shows each record once, as a line of its own; a batch of takes would repeat its warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"warning: {record.getMessage()}"
        if line not in self._shown:
            self._shown.add(line)
            say(line)


class shown_warnings:  # noqa: N801 reads as the context manager that it is
    """While entered, the package's own warnings become lines on stderr, and nothing else does."""

    def __enter__(self) -> None:
        self._handler = _Lines()
        self._logger = logging.getLogger("dynamicrafter")
        self._before = self._logger.propagate
        self._logger.addHandler(self._handler)
        self._logger.propagate = False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.propagate = self._before


def silence_libraries() -> None:
    """Keep other libraries' advice to developers off the terminal; to be called before they are imported."""
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import torch and diffusers within, at two thirds of the time from there to the process's end.

    They make a million objects that stay; Python's collector would look through them all many times over while they
    arise, and once more at the end.
    """
    if "diffusers" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def hide_loading_bars(*, keep_downloads: bool = False) -> None:
    """Switch off the bars that diffusers and transformers show while they read weights; imports both."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()  # and with them the hub's
    if keep_downloads:
        enable_progress_bars()
