"""The noise schedule: how much signal, noise and latent scale each training timestep carries.

A clean latent z is noised as x_t = α_t s_t z + σ_t ε with α_t² + σ_t² = 1. Three facts of the released checkpoints meet
here: betas whose roots are evenly spaced (arXiv:2112.10752), zero terminal signal-to-noise ratio (arXiv:2305.08891,
alg. 1), and the latent scale s_t, which shrinks clean latents at high noise (`base_scale` of the released code).
Tables are float64 on the CPU: near the last timestep float32 loses what tells 1 − ᾱ from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.presets import NUM_TRAIN_TIMESTEPS, Spacing

SCALE_RAMP = 400  # timesteps over which s_t falls from 1 to the base scale; the released checkpoints' value

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level(Generic[Number]):
    """One noise level; numbers for all samples alike, or tensors (b, 1, …, 1) with a level for each sample."""

    alpha: Number  # signal, 0 … 1
    sigma: Number  # noise, 0 … 1; α² + σ² = 1
    scale: Number  # latent scale s, of the signal alone


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSchedule:
    """α, σ and s of every training timestep, each (t,), float64."""

    alphas: Tensor
    sigmas: Tensor
    scales: Tensor

    def level(self, timestep: int) -> Level[float]:
        """The level of one timestep."""
        return Level(
            alpha=self.alphas[timestep].item(), sigma=self.sigmas[timestep].item(), scale=self.scales[timestep].item()
        )

    def levels(self, timesteps: Tensor, *, like: Tensor) -> Level[Tensor]:
        """The levels of timesteps (b,) or (1,), for `like` (b, …), on its device and of its type."""
        index = timesteps.cpu()

        def column(table: Tensor) -> Tensor:
            # Type before device: some accelerators hold no float64.
            return table[index].to(like.dtype).to(like.device).reshape(-1, *(1,) * (like.ndim - 1))

        return Level(alpha=column(self.alphas), sigma=column(self.sigmas), scale=column(self.scales))


def noise_schedule(
    *,
    num_train_timesteps: int,
    beta_start: float,
    beta_end: float,
    zero_terminal_snr: bool,
    base_scale: float | None,
) -> NoiseSchedule:
    """Compute a schedule's tables.

    Args:
        beta_start, beta_end: share of the variance replaced by noise at the first and the last timestep.
        zero_terminal_snr: shift and scale α so that the last is 0 and the first unchanged.
        base_scale: where s_t ends; None for s_t = 1.
    """
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0).sqrt()
    if zero_terminal_snr:
        alphas = (alphas - alphas[-1]) * (alphas[0] / (alphas[0] - alphas[-1]))
    scales = torch.ones_like(alphas)
    if base_scale is not None:
        scales[:] = base_scale
        ramp = torch.linspace(1, base_scale, SCALE_RAMP, dtype=torch.float64)
        scales[:SCALE_RAMP] = ramp[:num_train_timesteps]
    return NoiseSchedule(alphas=alphas, sigmas=(1 - alphas**2).sqrt(), scales=scales)


def spaced_timesteps(
    num_inference_steps: int, *, spacing: Spacing, num_train_timesteps: int = NUM_TRAIN_TIMESTEPS
) -> list[int]:
    """Choose the timesteps of a sampling run.

    Args:
        num_inference_steps: n, 1 … `num_train_timesteps`.
        spacing: "uniform" starts n-ths of the range from the lowest timestep, so that the run may begin below full
            noise; "uniform_trailing" starts them from the highest (arXiv:2305.08891, sec. 3.3).

    Returns:
        Exactly n distinct timesteps, descending, each 0 … `num_train_timesteps` − 1.

    Raises:
        InputError: n is no whole number in that range, or there is no such spacing.
    """
    n, total = num_inference_steps, num_train_timesteps
    _check_count(n, total)
    match spacing:
        case "uniform":
            first = 0 if n == total else 1  # the published spacing skips timestep 0 wherever there is room to
            return [i * total // n + first for i in reversed(range(n))]
        case "uniform_trailing":
            return [round(total - i * total / n) - 1 for i in range(n)]
        case _:
            raise InputError(f"timestep_spacing must be uniform or uniform_trailing, got {spacing!r}.")


def _check_count(n: object, total: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= total:
        raise InputError(f"num_inference_steps must be a whole number between 1 and {total}, got {n!r}; try 50.")


def multistep_timesteps(num_inference_steps: int, *, num_train_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[int]:
    """Choose the timesteps of a run of a multistep sampler: what is left falls with the square of the steps left.

    Even timesteps leave the last step, in which λ grows by several, the largest error; evenly in λ, or in the angle
    arctan(α s / σ), too few are left at high noise, where what varies most in pictures is settled. docs/speed.md has
    the figures.

    Args:
        num_inference_steps: n, 1 … `num_train_timesteps`.

    Returns:
        Exactly n distinct timesteps, descending, each 0 … `num_train_timesteps` − 1; 0 only where n needs all.

    Raises:
        InputError: n is no whole number in that range.
    """
    _check_count(num_inference_steps, num_train_timesteps)
    n, last = num_inference_steps, num_train_timesteps - 1
    ideal = [round(last * (1 - i / n) ** 2) for i in range(n)]
    # Whole timesteps close to 0 coincide where n is large: each is then at least as high as its place from the end.
    return [max(timestep, n - i if n <= last else last - i) for i, timestep in enumerate(ideal)]
