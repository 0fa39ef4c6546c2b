"""One walk from noise to a clean latent, by any of the samplers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from dynamicrafter.randomness import draw
from dynamicrafter.samplers import DDIM, UNIPC, check_eta
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.multistep import DPMSolver, UniPC


class SamplingRun:
    """A walk through the timesteps that `scheduler.set_timesteps` chose, by the sampler that was chosen with them.

    What a multistep sampler remembers from step to step lives here and ends with the run; the scheduler stays as it
    was, and several runs may go side by side.

    Args:
        scheduler: gives levels, the meaning of the network's output, and DDIM's own step.
        eta: 0 … 1, the share of fresh noise; 0 for dpm++ and unipc.

    Raises:
        InputError: an eta that the sampler can't take.

    Attributes:
        denoised: what the last step took for the clean latent, of the sample's shape.
    """

    denoised: Tensor

    def __init__(self, scheduler: DynamiCrafterScheduler, *, eta: float = 0.0) -> None:
        check_eta(eta, scheduler.sampler)
        self._scheduler = scheduler
        self._eta = eta
        self._solver: DPMSolver | UniPC | None = None
        if scheduler.sampler != DDIM:
            self._solver = UniPC() if scheduler.sampler == UNIPC else DPMSolver(eta=eta)

    def step(
        self,
        output: Tensor,
        timestep: int,
        sample: Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | Sequence[Generator] | None = None,
    ) -> Tensor:
        """Carry a latent from one timestep to the next; steps must come in the order of `scheduler.timesteps`.

        Args:
            output: the network's answer, (b, c, f, h, w).
            timestep: one of `scheduler.timesteps`.
            sample: x_t, (b, c, f, h, w), float32 or float64.
            noise: fresh noise instead of the generator's.
            generator: one, or one for each sample; draws only where eta > 0.

        Returns:
            The latent at the next, quieter timestep.

        Raises:
            InputError: an argument breaks its rule.
        """
        if self._solver is None:
            following, self.denoised = self._scheduler.step(
                output, timestep, sample, eta=self._eta, noise=noise, generator=generator, return_dict=False
            )
            return following
        x0, _, here, there = self._scheduler.read_off(output, timestep, sample)
        self.denoised = x0 / here.scale
        fresh = None
        if self._eta > 0:
            fresh = (draw(sample.shape, generator) if noise is None else noise).to(sample.device, sample.dtype)
        return self._solver.advance(sample, self.denoised, here, there, fresh)
