"""A closed clip through three views of one photo, with the bundled model: python examples/key_pictures.py OUT.webp."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from dynamicrafter import Animator

PHOTO = Path(__file__).parent / "rocket.jpg"
SIDE = 384  # pixels of the photo that a view shows
VIEWS = (70, 115, 160)  # their left edges: a camera that pans right goes through them in this order


def main(target: Path, *, steps: int | None = None, frames: int = 16) -> None:
    photo = Image.open(PHOTO)
    pictures = [photo.crop((left, 20, left + SIDE, 20 + SIDE)) for left in VIEWS]
    prompts = ["the camera pans right", "the camera pans right", "the camera pans left"]
    animator = Animator.from_pretrained("bundled")
    clip = animator.interpolate_through(pictures, prompts, closed=True, motion=16, steps=steps, frames=frames)
    clip.save(target)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "keys.webp"))
