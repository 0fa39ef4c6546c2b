"""Sizes of an autoencoder's latents and tiles, whichever autoencoder it is."""

from __future__ import annotations

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.models.tiles import TILE
from dynamicrafter.presets import LARGEST_SIDE

Autoencoder = AutoencoderKL | AutoencoderTiny | PatchAutoencoder


def pixels_of_a_latent(vae: Autoencoder) -> int:
    """Pixels along one side of a latent."""
    if isinstance(vae, PatchAutoencoder):
        return vae.config["patch_size"]
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def tile_pixels(vae: Autoencoder) -> int:
    """Longest side of a tile; the small autoencoder, whose latents depend on the place in the frame, is not tiled."""
    return LARGEST_SIDE if isinstance(vae, PatchAutoencoder) else TILE * pixels_of_a_latent(vae)
