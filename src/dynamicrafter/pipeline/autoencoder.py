"""Between pixels and latents, with any autoencoder that encodes to a posterior and decodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from dynamicrafter.models.patch_autoencoder import PatchAutoencoder

Autoencoder = AutoencoderKL | PatchAutoencoder


def pixels_of_a_latent(vae: Autoencoder) -> int:
    """Pixels along one side of a latent."""
    if isinstance(vae, PatchAutoencoder):
        return vae.config["patch_size"]
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def encode_pictures(vae: Autoencoder, pixels: Tensor, noise: Tensor | None) -> Tensor:
    """Latents of pictures, scaled as the UNet expects.

    Args:
        pixels: (b, 3, h, w) in [-1, 1], on the device to work on.
        noise: (b, 4, h/8, w/8), picks a sample of the posterior; None for its mean.

    Returns:
        (b, 4, h/8, w/8), float32.
    """
    with _safe(vae):
        (posterior,) = vae.encode(pixels.to(vae.dtype), return_dict=False)
    latents = posterior.mean.float()
    if noise is not None:
        latents = latents + posterior.std.float() * noise.to(latents)
    return latents * vae.config["scaling_factor"]


def decode_frames(vae: Autoencoder, latents: Tensor, *, chunk_size: int) -> Tensor:
    """Frames of latents (b, 4, f, h, w): (b, 3, f, 8h, 8w), float32, about [-1, 1], not clamped.

    Args:
        chunk_size: frames decoded at a time; they don't see each other in the decoder.
    """
    frames = rearrange(latents, "b c f h w -> (b f) c h w") / vae.config["scaling_factor"]
    with _safe(vae):
        chunks = frames.to(vae.dtype, memory_format=torch.channels_last).split(chunk_size)
        decoded = [vae.decode(chunk, return_dict=False)[0].float() for chunk in chunks]
    return rearrange(torch.cat(decoded), "(b f) c h w -> b c f h w", b=latents.shape[0])


@contextmanager
def _safe(vae: Autoencoder) -> Iterator[None]:
    """Hold the autoencoder in float32 while it would overflow float16 into black pictures."""
    overflows = vae.dtype == torch.float16 and vae.config.get("force_upcast", True)
    if overflows:
        nn.Module.to(vae, torch.float32)
    try:
        yield
    finally:
        if overflows:
            nn.Module.to(vae, torch.float16)
