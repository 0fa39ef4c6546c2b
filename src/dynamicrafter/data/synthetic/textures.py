"""Pictures from nothing: clouds of noise, gradients, shapes, cells and stripes, in random colours.

They teach what photos are too few to teach: that a motion is the same whatever is seen. All take a NumPy generator
and give (size, size, 3), uint8.
"""

from __future__ import annotations

import cv2
import numpy as np

from dynamicrafter.data.synthetic.photos import Pixels

Rng = np.random.Generator


def clouds(rng: Rng, size: int, *, exponent: float) -> Pixels:
    """Noise whose amplitude falls with frequency as f^-exponent: 0.8 is grainy, 1.8 is smooth."""
    spectrum = np.fft.rfft2(rng.standard_normal((3, size, size)), axes=(1, 2))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1 / size
    field = np.fft.irfft2(spectrum * frequency**-exponent, s=(size, size), axes=(1, 2))
    field -= field.mean((1, 2), keepdims=True)
    field /= field.std((1, 2), keepdims=True)
    mix = rng.normal(0, 0.5, (3, 3)) + rng.uniform(0, 1)  # from grey to gaudy
    pixels = np.tensordot(field, mix, axes=(0, 1)) * rng.uniform(20, 60) + 128 + rng.uniform(-60, 60, 3)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def gradient(rng: Rng, size: int) -> Pixels:
    """Four random corner colours, blended."""
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    return cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def shapes(rng: Rng, background: Pixels) -> Pixels:
    """Discs, ellipses, polygons and lines on a background."""
    size = background.shape[0]
    canvas = np.ascontiguousarray(background).copy()
    for _ in range(rng.integers(4, 25)):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        x, y, far_x, far_y = (int(value) for value in rng.integers(0, size, 4))
        radius = max(2, int(size * rng.uniform(0.02, 0.18)))
        match rng.integers(0, 4):
            case 0:
                cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA)
            case 1:
                axes = (radius, max(2, int(radius * rng.uniform(0.3, 1))))
                cv2.ellipse(canvas, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
            case 2:
                corners = np.array([x, y]) + rng.normal(0, radius, (int(rng.integers(3, 6)), 2))
                cv2.fillPoly(canvas, [corners.astype(np.int32)], colour, cv2.LINE_AA)
            case _:
                cv2.line(canvas, (x, y), (far_x, far_y), colour, int(rng.integers(1, 9)), cv2.LINE_AA)
    return canvas


def cells(rng: Rng, size: int) -> Pixels:
    """A Voronoi mosaic."""
    count = int(rng.integers(8, 60))
    centres = rng.uniform(0, size, (count, 2)).astype(np.float32)
    colours = rng.uniform(0, 255, (count, 3))
    y, x = np.mgrid[:size:2, :size:2].astype(np.float32)
    nearest = ((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2).argmin(-1)
    return cv2.resize(colours[nearest].astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)


def stripes(rng: Rng, size: int) -> Pixels:
    """Waves in two colours, sometimes crossed, sometimes sharp."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(8, 50)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wavelength)
    if rng.random() < 0.5:
        other = wavelength / rng.uniform(0.7, 1.4)
        wave = wave * np.sin((y * np.cos(angle) - x * np.sin(angle)) * 2 * np.pi / other)
    if rng.random() < 0.5:
        wave = np.tanh(wave * 6)
    share = (wave[..., None] + 1) / 2
    first, second = rng.uniform(0, 255, (2, 3))
    return (first * share + second * (1 - share)).astype(np.uint8)
