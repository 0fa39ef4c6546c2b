"""Classifier-free guidance (arXiv:2207.12598): several passes through the network, weighed into one prediction.

Three passes exist, u with neither prompt nor picture, i with the picture alone, c with both, and

    u + g_image (i − u) + g_text (c − i)  =  (1 − g_image) u + (g_image − g_text) i + g_text c.

With one scale for both, i drops out: u + g (c − u). A pass of weight 0 need not be made, so a scale of 1 saves time.
(arXiv:2310.12190, sec. 3; two scales as in arXiv:2211.09800, eq. 3)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.presets import EVERY_TIMESTEP, check_interval

PassName = Literal["unconditional", "image", "conditional"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPlan:
    """The passes that a guided prediction needs, and what becomes of them.

    Attributes:
        passes: those needed of "unconditional", "image", "conditional", in this order.
        weights: of each pass; they add up to 1. 0 where only the pass's contrast is needed.
        rescale: 0 … 1, see `rescale_guidance`; 0 where it would change nothing.
        interval: the first and the last timestep, from 0, at which the prediction is guided (arXiv:2404.07724).
    """

    passes: tuple[PassName, ...]
    weights: tuple[float, ...]
    rescale: float = 0.0
    interval: tuple[int, int] = EVERY_TIMESTEP

    @property
    def guidance(self) -> float:
        """Scale of the prompt."""
        return dict(zip(self.passes, self.weights, strict=True)).get("conditional", 0.0)

    def at(self, timestep: int) -> PassPlan:
        """The plan for one timestep: this one within the interval, and outside it the conditional pass alone."""
        low, high = self.interval
        return self if low <= timestep <= high else UNGUIDED

    def rescaled_to(self, guidance: float) -> PassPlan:
        """The plan for what is left of a run, with another scale of the prompt; up to 1 unguided, as in diffusers.

        A picture's own scale stays.

        Raises:
            InputError: the scale is no number of 0 or more, or needs passes that this plan has not.
        """
        weights = dict(zip(self.passes, self.weights, strict=True))
        image = 1 - weights.get("unconditional", 0.0) if "image" in weights else None
        interval = None if self.interval == EVERY_TIMESTEP else self.interval
        plan = UNGUIDED if guidance <= 1 else plan_passes(guidance, image, rescale=self.rescale, interval=interval)
        if not set(plan.passes) <= set(self.passes):
            raise InputError(
                f"guidance_scale can't become {guidance} in a callback of a run that began without guidance; "
                f"begin it with a guidance_scale above 1."
            )
        return plan


UNGUIDED = PassPlan(passes=("conditional",), weights=(1.0,))


def plan_passes(
    guidance: float,
    image_guidance: float | None = None,
    *,
    rescale: float = 0.0,
    interval: tuple[int, int] | None = None,
) -> PassPlan:
    """Decide which passes a guided prediction needs.

    Args:
        guidance: scale of the prompt, and of the picture too unless it has its own; 0 or more, 1 for no guidance.
        image_guidance: scale of the picture; 0 or more.
        rescale: 0 … 1, how far the prediction's contrast is brought back to the conditional pass's.
        interval: timesteps at which guidance works; None for all.

    Raises:
        InputError: a scale is negative or not finite, or `rescale` or `interval` is outside its range.
    """
    _require_scale("guidance_scale", guidance)
    if image_guidance is None:
        image_guidance = guidance
    _require_scale("image_guidance_scale", image_guidance)
    if not 0 <= rescale <= 1:
        raise InputError(f"guidance_rescale must be between 0 and 1, got {rescale}; try 0.7.")

    interval = EVERY_TIMESTEP if interval is None else interval
    check_interval(interval)
    weights: dict[PassName, float] = {
        "unconditional": 1 - image_guidance,
        "image": image_guidance - guidance,
        "conditional": guidance,
    }
    needed = {name for name, weight in weights.items() if weight != 0}
    if needed == {"conditional"}:
        rescale = 0.0  # the prediction is the conditional pass, whose contrast it would take
    if rescale > 0 or interval != EVERY_TIMESTEP:
        needed.add("conditional")
    kept = {name: weight for name, weight in weights.items() if name in needed}
    return PassPlan(passes=tuple(kept), weights=tuple(kept.values()), rescale=rescale, interval=interval)


def combine(outputs: Mapping[str, Tensor], plan: PassPlan, *, damped: Tensor | None = None) -> Tensor:
    """Weigh the passes' predictions into one, and rescale it where the plan says so.

    Args:
        outputs: for each pass of the plan its prediction, (b, …), of any floating-point type.
        damped: a second unconditional prediction, from which the guided difference starts instead of from the first
            (arXiv:2310.07702, eq. 8).

    Returns:
        (b, …), float32, or float64 where the predictions are.
    """
    # Large weights of either sign cancel: half precision would leave little of the difference.
    full = {name: outputs[name].to(torch.promote_types(outputs[name].dtype, torch.float32)) for name in plan.passes}
    terms = [weight * full[name] for name, weight in zip(plan.passes, plan.weights, strict=True)]
    if damped is not None:
        terms += [damped.to(terms[0].dtype), -full["unconditional"]]
    guided = torch.stack(terms).sum(0)
    if plan.rescale > 0:
        guided = rescale_guidance(guided, full["conditional"], plan.rescale)
    return guided


def rescale_guidance(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    """Bring the contrast that guidance raised back towards the conditional prediction's.

    arXiv:2305.08891, eq. 15 and 16.

    Args:
        guided, conditional: (b, …); standard deviations are taken over everything but the batch.
        rescale: 0 changes nothing, 1 gives the conditional prediction's standard deviation.
    """
    axes = tuple(range(1, guided.ndim))
    ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (rescale * ratio + (1 - rescale))


def _require_scale(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name} must be a number of 0 or more, got {value}; try 7.5, or 1 for no guidance.")
