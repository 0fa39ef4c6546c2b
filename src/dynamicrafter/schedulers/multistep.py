"""Multistep samplers: DPM-Solver++(2M), its SDE form, and UniPC, on DynamiCrafter's noise levels.

The latent scale s_t is part of the signal: a noised latent is x = a z + σ ε with a = α_t s_t, and z is the clean
latent, whatever the level. With λ = log(a/σ), and h its growth on the way to the next level, the deterministic way
there is

    x′ = σ′/σ · x + a′ (1 − e^(−h)) · z̄,    z̄ a mean of z(λ) on the way, weighted by e^λ

(arXiv:2211.01095, prop. 4.1). Take z̄ = z as the network tells it here, and this is DDIM without fresh noise; let z go
on as it has changed since the level before, and the error falls with the square of the number of steps.

At zero terminal SNR λ begins at −∞. There e^(−h) is 0, and the first step is all the same exact in x. But no line in λ
can be drawn through that level's answer, so the step after it holds z still.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from dynamicrafter.schedulers.noise import Level


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """The clean latent z, (b, c, f, h, w), that the network predicts at one level λ."""

    log_snr: float
    clean: Tensor


@dataclass(frozen=True, slots=True)
class _Step:
    """One step as it was taken: the evaluations that it knew, its mean z̄, that mean's weight in x′, and h."""

    start: _Evaluation
    before: _Evaluation | None
    mean: Tensor
    weight: float
    growth: float


def log_snr(level: Level[float]) -> float:
    """λ = log(α s / σ); −∞ where there is no signal."""
    signal = level.alpha * level.scale
    return math.log(signal / level.sigma) if signal > 0 else -math.inf


def shrinkage(here: Level[float], there: Level[float]) -> float:
    """e^(−h) on the way from `here` to the quieter `there`; 0 from pure noise."""
    return (here.alpha * here.scale * there.sigma) / (here.sigma * there.alpha * there.scale)


class DPMSolver:
    """DPM-Solver++(2M), and SDE-DPM-Solver++(2M) where eta is above 0 (arXiv:2211.01095, alg. 2 and app. C).

    Holds the evaluation at the level before; a run needs a solver of its own.
    """

    def __init__(self) -> None:
        self._before: _Evaluation | None = None

    def advance(
        self,
        sample: Tensor,
        x0: Tensor,
        eps: Tensor | None,
        here: Level[float],
        there: Level[float],
        *,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `solvers.Solver.advance` says; ε is not read."""
        clean = x0 / here.scale
        start = _Evaluation(log_snr(here), clean)
        shrunk = shrinkage(here, there)
        kept = shrunk**eta
        mean = _continued(start, self._before, log_snr(there) - start.log_snr)
        result = (there.sigma / here.sigma * kept) * sample + (there.alpha * there.scale * (1 - shrunk * kept)) * mean
        if noise is not None:
            result = result + (there.sigma * math.sqrt(1 - kept**2)) * noise
        self._before = start
        return result, clean


class UniPC:
    """UniPC of order 2 with B(h) = e^h − 1 (arXiv:2302.04867, alg. 5 to 8): DPM-Solver++(2M), corrected afterwards.

    The evaluation at the end of a step, which the next step needs anyway, tells what z̄ should have been, to order 3.
    The correction is added to the latent that comes back, so that a caller may have changed it meanwhile. The last step
    has none. Holds the last step; a run needs a solver of its own.
    """

    def __init__(self) -> None:
        self._last: _Step | None = None

    def advance(
        self,
        sample: Tensor,
        x0: Tensor,
        eps: Tensor | None,
        here: Level[float],
        there: Level[float],
        *,
        eta: float = 0.0,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Correct the last step, then go on as `solvers.Solver.advance` says; it takes no fresh noise."""
        clean = x0 / here.scale
        start = _Evaluation(log_snr(here), clean)
        before = None
        if self._last is not None:
            sample = sample + self._last.weight * (_corrected(self._last, clean) - self._last.mean)
            before = self._last.start
        growth = log_snr(there) - start.log_snr
        mean = _continued(start, before, growth)
        weight = there.alpha * there.scale * (1 - shrinkage(here, there))
        self._last = _Step(start, before, mean, weight, growth)
        return (there.sigma / here.sigma) * sample + weight * mean, clean


def _continued(start: _Evaluation, before: _Evaluation | None, growth: float) -> Tensor:
    """z̄ of a step that begins at `start`, if z goes on as it came from `before`."""
    if before is None or math.isinf(before.log_snr):
        return start.clean
    slope = growth / (start.log_snr - before.log_snr)
    return start.clean + slope / 2 * (start.clean - before.clean)


def _corrected(step: _Step, end: Tensor) -> Tensor:
    """z̄ of a step whose end is known too: the parabola in λ through three evaluations, or the mean of two."""
    change = end - step.start.clean
    if step.before is None or math.isinf(step.before.log_snr):
        return step.start.clean + change / 2
    # Of a function of λ/h, 0 at the start and 1 at the end, that is u or u² on the way, e^λ's weights make these means.
    h = step.growth
    total = 1 / -math.expm1(-h)
    first = total - 1 / h
    second = total - 2 / h * first
    back = (step.start.log_snr - step.before.log_snr) / h
    at_end = (second + back * first) / (1 + back)
    at_before = (second - first) / (back * (1 + back))
    return step.start.clean + at_end * change + at_before * (step.before.clean - step.start.clean)
