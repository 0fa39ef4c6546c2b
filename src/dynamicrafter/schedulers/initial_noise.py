"""The start of a run below full noise: the Gaussian nearest to noised clips (Analytic-Init, arXiv:2406.15735, §4.1).

At the last timestep nothing but noise is left of a clip, and a run starts from N(0, 1). At a lower one something is,
and N(0, 1) is no longer what the network saw in training. Of all Gaussians of one variance, N(α E, (1 − ᾱ + ᾱ T) I) is
nearest to it, where E is the mean of clean latents and T the mean variance of their elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.schedulers.noise import Level

_MEAN, _VARIANCE = ("Expectation_X0", "Expectation_x_0"), ("Tr_Cov_d", "trCov_d")  # as published, here and for SVD


@dataclass(frozen=True, slots=True, eq=False)
class InitialNoise:
    """What clean latents are like.

    Attributes:
        mean: E, (1, 4, f, h, w), float32, scaled as the UNet expects.
        variance: T, of one element.
    """

    mean: Tensor
    variance: float

    def start(self, noise: Tensor, level: Level[float]) -> Tensor:
        """Where a run begins.

        Args:
            noise: standard normal, (b, 4, f, h, w).
            level: of the run's first timestep; its latent scale does not count, as published.

        Raises:
            InputError: noise of other frames or another size than the mean's.
        """
        if tuple(noise.shape[1:]) != tuple(self.mean.shape[1:]):
            channels, frames, height, width = self.mean.shape[1:]
            raise InputError(
                f"initial_noise was made for latents ({channels}, {frames}, {height}, {width}) by channel, frame, "
                f"height and width, got {tuple(noise.shape[1:])}; take its frames and size, or leave it out."
            )
        deviation = (level.sigma**2 + level.alpha**2 * self.variance) ** 0.5
        return level.alpha * self.mean.to(noise) + deviation * noise

    def save(self, path: Path) -> None:
        """Write it in the published layout, a torch.save of a dictionary."""
        torch.save({_MEAN[0]: self.mean, _VARIANCE[0]: torch.tensor([self.variance])}, path)


def read_initial_noise(path: Path) -> InitialNoise:
    """Read a published file or one of `InitialNoise.save`; nothing in it is executed.

    Raises:
        InputError: it can't be read, or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, for a file of any content
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"initial_noise must be a file of torch.save, {path} can't be read ({reason}).") from error
    held = content if isinstance(content, dict) else {}
    mean, variance = (next((held[name] for name in names if name in held), None) for names in (_MEAN, _VARIANCE))
    if not isinstance(mean, Tensor) or mean.ndim not in (4, 5) or variance is None:
        raise InputError(f"initial_noise must hold {_MEAN[0]} and {_VARIANCE[0]}, {path} does not; name another file.")
    if mean.ndim == 4:
        mean = mean[None]
    if not (mean.isfinite().all() and torch.as_tensor(variance).numel() == 1 and float(variance) >= 0):
        raise InputError(f"initial_noise must hold finite numbers and a variance of 0 or more, {path} does not.")
    return InitialNoise(mean.float(), float(variance))


def fit_initial_noise(clips: Iterable[Tensor]) -> InitialNoise:
    """Fit the Gaussian to clips.

    Args:
        clips: clean latents of one clip each, (1, 4, f, h, w), scaled as the UNet expects, all of one shape.

    Raises:
        InputError: no clips, or clips of several shapes.
    """
    total = squares = None
    count = 0
    for clip in clips:
        if total is None or squares is None:
            total, squares = torch.zeros_like(clip, dtype=torch.float64), torch.zeros_like(clip, dtype=torch.float64)
        if clip.shape != total.shape:
            raise InputError(f"clips must be of one shape, got {tuple(total.shape)} and {tuple(clip.shape)}.")
        total += clip
        squares += clip.double().square()
        count += 1
    if total is None or squares is None:
        raise InputError("initial noise must be fitted to at least one clip, got none.")
    mean = total / count
    return InitialNoise(mean.float(), (squares / count - mean.square()).mean().item())
