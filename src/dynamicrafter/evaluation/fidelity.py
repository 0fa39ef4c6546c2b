"""How well a clip keeps the pictures that it was given, beside what its autoencoder could keep at best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.frames import check_clip, extra

if TYPE_CHECKING:
    from dynamicrafter.pipeline.steps import PipelineSteps

_LARGEST = 100.0  # dB, of frames that are equal, whose ratio has no number


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """One frame against the picture that it stands for.

    psnr: dB, at most 100. ssim: -1 … 1. loss: dB by which the frame is worse than the autoencoder's own reconstruction
    of the picture (negative where it is better); None where that is unknown.
    """

    psnr: float
    ssim: float
    loss: float | None = None


def psnr(frame: np.ndarray, picture: np.ndarray) -> float:
    """Peak signal-to-noise ratio, dB, of a uint8 frame (h, w, 3) to a picture of its shape; 100 where they are equal.

    Raises:
        InputError: shapes or types differ.
    """
    _check_pair(frame, picture)
    error = np.mean((frame.astype(np.float64) - picture) ** 2)
    return min(10 * math.log10(255**2 / error), _LARGEST) if error else _LARGEST


def ssim(frame: np.ndarray, picture: np.ndarray) -> float:
    """Structural similarity of a uint8 frame (h, w, 3) to a picture, at least 11 pixels a side; the mean over colours.

    Gaussian windows of σ 1.5, as in Wang et al. 2004.

    Raises:
        InputError: shapes or types differ, or a side is under 11 pixels.
    """
    _check_pair(frame, picture)
    if min(frame.shape[:2]) < 11:
        raise InputError(f"frame must be at least 11 pixels high and wide for SSIM, got {frame.shape[:2]}.")
    similarity = extra("skimage.metrics").structural_similarity(
        frame, picture, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(similarity)


def compare(frame: np.ndarray, picture: np.ndarray, reconstruction: np.ndarray | None = None) -> Fidelity:
    """Hold a frame against its picture and, where it is given, the autoencoder's reconstruction; all uint8 (h, w, 3).

    Raises:
        InputError: shapes or types differ.
    """
    found = psnr(frame, picture)
    best = None if reconstruction is None else psnr(reconstruction, picture) - found
    return Fidelity(psnr=found, ssim=ssim(frame, picture), loss=best)


def reconstruct(pipeline: PipelineSteps, picture: np.ndarray) -> np.ndarray:
    """What a pipeline's autoencoder makes of a picture (the mean of its latents, decoded); uint8 (h, w, 3) both ways.

    Raises:
        InputError: the picture is no multiple of the autoencoder's scale, or has another type or shape.
    """
    from dynamicrafter.media.framing import to_tensor, to_uint8

    check_clip(picture[None])
    scale = pipeline.vae_scale_factor
    if picture.shape[0] % scale or picture.shape[1] % scale:
        raise InputError(f"picture must have sides that {scale} divides, got {picture.shape[:2]}.")
    latents = pipeline.encode_image_latents(to_tensor(picture)[None], deterministic=True)
    return to_uint8(pipeline.decode_latents(latents[:, :, None]))[0, 0]


def _check_pair(frame: np.ndarray, picture: np.ndarray) -> None:
    check_clip(frame[None])
    check_clip(picture[None])
    if frame.shape != picture.shape:
        raise InputError(f"frame and picture must have one shape, got {frame.shape} and {picture.shape}.")
