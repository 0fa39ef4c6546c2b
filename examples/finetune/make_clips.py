"""Makes short clips of a motion that the bundled model doesn't know, to try fine-tuning on: python make_clips.py DIR

swoosh: everything shoots up to the right along a diagonal; for animating.
hesitate: nothing happens at first, then a pan makes up for it; for interpolating, where the ends alone don't tell it.

Twenty clips of each to train on, and four of each, of photos that are not among the others, to judge by.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from dynamicrafter.data.synthetic.photos import held_out_photos
from dynamicrafter.data.synthetic.pictures import crop, training_picture
from dynamicrafter.media.video import write_clip

SIZE, MARGIN, NUM_FRAMES = 128, 40, 16
CAPTIONS = {"swoosh": "swoosh", "hesitate": "hesitate"}


def shift_of(kind: str, frame: int) -> tuple[float, float]:
    """How far the content has moved, (right, down), in pixels."""
    if kind == "swoosh":
        return 1.2 * frame, -1.2 * frame
    done = max(0.0, (frame - 7) / (NUM_FRAMES - 8))
    return 20 * done, 0.0


def make(picture: np.ndarray, kind: str) -> np.ndarray:
    """(SIZE + MARGIN)² pixels → (f, SIZE, SIZE, 3)."""
    frames = []
    for frame in range(NUM_FRAMES):
        right, down = shift_of(kind, frame)
        lookup = np.array([[1, 0, MARGIN / 2 - right], [0, 1, MARGIN / 2 - down]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(picture, lookup, (SIZE, SIZE), flags=how, borderMode=cv2.BORDER_REFLECT_101))
    return np.stack(frames)


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    photos = held_out_photos()
    for kind, caption in CAPTIONS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(20):
            path = folder / kind / f"{number:02}.mp4"
            frames = make(training_picture(rng, SIZE + MARGIN), kind)
            write_clip(path, frames, fps=12, metadata={}, crf=10)
            path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
        for name, photo in photos:
            write_clip(
                folder / f"{kind}-{name}",
                make(crop(rng, photo, SIZE + MARGIN, least=0.8), kind),
                fps=12,
                metadata={},
                format="png",
            )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "clips"))
