"""Still pictures to move: crops of photos, collages and textures, recoloured."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from dynamicrafter.data.synthetic.photos import TRAIN, Pixels, photo, photos_in
from dynamicrafter.data.synthetic.textures import Rng, cells, clouds, gradient, shapes, stripes

_NAMES = tuple(TRAIN)
_SHARES = np.array(list(TRAIN.values())) / sum(TRAIN.values())

_KINDS = np.array([0.60, 0.10, 0.07, 0.08, 0.08, 0.04, 0.03])


_OF_FOLDER = 0.75  # share of a given folder's photos among all photos; large ones, of which smaller crops are sharp
_LEAST_OF_FOLDER = 0.2


def training_picture(rng: Rng, size: int, photos: Path | None = None) -> Pixels:
    """One random picture, (size, size, 3), of the sample photos, of a folder's too where one is given, or of none."""
    cropped = partial(photo_crop, rng, size, photos)
    match rng.choice(len(_KINDS), p=_KINDS):
        case 0:
            pixels = cropped()
        case 1:
            pixels = _collage(rng, cropped(), cropped())
        case 2:
            pixels = shapes(rng, cropped())
        case 3:
            pixels = clouds(rng, size, exponent=rng.uniform(0.8, 1.8))
        case 4:
            pixels = shapes(rng, gradient(rng, size))
        case 5:
            pixels = cells(rng, size)
        case _:
            pixels = stripes(rng, size)
    return _recoloured(rng, pixels)


def crop(rng: Rng, pixels: Pixels, size: int, *, least: float = 0.45) -> Pixels:
    """A random square of a photo, its side `least` to 1 of the shorter one, resized to (size, size, 3)."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    side = min(shorter, max(int(shorter * rng.uniform(least, 1)), min(shorter, 96)))  # smaller ones are all blur
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    return resized(pixels[top : top + side, left : left + side], size)


def resized(pixels: Pixels, size: int) -> Pixels:
    """A square picture at another size, antialiased."""
    shrinks = pixels.shape[0] > size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=how), dtype=np.uint8)


def photo_crop(rng: Rng, size: int, photos: Path | None = None) -> Pixels:
    """A random square of a random photo as it is, or mirrored, (size, size, 3)."""
    if photos is not None and rng.random() < _OF_FOLDER:
        known = photos_in(photos)
        pixels = crop(rng, known[rng.integers(len(known))], size, least=_LEAST_OF_FOLDER)
    else:
        pixels = crop(rng, photo(_NAMES[rng.choice(len(_NAMES), p=_SHARES)]), size)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def _collage(rng: Rng, over: Pixels, under: Pixels) -> Pixels:
    """Two crops, torn along a random line with a soft or a sharp edge."""
    field = clouds(rng, over.shape[0], exponent=1.8)[..., :1].astype(np.float32)
    edge = np.clip((field - rng.uniform(90, 160)) / rng.uniform(2, 30), -20, 20)
    share = 1 / (1 + np.exp(-edge))
    if rng.random() < 0.3:
        under = under[::-1]
    return (over * share + under * (1 - share)).astype(np.uint8)


def _recoloured(rng: Rng, pixels: Pixels) -> Pixels:
    """Channels mixed and swapped, contrast, brightness and gamma changed; rarely a negative."""
    values = pixels.astype(np.float32) / 255
    if rng.random() < 0.75:
        mix = np.eye(3) + rng.normal(0, 0.22, (3, 3))
        if rng.random() < 0.4:
            mix = mix[rng.permutation(3)]
        values = values @ mix.T.astype(np.float32)
    values = (values - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.15, 0.15, 3).astype(np.float32)
    values = np.clip(values, 0, 1) ** rng.uniform(0.75, 1.35)
    if rng.random() < 0.04:
        values = 1 - values
    return (values * 255 + 0.5).astype(np.uint8)
