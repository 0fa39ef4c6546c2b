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
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from dynamicrafter.pipeline import DynamiCrafterPipeline

_BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {rate_inv_fmt}, {remaining} left"
_PAUSE = 15.0  # seconds between two lines of progress where nobody watches


class Stopped(KeyboardInterrupt):
    """Ctrl-C at a point where more than the usual is to be said; its text says it."""


def one_line(text: str) -> str:
    """Text on one line and without control characters, which a file or a name could smuggle into a terminal."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in joined)


def say(text: str) -> None:
    """Write one line, above a progress bar where there is one."""
    tqdm.write(f"{one_line(text)}\n", file=sys.stderr, end="")  # in one piece, whatever interrupts


def warn(notes: Iterable[str]) -> None:
    """Write notes that a check returned, each as a warning of its own."""
    for note in notes:
        say(f"warning: {note}")


def minutes(seconds: float) -> str:
    """A span of time as it reads best: 8.4 s, 3:07, 1:02:07."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole, seconds = divmod(round(seconds), 60)
    hours, whole = divmod(whole, 60)
    return f"{hours}:{whole:02}:{seconds:02}" if hours else f"{whole}:{seconds:02}"


class Progress:
    """Follows a run step by step: a bar on a terminal, now and then a line elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        # A terminal that doesn't know its width, as in some containers, gets lines too: the bar would be empty.
        self.watched = sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
        self._began = self._said = self._ended = time.monotonic()
        self._num_steps = 0
        self._several_runs = False
        self._bar: tqdm | None = None

    def phase(self, text: str) -> None:
        """Name what goes on now."""
        if not self.quiet:
            say(text)

    def attach(self, pipeline: DynamiCrafterPipeline, *, several_runs: bool = False) -> None:
        """Let the pipeline show its bar, if any; where a clip takes several runs of it, one bar of ours is for all."""
        self._several_runs = several_runs
        hidden = self.quiet or not self.watched
        pipeline.set_progress_bar_config(**_bar_options(), disable=hidden or several_runs)

    def start(self) -> None:
        """Set the clock to zero."""
        self._began = self._said = time.monotonic()

    def on_step(self, done: int, steps: int) -> None:
        """Called after each step."""
        now = time.monotonic()
        if self._several_runs and self.watched and not self.quiet:
            self._bar = self._bar or tqdm(total=steps, **_bar_options())
            self._bar.update(done - self._bar.n)
            if done == steps:
                self._bar.close()
                self._bar = None
        if not self.watched and now - self._said >= _PAUSE and done < steps:
            self._said = now
            pace = (now - self._began) / done
            self.phase(f"Step {done}/{steps}, {pace:.2f} s/step, {minutes(pace * (steps - done))} left")
        if done == steps:
            self._ended, self._num_steps = now, steps
            self.phase("Decoding…")

    def pace(self) -> str:
        """How long the steps of the finished run took."""
        spent = self._ended - self._began
        return f"{self._num_steps} steps in {minutes(spent)} ({spent / self._num_steps:.2f} s/step)"


def _bar_options() -> dict[str, Any]:
    return {
        "desc": "Denoising",
        "unit": "step",
        "bar_format": _BAR,
        "leave": False,
        "file": sys.stderr,
        "dynamic_ncols": True,
    }


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


def hush_libraries() -> None:
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


def hush_loading_bars(*, keep_downloads: bool = False) -> None:
    """Switch off the bars that diffusers and transformers show while they read weights; imports both."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()  # and with them the hub's
    if keep_downloads:
        enable_progress_bars()
