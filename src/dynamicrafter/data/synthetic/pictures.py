"""Still pictures to move: crops of photos, collages and textures, recoloured."""

from __future__ import annotations

import cv2
import numpy as np

from dynamicrafter.data.synthetic.photos import TRAIN, Pixels, photo
from dynamicrafter.data.synthetic.textures import Rng, cells, clouds, gradient, shapes, stripes

_NAMES = tuple(TRAIN)
_SHARES = np.array(list(TRAIN.values())) / sum(TRAIN.values())

_KINDS = np.array([0.60, 0.10, 0.07, 0.08, 0.08, 0.04, 0.03])


def training_picture(rng: Rng, size: int) -> Pixels:
    """One random picture, (size, size, 3)."""
    match rng.choice(len(_KINDS), p=_KINDS):
        case 0:
            pixels = _random_crop(rng, size)
        case 1:
            pixels = _collage(rng, size)
        case 2:
            pixels = shapes(rng, _random_crop(rng, size))
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


def _random_crop(rng: Rng, size: int) -> Pixels:
    pixels = crop(rng, photo(_NAMES[rng.choice(len(_NAMES), p=_SHARES)]), size)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def _collage(rng: Rng, size: int) -> Pixels:
    """Two crops, torn along a random line with a soft or a sharp edge."""
    field = clouds(rng, size, exponent=1.8)[..., :1].astype(np.float32)
    edge = np.clip((field - rng.uniform(90, 160)) / rng.uniform(2, 30), -20, 20)
    share = 1 / (1 + np.exp(-edge))
    over = _random_crop(rng, size)
    under = _random_crop(rng, size)
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
