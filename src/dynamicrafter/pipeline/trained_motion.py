"""The motion numbers that a model or its adapters were trained under, which clips made with it begin from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from dynamicrafter.presets import Preset


def motion_counts(text: str | None) -> Counter[int]:
    """How often each motion number was seen, from JSON as `as_json` writes it; nothing from anything else.

    A file's header is its maker's word: what is no count is passed over, for a clip can be made without.
    """
    try:
        read = json.loads(text or "")
        pairs = {int(number): count for number, count in read.items()}
    except (ValueError, AttributeError, RecursionError):
        return Counter()
    return Counter({n: c for n, c in pairs.items() if 1 <= n <= 1000 and type(c) is int and c > 0})


def as_json(counts: Mapping[int, int]) -> str:
    """The counts as one line of JSON, by number."""
    return json.dumps({str(number): count for number, count in sorted(counts.items())})


def with_trained_motion(preset: Preset, counts: Mapping[int, int]) -> Preset:
    """A preset whose motion numbers are those that were trained under.

    Its own default stays where it lies between the least and the largest of them, else the nearer of the two takes
    its place; the range that it knows becomes theirs too.
    """
    if not counts:
        return preset
    least, most, motion = min(counts), max(counts), preset.motion
    low, high = min(motion.low, least), max(motion.high, most)
    calm, lively = (low, high) if motion.calm < motion.lively else (high, low)
    default = min(max(motion.default, least), most)
    return replace(preset, motion=replace(motion, default=default, calm=calm, lively=lively))
