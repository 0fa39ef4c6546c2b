"""Noise on the condition in training, more at high timesteps (TimeNoise, arXiv:2406.15735, §4.2).

Late in the noising only the condition picture still shows anything, so a network learns to copy it and moves too
little. Noised heavily there, the picture is of little use to copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

DEFAULT_EXPONENT, DEFAULT_LEVEL = 5.0, 100.0  # of the published training


def condition_noise_level(
    timesteps: Tensor, normal: Tensor, *, exponent: float = DEFAULT_EXPONENT, level: float = DEFAULT_LEVEL
) -> Tensor:
    """How much noise a condition gets: β = β_m · sigmoid(y), y ~ N(2 τ^a − 1, 1), τ = t / 1000.

    Args:
        timesteps: t, (b,), 0 … 999.
        normal: standard normal, (b,), of which y is made.
        exponent: a; lower is more noise at low timesteps.
        level: β_m, the most.

    Returns:
        (b,).
    """
    mean = 2 * (timesteps / 1000) ** exponent - 1
    return level * torch.sigmoid(mean + normal)


def noise_condition(condition: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Condition (b, …) + β ε, not scaled down; ε like the condition, β (b,)."""
    return condition + level.view(-1, *(1,) * (condition.ndim - 1)) * noise
