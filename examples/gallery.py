"""Makes the README's picture: photos that the bundled model never saw, each beside the clip that it makes of it.

python examples/gallery.py OUT.webp; needs the extra "train", which brings the photos.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dynamicrafter import Animator
from dynamicrafter.data.synthetic.photos import held_out_photos
from dynamicrafter.media.video import write_clip

SIZE, CAPTION, COLUMNS = 128, 14, 2
SHOWN = (
    ("rocket", "the camera pans left"),
    ("chelsea", "the view zooms in"),
    ("china", "the picture rotates clockwise"),
    ("astronaut", "camera gliding right"),
    ("astronaut", "the shot zooms out"),
    ("chelsea", "the camera slides up"),
)


def beside(picture: Image.Image, frames: np.ndarray, prompt: str) -> np.ndarray:
    """The still picture on the left, the clip on the right, the prompt below: (f, SIZE + CAPTION, 2·SIZE, 3)."""
    canvas = Image.new("RGB", (2 * SIZE, SIZE + CAPTION), "white")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    canvas.paste(square, (0, 0))
    ImageDraw.Draw(canvas).text((3, SIZE + 1), prompt, fill="black")
    shown = np.repeat(np.asarray(canvas)[None], len(frames), axis=0)
    shown[:, :SIZE, SIZE:] = frames
    return shown


def main(target: Path) -> None:
    animator = Animator.from_pretrained("bundled")
    photos = {name: Image.fromarray(pixels) for name, pixels in held_out_photos()}
    tiles = []
    for name, prompt in SHOWN:
        clip = animator.animate(photos[name], prompt)
        tiles.append(beside(photos[name], np.asarray(clip.frames), prompt))
    rows = [np.concatenate(tiles[start : start + COLUMNS], axis=2) for start in range(0, len(tiles), COLUMNS)]
    write_clip(target, np.concatenate(rows, axis=1), fps=8, metadata={"prompts": [prompt for _, prompt in SHOWN]})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gallery.webp"))
