"""Words for time."""

from __future__ import annotations


def time_in_words(seconds: float) -> str:
    """A span of time as one says it: 8.4 s, 42 s, 3 min 7 s, 1 h 2 min."""
    if 0 < seconds < 9.95:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
