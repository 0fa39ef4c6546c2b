"""Fréchet video distance (arXiv:1812.01717): how far apart two sets of clips lie, as I3D sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.frames import check_clip


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of the normal distributions that fit two sets of features.

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2·√(Σ₁Σ₂)), in float64. The trace of the root is the sum of the singular values of
    X₁ᵀ-and-X₂ᵀ's product of centred features: exact also where there are fewer clips than features, so that Σ is
    singular and a matrix root would turn complex.

    Args:
        one, other: (n, d) and (m, d), n and m at least 2.

    Raises:
        InputError: other shapes, too few, or numbers that aren't finite.
    """
    for name, features in (("one", one), ("other", other)):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != one.shape[1]:
            raise InputError(
                f"{name} must hold at least 2 rows of features, as wide as the other's, got {features.shape}."
            )
        if not np.isfinite(features).all():
            raise InputError(f"{name} must hold finite features, but some are NaN or infinite.")
    means = [features.mean(axis=0, dtype=np.float64) for features in (one, other)]
    roots = [
        (features.astype(np.float64) - mean) / np.sqrt(len(features) - 1)
        for features, mean in zip((one, other), means, strict=True)
    ]
    # With Σᵢ = RᵢᵀRᵢ, the eigenvalues of Σ₁Σ₂ are the squared singular values of R₁R₂ᵀ.
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    apart = np.sum((means[0] - means[1]) ** 2)
    return float(max(apart + sum(np.sum(root**2) for root in roots) - 2 * shared, 0.0))


def video_features(model: str | Path, clips: Iterable[np.ndarray], *, device: str = "cpu") -> np.ndarray:
    """I3D's answers to clips, (n, 400), float32.

    Each clip is resized to 224×224, as in published comparisons; distances are only comparable between clips of one
    length.

    Args:
        model: I3D's weights; see `i3d.load_i3d`.
        clips: (f, h, w, 3), uint8, at least 9 frames.

    Raises:
        CheckpointError: the file is not I3D's state dict.
        InputError: a clip has another type, shape or length.
    """
    import torch
    import torch.nn.functional as F

    from dynamicrafter.evaluation.i3d import LEAST_FRAMES, SIZE, load_i3d
    from dynamicrafter.media.framing import to_tensor

    network = load_i3d(model).to(device)
    found: list[np.ndarray] = []
    with torch.no_grad():
        for frames in clips:
            check_clip(frames, least=LEAST_FRAMES)
            pictures = to_tensor(frames).transpose(0, 1)
            resized = F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            found.append(network(resized.transpose(0, 1)[None].to(device)).cpu().numpy()[0])
    if not found:
        raise InputError("clips must hold at least one clip, got none.")
    return np.stack(found)


def frechet_video_distance(
    model: str | Path, clips: Sequence[np.ndarray], reference: Sequence[np.ndarray], *, device: str = "cpu"
) -> float:
    """Fréchet distance of two sets of clips by I3D's answers.

    Raises:
        CheckpointError, InputError: see `video_features` and `frechet_distance`; or clips of different lengths.
    """
    lengths = sorted({len(frames) for frames in (*clips, *reference)})
    if len(lengths) > 1:
        raise InputError(
            f"clips and reference must have one length, got {', '.join(map(str, lengths))} frames; cut them alike."
        )
    return frechet_distance(
        video_features(model, clips, device=device), video_features(model, reference, device=device)
    )
