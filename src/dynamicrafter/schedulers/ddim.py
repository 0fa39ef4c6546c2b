"""DDIM sampling (arXiv:2010.02502) with DynamiCrafter's noise schedule and latent scale, as a diffusers scheduler."""

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
    Sampler,
    Spacing,
    check_eta,
    check_sampler,
)
from dynamicrafter.randomness import draw
from dynamicrafter.schedulers.noise import Level, NoiseSchedule, multistep_timesteps, noise_schedule, spaced_timesteps
from dynamicrafter.schedulers.prediction import predict, prediction_target, unknown_prediction


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


@dataclass
class DynamiCrafterSchedulerOutput(BaseOutput):
    """One sampling step's result.

    Attributes:
        prev_sample: the latent at the next, quieter timestep, (b, c, f, h, w).
        pred_original_sample: the predicted clean latent at that timestep's latent scale, (b, c, f, h, w).
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class DynamiCrafterScheduler(SchedulerMixin, ConfigMixin):
    """Noises clean latents for training, and leads noise back to clean latents in 1 to 1000 DDIM steps.

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
        self.sampler: Sampler = "ddim"
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
        sampler: Sampler = "ddim",
        start_step: int | None = None,
    ) -> None:
        """Choose the timesteps of the next run; `timesteps` then holds them in the order of sampling, (n,), int64.

        Args:
            sampler: that the run will use; DDIM takes the published spacing, the others `multistep_timesteps`.
            start_step: how many of the training timesteps, from the quietest, the run is spread over; None for all.
                Fewer leave out the noisiest, which lets more move (arXiv:2406.15735, §4.1).

        Raises:
            InputError: not a whole number between 1 and `start_step`, a start step that there is not, or no such
                sampler.
        """
        check_sampler(sampler)
        start = len(self) if start_step is None else start_step
        if isinstance(start, bool) or not isinstance(start, int) or not 1 <= start <= len(self):
            raise InputError(f"start_step must be a whole number between 1 and {len(self)}, got {start!r}; try 940.")
        if sampler == "ddim":
            steps = spaced_timesteps(num_inference_steps, spacing=self._spacing, num_train_timesteps=start)
        else:
            steps = multistep_timesteps(num_inference_steps, num_train_timesteps=start)
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
        eta: float = 0.0,
        noise: Tensor | None = None,
        generator: Generator | Sequence[Generator] | None = None,
        return_dict: bool = True,
    ) -> DynamiCrafterSchedulerOutput | tuple[Tensor, Tensor]:
        """Carry a latent from one timestep of the run to the next.

        DDIM eq. 12 (arXiv:2010.02502); the predicted clean latent goes from this timestep's latent scale to the next
        one's. The last step ends on the level of timestep 0, with fresh noise, as the released code does.

        Args:
            model_output: the network's answer, (b, c, f, h, w), of any floating-point type.
            timestep: one of `timesteps`.
            sample: x_t, (b, c, f, h, w), float32 or float64.
            eta: 0 … 1; 0 is deterministic, 1 redraws as much noise as DDPM would.
            noise: fresh noise, (b, c, f, h, w), instead of the generator's.
            generator: one, or one for each sample; draws on its own device, and only where eta > 0.
            return_dict: False for a plain (prev_sample, pred_original_sample).

        Raises:
            InputError: an argument breaks its rule.
        """
        check_eta(eta)
        if noise is not None:
            _require_shape("noise", noise, sample.shape)
        x0, eps, here, there = self.read_off(model_output, timestep, sample)
        x0 = x0 * (there.scale / here.scale)
        kept, fresh = ddim_coefficients(here, there, eta=eta)
        result = there.alpha * x0 + kept * eps
        if eta > 0:
            drawn = draw(sample.shape, generator) if noise is None else noise
            result = result + fresh * drawn.to(sample.device, sample.dtype)
        if not return_dict:
            return result, x0
        return DynamiCrafterSchedulerOutput(prev_sample=result, pred_original_sample=x0)

    def read_off(
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor
    ) -> tuple[Tensor, Tensor, Level[float], Level[float]]:
        """What the network's answer says, for a sampler to go on from; arguments and errors as in `step`.

        Returns:
            x₀ (at this timestep's latent scale) and ε, (b, c, f, h, w), and the levels here and at the next timestep.
        """
        _require_full_precision("sample", sample)
        _require_shape("model_output", model_output, sample.shape)
        here, there = self._levels(timestep)
        x0, eps = predict(model_output.to(sample.dtype), sample, here, prediction=self._prediction)
        return x0, eps, here, there

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noise clean latents for training: α_t s_t z + σ_t ε.

        Args:
            clean, noise: z and ε, (b, …), float32 or float64.
            timesteps: (b,), whole numbers, 0 … `num_train_timesteps` − 1.

        Raises:
            InputError: an argument breaks its rule.
        """
        level = self._training_levels(clean, noise, timesteps)
        return level.alpha * (level.scale * clean) + level.sigma * noise

    def get_velocity(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = α_t ε − σ_t s_t z, whatever this scheduler's network predicts. Arguments as in `add_noise`."""
        level = self._training_levels(clean, noise, timesteps)
        return prediction_target(clean, noise, level, prediction="v_prediction")

    def get_target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What this scheduler's network should answer for `add_noise` of the same arguments."""
        level = self._training_levels(clean, noise, timesteps)
        return prediction_target(clean, noise, level, prediction=self._prediction)

    def level(self, timestep: int) -> Level[float]:
        """Signal, noise and latent scale of a training timestep, 0 … `num_train_timesteps` − 1."""
        return self._schedule.level(timestep)

    @property
    def final_scale(self) -> float:
        """Latent scale at which the run that `set_timesteps` chose leaves its latents; 1 is that of clean ones."""
        return self._levels(self.timesteps[-1])[1].scale

    def _use(self, steps: list[int], device: str | torch.device | None = None) -> None:
        self.timesteps = torch.tensor(steps, dtype=torch.int64, device=device)
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
        keeps_scale = self.sampler == "ddim" and not self.config["ends_clean"]
        return here, replace(end, scale=here.scale) if keeps_scale else end

    def _training_levels(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Level[Tensor]:
        _require_full_precision("clean", clean)
        _require_shape("noise", noise, clean.shape)
        _require_shape("timesteps", timesteps, clean.shape[:1])
        if timesteps.is_floating_point() or ((timesteps < 0) | (timesteps >= len(self))).any():
            raise InputError(
                f"timesteps must be whole numbers between 0 and {len(self) - 1}, got {timesteps.tolist()}."
            )
        return self._schedule.levels(timesteps, like=clean)


def _require_full_precision(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        # Half precision would round away what a step at low noise changes.
        raise InputError(f"{name} must be float32 or float64, got {tensor.dtype}; call .float() on it.")


def _require_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise InputError(f"{name} must have the shape {tuple(shape)}, got {tuple(tensor.shape)}.")
