"""What a caption says about motion, as three columns, and what a language model must answer to fill them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from dynamicrafter.data.records import clean

WHAT_MOVES = ("camera", "person", "animal", "vehicle", "nature", "object", "none")
SURE = 50  # confidence from which on motion is more likely named than not
_STEM = 4  # letters by which "walks" and "walking" are one word
_SHARED = 0.5  # of a wording's words must come from its caption
_FIELDS = ("dynamic_confidence", "dynamic_wording", "dynamic_source_category")

INSTRUCTIONS = f"""\
You label captions of short videos. Say whether the caption names motion that can be seen, with which of its words, \
and what moves. Answer with one JSON object and nothing else, with these three fields:
"dynamic_confidence": 0 to 100, how surely the caption names motion;
"dynamic_wording": the words of the caption that tell the motion, as short as they stay clear; "" if there is none;
"dynamic_source_category": one of {", ".join(WHAT_MOVES)}; "none" if there is no motion.
Example. Caption: Aerial view of a man walking on the beach at sunset.
{{"dynamic_confidence": 95, "dynamic_wording": "man walking on the beach", "dynamic_source_category": "person"}}"""


@dataclass(frozen=True, slots=True)
class Motion:
    """confidence: 0 … 100, how surely the caption names motion. wording: the phrase that does, empty where none does.
    source: what moves, one of `WHAT_MOVES`."""

    confidence: float
    wording: str
    source: str

    def cells(self) -> tuple[str, str, str]:
        """Values of the three columns."""
        return f"{self.confidence:g}", self.wording, self.source


NO_MOTION = Motion(0, "", "none")


def question(caption: str) -> str:
    """What to ask a model about a caption, after `INSTRUCTIONS`."""
    return f"Caption: {caption}"


def parse_answer(text: str, caption: str) -> Motion:
    """Read a model's answer; only a fence of ``` may stand around the JSON.

    Raises:
        ValueError: it is not three fields within their ranges, or its wording is not made of the caption. The message
            says which.
    """
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text.strip(), flags=re.DOTALL)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        raise ValueError("not the three fields")
    return check_motion(*(value[name] for name in _FIELDS), caption=caption)


def check_motion(confidence: Any, wording: Any, source: Any, *, caption: str) -> Motion:
    """Make a `Motion` of values of any type.

    Raises:
        ValueError: see `parse_answer`.
    """
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        raise ValueError("the confidence is no number")
    if not math.isfinite(confidence) or not 0 <= confidence <= 100:
        raise ValueError("the confidence is not 0 to 100")
    if source not in WHAT_MOVES:
        raise ValueError("the source is none of those asked for")
    if not isinstance(wording, str):
        raise ValueError("the wording is no text")
    wording = clean(wording)
    if (source == "none") != (not wording):
        raise ValueError("wording and source disagree whether anything moves")
    if source == "none" and confidence > SURE:
        raise ValueError("it is sure of motion and names none")
    if len(wording) > len(caption) or not _is_made_of(wording, caption):
        raise ValueError("the wording is not the caption's")
    return Motion(float(confidence), wording, source)


def _is_made_of(wording: str, caption: str) -> bool:
    theirs, words = _stems(caption), _stems(wording)
    return not words or len(words & theirs) >= _SHARED * len(words)


def _stems(text: str) -> set[str]:
    return {word[:_STEM] for word in re.findall(r"\w+", text.lower())}
