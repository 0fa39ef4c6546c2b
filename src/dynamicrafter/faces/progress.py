"""The one progress bar: a bar on a terminal, now and then a line elsewhere, nothing where quiet."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from dynamicrafter.faces.times import time_in_words

if TYPE_CHECKING:
    from tqdm import tqdm

_PAUSE = 15.0  # seconds between two lines where nobody watches
_BAR = "{desc} |{bar}|"


def say(text: str) -> None:
    """Write one line on stderr, above a progress bar where there is one."""
    from tqdm import tqdm  # a help text has no bar, and need not wait for one

    tqdm.write(f"{one_line(text)}\n", file=sys.stderr, end="")  # in one piece, whatever interrupts


def one_line(text: str) -> str:
    """Text on one line and without control characters, which a file or a name could smuggle into a terminal."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in joined)


class ProgressBar:
    """Shows how far a piece of work is.

    Args:
        quiet: show nothing.

    Attributes:
        watched: whether somebody looks at a terminal; one that doesn't know its width, as in some containers, gets
            lines too, since the bar would be empty.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.watched = sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
        self._bar: tqdm | None = None
        self.start()

    def start(self) -> None:
        """Begin to measure the pace."""
        self._began = self._said = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line, whoever watches."""
        if not self.quiet:
            say(text)

    def show(self, done: float, total: float, text: str, *, counted: bool = True, since: float = 0.0) -> None:
        """Show a state of the work, and how long the rest takes at the pace so far.

        Args:
            done, total: in any unit.
            text: what is done; numbers follow it.
            counted: whether `done` and `total` are whole things that a person counts.
            since: what was done when `start` was called.
        """
        if self.quiet:
            return
        now = time.monotonic()
        numbers = f" {done:.0f}/{total:.0f}" if counted else ""
        pace = (now - self._began) / (done - since) if done > since else 0.0
        left = f", {time_in_words(pace * (total - done))} left" if pace and done < total else ""
        if self.watched:
            self._draw(done, total, f"{text}{numbers}{left}")
        elif now - self._said >= _PAUSE and done < total:
            self._said = now
            self.say(f"{text}{numbers}{left}")
        if done >= total:
            self.close()

    def _draw(self, done: float, total: float, text: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=1.0, bar_format=_BAR, leave=False, file=sys.stderr, dynamic_ncols=True)
        self._bar.n = done / total if total else 1.0
        self._bar.set_description_str(text)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
