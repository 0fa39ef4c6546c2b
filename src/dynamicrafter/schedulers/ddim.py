"""DynamiCrafter's noise schedule and latent scale with every sampler, as a diffusers scheduler."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Generator, Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.presets import (
    NUM_TRAIN_TIMESTEPS,
    Prediction,
    Preset,
    Spacing,
)
from dynamicrafter.randomness import draw
from dynamicrafter.samplers import DDIM, Sampler, check_eta, get_sampler
from dynamicrafter.schedulers.noise import Level, NoiseSchedule, multistep_timesteps, noise_schedule, spaced_timesteps
from dynamicrafter.schedulers.prediction import predict, prediction_target, unknown_prediction
from dynamicrafter.schedulers.solvers import Solver, new_solver


@dataclass
class DynamiCrafterSchedulerOutput(BaseOutput):
    """One sampling step's result.

    Attributes:
        prev_sample: the latent at the next, quieter timestep, (b, c, f, h, w).
        pred_original_sample: the predicted clean latent, (b, c, f, h, w); with DDIM at that timestep's latent scale.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class DynamiCrafterScheduler(SchedulerMixin, ConfigMixin):
    """Noises clean latents for training, and leads noise back to clean latents in 1 to 1000 steps of any sampler.

    Args:
        num_train_timesteps: noise levels the network was trained on.
        beta_start, beta_end: share of the variance replaced by noise at the first and the last of them.
        prediction_type: what the network answers; see `predict`.
        zero_terminal_snr: whether the last level is pure noise (arXiv:2305.08891).
        base_scale: factor of clean latents at high noise; None for no rescale.
        timestep_spacing: see `spaced_timesteps`.
        ends_clean: whether DDIM's last step leaves latents at the scale of clean ones, as VideoCrafter does; else it
            leaves them at that of the last timestep, as DynamiCrafter does.

    Raises:
        InputError: a value breaks its rule, or the prediction says nothing at a level of pure noise.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = NUM_TRAIN_TIMESTEPS,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        prediction_type: Prediction = "v_prediction",
        zero_terminal_snr: bool = True,
        base_scale: float | None = 0.7,
        timestep_spacing: Spacing = "uniform_trailing",
        ends_clean: bool = False,
    ) -> None:
        if num_train_timesteps < 2:
            raise InputError(f"num_train_timesteps must be at least 2, got {num_train_timesteps}; try 1000.")
        if not 0 < beta_start <= beta_end < 1:
            raise InputError(
                f"beta_start and beta_end must be 0 < beta_start ≤ beta_end < 1, got {beta_start} and {beta_end}; "
                f"try 0.00085 and 0.012."
            )
        if prediction_type not in get_args(Prediction):
            raise unknown_prediction(prediction_type)
        if prediction_type == "epsilon" and zero_terminal_snr:
            raise InputError(
                "prediction_type must not be epsilon with zero_terminal_snr, as pure noise tells nothing of the clean "
                "latent; try v_prediction."
            )
        if base_scale is not None and not 0 < base_scale <= 1:
            raise InputError(f"base_scale must be above 0 and at most 1, or None, got {base_scale}.")
        self._prediction: Prediction = prediction_type
        self._spacing: Spacing = timestep_spacing
        self._schedule: NoiseSchedule = noise_schedule(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            zero_terminal_snr=zero_terminal_snr,
            base_scale=base_scale,
        )
        self.sampler: Sampler = DDIM
        self._use(spaced_timesteps(num_train_timesteps, spacing=timestep_spacing, num_train_timesteps=len(self)))
        self.num_inference_steps: int | None = None

    def __len__(self) -> int:
        return len(self._schedule.alphas)

    @classmethod
    def from_preset(cls, preset: Preset) -> DynamiCrafterScheduler:
        """The scheduler that a released checkpoint was trained with."""
        return cls(
            prediction_type=preset.prediction,
            zero_terminal_snr=preset.zero_terminal_snr,
            base_scale=preset.base_scale,
            timestep_spacing=preset.spacing,
            ends_clean=preset.ends_clean,
        )

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: str | torch.device | None = None,
        *,
        sampler: Sampler = DDIM,
        start_step: int | None = None,
    ) -> None:
        """Choose the timesteps of the next run; `timesteps` then holds them in the order of sampling, (n,), int64.

        Args:
            sampler: that `step` goes by; DDIM takes the published spacing, the others `multistep_timesteps`.
            start_step: how many of the training timesteps, from the quietest, the run is spread over; None for all.
                Fewer leave out the noisiest, which lets more move (arXiv:2406.15735, §4.1).

        Raises:
            InputError: not a whole number between 1 and `start_step`, a start step that there is not, or no such
                sampler.
        """
        start = len(self) if start_step is None else start_step
        if isinstance(start, bool) or not isinstance(start, int) or not 1 <= start <= len(self):
            raise InputError(f"start_step must be a whole number between 1 and {len(self)}, got {start!r}; try 940.")
        if get_sampler(sampler).multistep:
            steps = multistep_timesteps(num_inference_steps, num_train_timesteps=start)
        else:
            steps = spaced_timesteps(num_inference_steps, spacing=self._spacing, num_train_timesteps=start)
        self.sampler = sampler
        self._use(steps, device)
        self.num_inference_steps = num_inference_steps

    def scale_model_input(self, sample: Tensor, timestep: int | Tensor | None = None) -> Tensor:
        """The sample itself: the network reads latents of variance 1 at every level. For diffusers' interface."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        *,
        eta: float | None = None,
        noise: Tensor | None = None,
        generator: Generator | Sequence[Generator] | None = None,
        return_dict: bool = True,
    ) -> DynamiCrafterSchedulerOutput | tuple[Tensor, Tensor]:
        """Carry a latent from one timestep of the run to the next, by the sampler that was chosen with the timesteps.

        Multistep samplers remember earlier steps: theirs must come in the order of `timesteps`, and a run begins anew
        with the first of them. The last step ends on the level of timestep 0, with fresh noise where there is any, as
        the released code does.

        Args:
            model_output: the network's answer, (b, c, f, h, w), of any floating-point type.
            timestep: one of `timesteps`.
            sample: x_t, (b, c, f, h, w), float32 or float64.
            eta: 0 … 1; 0 is deterministic, 1 redraws as much noise as DDPM would; 0 alone with dpm++ and unipc. None
                for what the sampler was made for: 1 with dpm++sde, else 0.
            noise: fresh noise, (b, c, f, h, w), instead of the generator's.
            generator: one, or one for each sample; draws on its own device, and only where eta > 0.
            return_dict: False for a plain (prev_sample, pred_original_sample).

        Raises:
            InputError: an argument breaks its rule.
        """
        eta = get_sampler(self.sampler).eta or 0.0 if eta is None else eta
        check_eta(eta, self.sampler)
        _require_full_precision("sample", sample)
        _require_shape("model_output", model_output, sample.shape)
        if noise is not None:
            _require_shape("noise", noise, sample.shape)
        here, there = self._levels(timestep)
        if operator.index(timestep) == self._first:
            self._solver = new_solver(self.sampler)
        x0, eps = predict(model_output.to(sample.dtype), sample, here, prediction=self._prediction)
        fresh = None
        if eta > 0:
            fresh = (draw(sample.shape, generator) if noise is None else noise).to(sample.device, sample.dtype)
        result, clean = self._solver.advance(sample, x0, eps, here, there, eta=eta, noise=fresh)
        if not return_dict:
            return result, clean
        return DynamiCrafterSchedulerOutput(prev_sample=result, pred_original_sample=clean)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        """Noise clean latents for training: α_t s_t z + σ_t ε.

        Args:
            clean, noise: z and ε, (b, …); computed with in float32 where they hold less, and given back as they came.
            timesteps: (b,), or one for all, whole numbers, 0 … `num_train_timesteps` − 1.

        Raises:
            InputError: an argument breaks its rule.
        """
        full, noise, level = self._training_levels(clean, noise, timesteps)
        return (level.alpha * (level.scale * full) + level.sigma * noise).to(clean.dtype)

    def get_velocity(self, clean: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        """v = α_t ε − σ_t s_t z, whatever this scheduler's network predicts. Arguments as in `add_noise`."""
        full, noise, level = self._training_levels(clean, noise, timesteps)
        return prediction_target(full, noise, level, prediction="v_prediction").to(clean.dtype)

    def get_target(self, clean: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        """What this scheduler's network should answer for `add_noise` of the same arguments."""
        full, noise, level = self._training_levels(clean, noise, timesteps)
        return prediction_target(full, noise, level, prediction=self._prediction).to(clean.dtype)

    def level(self, timestep: int) -> Level[float]:
        """Signal, noise and latent scale of a training timestep, 0 … `num_train_timesteps` − 1."""
        return self._schedule.level(timestep)

    @property
    def final_scale(self) -> float:
        """Latent scale at which the run that `set_timesteps` chose leaves its latents; 1 is that of clean ones."""
        return self._levels(self.timesteps[-1])[1].scale

    def _use(self, steps: list[int], device: str | torch.device | None = None) -> None:
        self.timesteps = torch.tensor(steps, dtype=torch.int64, device=device)
        self._first = steps[0]
        self._solver: Solver = new_solver(self.sampler)
        self._next: dict[int, int | None] = dict(zip(steps, [*steps[1:], None], strict=True))

    def _levels(self, timestep: int | Tensor) -> tuple[Level[float], Level[float]]:
        """The levels of a timestep and of the one after it in the run."""
        try:
            key = operator.index(timestep)
            following = self._next[key]
        except (TypeError, KeyError):
            raise InputError(
                f"timestep must be one of the {len(self._next)} that set_timesteps chose, got {timestep!r}; "
                f"take it from scheduler.timesteps."
            ) from None
        here = self._schedule.level(key)
        if following is not None:
            return here, self._schedule.level(following)
        end = self._schedule.level(0)
        # DynamiCrafter's code leaves the last clean latent at its own level's scale, and DDIM repeats its results.
        ends_clean = get_sampler(self.sampler).multistep or self.config["ends_clean"]
        return here, end if ends_clean else replace(end, scale=here.scale)

    def _training_levels(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor | int
    ) -> tuple[Tensor, Tensor, Level[Tensor]]:
        """Clean latents and noise in at least float32, and the level of each sample."""
        if not clean.is_floating_point():
            raise InputError(f"clean must be floating-point latents, got {clean.dtype}; call .float() on it.")
        _require_shape("noise", noise, clean.shape)
        chosen = torch.as_tensor(timesteps).reshape(-1)
        if len(chosen) not in (1, len(clean)):
            raise InputError(f"timesteps must be one or {len(clean)}, as many as samples, got {len(chosen)}.")
        if chosen.is_floating_point() or ((chosen < 0) | (chosen >= len(self))).any():
            raise InputError(f"timesteps must be whole numbers between 0 and {len(self) - 1}, got {chosen.tolist()}.")
        full = clean.to(torch.promote_types(clean.dtype, torch.float32))
        return full, noise.to(full.dtype), self._schedule.levels(chosen, like=full)


def _require_full_precision(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        # Half precision would round away what a step at low noise changes.
        raise InputError(f"{name} must be float32 or float64, got {tensor.dtype}; call .float() on it.")


def _require_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise InputError(f"{name} must have the shape {tuple(shape)}, got {tuple(tensor.shape)}.")
