"""The training objective as one pure function.

Clean latents z are shrunk by the latent rescale s_t and noised, x_t = α_t s_t z + σ_t ε; the network answers v, ε or
x₀, and its squared error is the loss. (arXiv:2310.12190, eq. 1; v from arXiv:2202.00512; s_t from the released code's
`base_scale`)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler


def denoising_loss(
    unet: nn.Module,
    scheduler: DynamiCrafterScheduler,
    latents: Tensor,
    *,
    noise: Tensor,
    timesteps: Tensor,
    image_latents: Tensor | None,
    text_context: Tensor,
    image_context: Tensor | None,
    motion: Tensor | None = None,
    frame_weights: Tensor | None = None,
    frame_mean_weight: float = 0.0,
) -> Tensor:
    """Mean squared error of the network's prediction, for every sample by itself.

    The published objective, unless frames are weighed or their means counted, which young networks gain from: a clip's
    first frame is what its viewer compares with the picture, and the mean of a frame is its colour, whose error from
    frame to frame is seen as flicker though it hardly counts among all pixels.

    Args:
        unet: called as `DynamiCrafterUNet` is; may be wrapped for training in parallel.
        scheduler: gives the noise levels and says what the network predicts.
        latents: clean latents of the clips, (b, 4, f, h, w).
        noise: standard normal, like `latents`.
        timesteps: (b,), 0 … 999.
        image_latents: what each frame is conditioned on, (b, 4, f, h, w), not rescaled; None for a network that takes
            none.
        text_context: (b, n, c).
        image_context: (b, f, m, c); None for a network that reads no picture.
        motion: (b,); None for the network's default.
        frame_weights: (b, f), how much each frame counts in the mean over frames; None for all alike.
        frame_mean_weight: of the squared error of each frame's mean over its pixels, added to that of the pixels.

    Returns:
        (b,), float32.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    sample = noisy if image_latents is None else torch.cat([noisy, image_latents], dim=1)
    prediction = unet(sample, timesteps, text_context, image_context, motion)
    target = scheduler.get_target(latents, noise, timesteps)
    error = prediction.float() - target.float()
    if frame_weights is None and frame_mean_weight == 0:
        return error.square().mean(dim=(1, 2, 3, 4))
    by_frame = error.square().mean(dim=(1, 3, 4)) + frame_mean_weight * error.mean(dim=(3, 4)).square().mean(dim=1)
    if frame_weights is None:
        return by_frame.mean(dim=1)
    return (by_frame * frame_weights).sum(dim=1) / frame_weights.sum(dim=1)
