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
    image_latents: Tensor,
    text_context: Tensor,
    image_context: Tensor,
    motion: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the network's prediction, for every sample by itself.

    Args:
        unet: called as `DynamiCrafterUNet` is; may be wrapped for training in parallel.
        scheduler: gives the noise levels and says what the network predicts.
        latents: clean latents of the clips, (b, 4, f, h, w).
        noise: standard normal, like `latents`.
        timesteps: (b,), 0 … 999.
        image_latents: what each frame is conditioned on, (b, 4, f, h, w); neither rescaled nor noised.
        text_context: (b, n, c).
        image_context: (b, f, m, c).
        motion: (b,); None for the network's default.

    Returns:
        (b,), float32.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prediction = unet(torch.cat([noisy, image_latents], dim=1), timesteps, text_context, image_context, motion)
    target = scheduler.get_target(latents, noise, timesteps)
    return (prediction.float() - target.float()).square().mean(dim=(1, 2, 3, 4))
