"""Sample photos that scikit-image and scikit-learn bring, split once into those to train on and those to test on."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dynamicrafter.errors import InputError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Split = Literal["train", "held_out"]

_SHORTER_SIDE = 640  # pixels; larger ones would only take memory
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}

# Weights: how often each is drawn. Photos with colour and depth count most, stains and bare textures least.
TRAIN: dict[str, float] = {
    "skimage/coffee.png": 5,
    "skimage/motorcycle_left.png": 5,
    "sklearn/flower.jpg": 5,
    "skimage/camera.png": 3,
    "skimage/coins.png": 1.5,
    "skimage/hubble_deep_field.jpg": 1,
    "skimage/ihc.png": 1,
    "skimage/retina.jpg": 1,
    "skimage/moon.png": 1,
    "skimage/brick.png": 1,
    "skimage/gravel.png": 1,
    "skimage/grass.png": 1,
    "skimage/color.png": 0.5,
    "skimage/cell.png": 0.5,
    "skimage/clock_motion.png": 0.5,
}
HELD_OUT = ("sklearn/china.jpg", "skimage/chelsea.png", "skimage/astronaut.png", "skimage/rocket.jpg")


@lru_cache(maxsize=32)
def photo(name: str) -> Pixels:
    """A sample photo by "package/file", (h, w, 3), RGB.

    Raises:
        InputError: the package is not installed or doesn't bring that photo.
    """
    from PIL import Image

    package, _, file = name.partition("/")
    spec = find_spec(package)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / _FOLDERS[package] / file
    if path is None or not path.is_file():
        raise InputError(
            f'the sample photo {name} is not on this machine; run pip install "dynamicrafter[train]", which brings it.'
        )
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    pixels.setflags(write=False)
    return pixels


@lru_cache(maxsize=2)
def photos_in(folder: Path) -> tuple[Pixels, ...]:
    """All pictures of a folder in the order of their names, each (h, w, 3), RGB, its shorter side at most 640 pixels.

    Raises:
        InputError: no such folder, no pictures in it, or one that can't be read.
    """
    from PIL import Image

    from dynamicrafter.media.pictures import SUFFIXES, read_picture

    if not folder.is_dir():
        raise InputError(f"photos must be a folder of pictures, got {folder}; name one that is there.")
    photos = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        picture = read_picture(path)
        scale = _SHORTER_SIDE / min(picture.size)
        if scale < 1:
            size = (round(picture.width * scale), round(picture.height * scale))
            picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        pixels = np.asarray(picture)
        pixels.setflags(write=False)
        photos.append(pixels)
    if not photos:
        raise InputError(f"photos {folder} holds no pictures ({', '.join(SUFFIXES)}); name a folder that does.")
    return tuple(photos)


def held_out_photos() -> list[tuple[str, Pixels]]:
    """The photos that no training clip shows, by a short name."""
    return [(Path(name).stem, photo(name)) for name in HELD_OUT]
