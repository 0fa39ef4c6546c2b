"""The samplers' steps by one door: what each makes of the network's answer on the way to the next level."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dynamicrafter.samplers import Sampler, get_sampler
from dynamicrafter.schedulers.noise import Level


class Solver(Protocol):
    """One run's way from level to level; what it remembers of earlier steps ends with it."""

    def advance(
        self,
        sample: Tensor,
        x0: Tensor,
        eps: Tensor,
        here: Level[float],
        there: Level[float],
        *,
        eta: float,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Carry a latent from `here` to the quieter `there`.

        Args:
            sample: x at `here`, (b, c, f, h, w).
            x0, eps: what the network says of it, as `predict` gives them.
            eta: 0 is deterministic, 1 redraws as much noise as DDPM would.
            noise: fresh noise, where `eta` is above 0.

        Returns:
            x at `there`, and the clean latent that the step went by.
        """
        ...


@dataclass(slots=True)
class DDIMSolver:
    """DDIM (arXiv:2010.02502, eq. 12): the predicted clean latent goes from one level's scale to the next one's."""

    def advance(
        self,
        sample: Tensor,
        x0: Tensor,
        eps: Tensor,
        here: Level[float],
        there: Level[float],
        *,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `Solver.advance` says."""
        x0 = x0 * (there.scale / here.scale)
        kept, fresh = ddim_coefficients(here, there, eta=eta)
        result = there.alpha * x0 + kept * eps
        return (result if noise is None else result + fresh * noise), x0


def new_solver(sampler: Sampler) -> Solver:
    """A solver of the sampler's for one run."""
    module, _, name = get_sampler(sampler).solver.partition(":")
    return getattr(importlib.import_module(module), name)()


def ddim_coefficients(here: Level[float], there: Level[float], *, eta: float) -> tuple[float, float]:
    """How much of the old noise is kept and how much fresh noise is added on the way from `here` to `there`.

    DDIM eq. 12 and 16 (arXiv:2010.02502).

    Args:
        here, there: the noisier and the quieter level.
        eta: 0 is deterministic, 1 redraws as much noise as DDPM would.

    Returns:
        Factors of the predicted and of the fresh noise; their squares add up to σ² of `there`.
    """
    fresh = eta * (there.sigma / here.sigma) * (1 - (here.alpha / there.alpha) ** 2) ** 0.5
    kept = max(there.sigma**2 - fresh**2, 0.0) ** 0.5  # exactly 0 at zero terminal SNR; rounding may dip below
    return kept, fresh
