"""Which camera motion a prompt asks for, by a small table of words.

Careful rather than clever: a prompt that names no motion of the camera, or several, gives None.
"""

from __future__ import annotations

import re

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.motion import KINDS, Kind

_CAMERA = r"camera|view(?:point)?|shot|lens|pan(?:s|ned|ning)?|tilt(?:s|ed|ing)?|track(?:s|ing)?|truck(?:s|ing)?|crane"
_CONTENT = r"scene|picture|image|photo|content|everything|whole frame"
_VERBS = (
    r"(?:mov|slid|drift|glid|shift|travel|scroll|float|go|sweep|swing|turn|pan|tilt|look|ris|ascend|sink|descend)\w*"
)
_COMMAND = rf"\s*(?:\w+ly )?{_VERBS}\b"  # with nobody named that moves, it is said to the camera
_SIDES: dict[str, str] = {
    "left": r"left(?:wards?|-hand side)?",
    "right": r"right(?:wards?|-hand side)?",
    "up": r"up(?:wards?)?|rises|rising|ascends|ascending",
    "down": r"down(?:wards?)?|sinks|sinking|descends|descending",
}
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_CLAUSES = re.compile(r"[.,;:!?]| while | as ")

_ADVERB = r"(?:\w+ly |further |much )?"
_RULES: tuple[tuple[Kind, str], ...] = (
    ("rotate counterclockwise", r"\b(?:counter|anti)[- ]?clockwise\b"),
    ("rotate clockwise", r"\b(?<!counter[- ])(?<!anti[- ])clockwise\b"),
    ("zoom in", rf"\bzoom\w*[- ]{_ADVERB}(?:in|into|closer|towards?)\b"),
    ("zoom in", rf"\b(?:push|doll(?:y|i)|mov|com|get|draw|go)\w* {_ADVERB}(?:in|closer|nearer|forwards?)\b"),
    ("zoom in", r"\b(?:approach(?:es|ing)?|enlarg(?:e|es|ing))\b"),
    ("zoom out", rf"\bzoom\w*[- ]{_ADVERB}(?:out|away|back)\b"),
    ("zoom out", rf"\b(?:pull|doll(?:y|i)|mov|get|back|draw|step)\w* {_ADVERB}(?:out|away|back(?:wards?)?|off)\b"),
    ("zoom out", r"\b(?:retreat|withdraw|shrink)(?:s|ing)?\b"),
    (
        "still",
        r"\b(?:still|static|motionless|fixed camera|frozen|freeze|nothing moves|no (?:\w+ )?(?:motion|movement))\b",
    ),
)


def asked_motion(prompt: str) -> Kind | None:
    """The camera motion that a prompt names; None where it names none, or more than one.

    Where the picture itself is said to move, the camera pans the other way. Clockwise is what is seen to turn so.
    """
    found = {kind for clause in _CLAUSES.split(prompt.lower()) for kind in _of_clause(clause)}
    moving = found - {"still"} if len(found) > 1 else found
    return moving.pop() if len(moving) == 1 else None


def parse_kind(text: str) -> Kind:
    """A kind of motion by its name, such as "pan left", "zoom in" or "rotate clockwise".

    Raises:
        InputError: no kind is called so.
    """
    name = " ".join(text.lower().split())
    if name not in KINDS:
        raise InputError(f"expect must be one of {', '.join(KINDS)}, got {text!r}.")
    return next(kind for kind in KINDS if kind == name)


def _of_clause(clause: str) -> list[Kind]:
    kinds = [kind for kind, pattern in _RULES if re.search(pattern, clause)]
    sides = [side for side, pattern in _SIDES.items() if re.search(rf"\b(?:{pattern})\b", clause)]
    if re.search(rf"\b(?:{_CAMERA})\b", clause) or re.match(_COMMAND, clause):
        pans = sides
    elif re.search(rf"\b(?:{_CONTENT})\b.*\b{_VERBS}", clause):
        pans = [_OPPOSITE[side] for side in sides]
    else:
        pans = []
    return kinds + [kind for kind in KINDS if kind in {f"pan {side}" for side in pans}]
