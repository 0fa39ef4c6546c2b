"""What a person should know of a clip whose model can't do what is asked, or whose frame cuts its picture."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from dynamicrafter.hub import OFFICIAL_GB
from dynamicrafter.presets import BUNDLED, USUAL_PRESET
from dynamicrafter.specs.options import ResolvedOptions

# By what a person calls a motion, the words that ask for it; docs/model-card.md has how well each came out. A prompt
# that merely holds such words is not told of: a hint too few is better than one too many.
_CAMERA = r"\b(pan|tilt|slid|glid|drift|travel|track|mov|look|turn|crane|camera|view|shot)\w*"
_WORDS: dict[str, str] = {
    "camera pans (left, right, up, down)": rf"(?=.*{_CAMERA}).*\b(left|right|up|down)(ward|wards)?\b",
    "zooms (in, out)": (
        r"\b(zoom\w*|doll(y|ies|ying)|push\w* in|pull\w* (back|out)|closer|nearer|farther|further|enlarg\w*|shrink\w*|"
        r"mov\w* (in|back|away|forwards?|backwards?))\b"
    ),
    "turns (clockwise, counterclockwise)": r"\b(counter|anti)?-?clockwise\b",
    "standing still": r"\b(still|static|freez\w*|frozen|nothing moves|no (camera )?(motion|movement))\b",
}
BUNDLED_MOTIONS = tuple(_WORDS)
MOST_CUT = 0.2  # of a picture, beyond which its owner is told


def motion_hints(prompts: Iterable[str], motions: Collection[str]) -> Iterator[str]:
    """A line where a prompt names no motion that the model was taught.

    Args:
        motions: those, as `BUNDLED_MOTIONS` has them; none, and the model takes any prompt.
    """
    patterns = [_WORDS[motion] for motion in motions]
    if patterns and not all(any(re.search(each, prompt, re.I | re.S) for each in patterns) for prompt in prompts):
        *others, last = motions
        yield (
            f"the prompt names no motion that the model {BUNDLED.name} was taught: {', '.join(others)} and {last}; the "
            f"clip may stand still. For other prompts run `dynamicrafter download {USUAL_PRESET}`, {OFFICIAL_GB:g} GB."
        )


def size_hints(options: ResolvedOptions, picture: tuple[int, int]) -> Iterator[str]:
    """A line where much of a picture is cut off by a frame whose size nobody chose.

    Args:
        picture: its height and width.
    """
    (height, width), (high, wide) = options.size, picture
    shapes = (height / width) / (high / wide)
    cut = 1 - min(shapes, 1 / shapes)
    if options.fit == "cover" and cut > MOST_CUT:
        yield (
            f"the frame of {width}x{height} cuts {cut:.0%} off the picture of {wide}x{high}; size auto keeps its shape."
        )
