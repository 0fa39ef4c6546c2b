"""Between pixels and latents, with any autoencoder that encodes and decodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from dynamicrafter.memory.tiles import Autoencoder, pixels_of_a_latent, tile_pixels
from dynamicrafter.models.tiles import OVERLAP, TILE, in_tiles
from dynamicrafter.models.toon_autoencoder import ToonAutoencoder


def encode_pictures(vae: Autoencoder, pixels: Tensor, noise: Tensor | None, *, tiled: bool = False) -> Tensor:
    """Latents of pictures, scaled as the UNet expects.

    Args:
        pixels: (b, 3, h, w) in [-1, 1], on the device to work on.
        noise: (b, 4, h/8, w/8), picks a sample of the posterior; None for its mean.
        tiled: one picture at a time, in tiles, which takes less memory and changes the result a little.

    Returns:
        (b, 4, h/8, w/8), float32.
    """

    coder: Any = vae  # of which diffusers annotates one kind of answer

    def posterior(part: Tensor) -> Tensor:
        (found,) = coder.encode(part, return_dict=False)
        if isinstance(found, Tensor):  # of AutoencoderTiny, which is no variational one
            return torch.cat([found, torch.zeros_like(found)], dim=1).float()
        return torch.cat([found.mean, found.std], dim=1).float()

    with _safe(vae):
        pixels = pixels.to(vae.dtype)
        if tiled and max(pixels.shape[2:]) > tile_pixels(vae):
            unit = pixels_of_a_latent(vae)
            parts = [in_tiles(posterior, picture, tile=TILE, overlap=OVERLAP, unit=unit) for picture in pixels.split(1)]
            mean, std = torch.cat(parts).chunk(2, dim=1)
        else:
            mean, std = posterior(pixels).chunk(2, dim=1)
    latents = mean if noise is None else mean + std * noise.to(mean)
    return latents * vae.config["scaling_factor"]


def decode_frames(vae: Autoencoder, latents: Tensor, *, chunk_size: int, tiled: bool = False) -> Tensor:
    """Frames of latents (b, 4, f, h, w): (b, 3, f, 8h, 8w), float32, about [-1, 1], not clamped.

    Args:
        chunk_size: frames decoded at a time; they don't see each other in the decoder.
        tiled: in tiles, which takes less memory and changes the result a little.
    """
    coder: Any = vae
    frames = rearrange(latents, "b c f h w -> (b f) c h w") / vae.config["scaling_factor"]
    factor = pixels_of_a_latent(vae)
    video = frames.new_empty(len(frames), 3, *(factor * side for side in frames.shape[2:]), dtype=torch.float32)

    def decode(part: Tensor) -> Tensor:
        pixels: Tensor = coder.decode(part, return_dict=False)[0]
        return pixels.float()

    with _safe(vae):
        chunks = frames.to(vae.dtype, memory_format=torch.channels_last).split(chunk_size)
        for chunk, place in zip(chunks, video.split(chunk_size), strict=True):
            if tiled and factor * max(chunk.shape[2:]) > tile_pixels(vae):
                place.copy_(in_tiles(decode, chunk, tile=TILE, overlap=OVERLAP))
            else:
                place.copy_(decode(chunk))
    return rearrange(video, "(b f) c h w -> b c f h w", b=latents.shape[0])


def decode_toon(vae: ToonAutoencoder, latents: Tensor, pictures: Tensor, *, tiled: bool = False) -> Tensor:
    """The same with ToonCrafter's decoder, which sees the first and the last picture, and all frames of a chunk.

    The pictures are encoded once more for it: their features would take more memory over the run than a second encoding
    takes time.

    Args:
        pictures: (b, 2, 3, 8h, 8w) in [-1, 1].
        tiled: in tiles, each with its parts of the pictures.
    """

    def decode(frames: Tensor, ends: Tensor) -> Tensor:
        _, references = vae.encode_with_references(ends)
        return vae.decode_twice(frames, references).float()

    scaled = latents / vae.config["scaling_factor"]
    factor, videos = pixels_of_a_latent(vae), []
    with _safe(vae):
        for clip, ends in zip(scaled.to(vae.dtype), pictures.to(vae.dtype), strict=True):
            frames = clip.transpose(0, 1)
            if tiled and factor * max(frames.shape[2:]) > tile_pixels(vae):
                video = in_tiles(decode, frames, tile=TILE, overlap=OVERLAP, beside=(ends,))
            else:
                video = decode(frames, ends)
            videos.append(video.transpose(0, 1))
    return torch.stack(videos)


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
