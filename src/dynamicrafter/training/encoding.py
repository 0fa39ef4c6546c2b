"""From clips to what the objective reads, by the pipeline's own steps and its frozen networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from dynamicrafter.architectures import CLIP_PIXELS
from dynamicrafter.data.stream import Sample
from dynamicrafter.errors import InputError
from dynamicrafter.media.clip_pixels import clip_pixels
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.text.tokenizer import tokenize
from dynamicrafter.training.carrying import carried, looks_of
from dynamicrafter.training.draws import TrainingDraws

_FRAMES_AT_ONCE = 8  # through the autoencoder, which holds hundreds of channels at full size


@dataclass(frozen=True, slots=True)
class Encoded:
    """One clip after the frozen networks, before chance has chosen from it.

    Attributes:
        mean, std: of the autoencoder's posterior, scaled as the UNet expects, (c, f, h, w), float32.
        text: of the caption: context (n, c), or tokens (n,).
        image: of some frames: the image encoder's tokens (k, n, c), or its input (k, 3, h, w).
        frames: which frames those are, in order, (k,).
        motion, key, between_ends: as in `Sample`.
        looks: as in `Sample`, found where it was not known, if the autoencoder's latents have displacements; else None.
    """

    mean: Tensor
    std: Tensor
    text: Tensor
    image: Tensor
    frames: Sequence[int]
    motion: float
    key: str
    between_ends: bool = False
    looks: Tensor | None = None


@dataclass(frozen=True, slots=True)
class NullEmbeddings:
    """What stands in for a dropped caption and picture, in the forms of `Encoded.text` and one row of its `image`."""

    text: Tensor
    image: Tensor


@torch.no_grad()
def encode_clip(pipeline: Any, sample: Sample, frames: Sequence[int], *, raw: bool = False) -> Encoded:
    """Encode one clip.

    Args:
        pipeline: its frozen networks on the device to work on.
        frames: whose image tokens to make; the first must be 0 for interpolation.
        raw: leave text and pictures as the encoders' inputs, for training those.
    """
    device = pipeline.vae.device
    pixels = rearrange(sample.pixels, "c f h w -> f c h w").to(device).float() / 127.5 - 1
    mean, std = _posterior(pipeline, pixels)
    return Encoded(
        mean=mean,
        std=std,
        text=_text(pipeline, sample.caption, raw=raw),
        image=_images(pipeline, pixels[list(frames)], raw=raw),
        frames=tuple(frames),
        motion=sample.motion,
        key=sample.key,
        between_ends=sample.between_ends,
        looks=_looks(pipeline.vae, sample),
    )


@torch.no_grad()
def encode_nothing(pipeline: Any, *, raw: bool = False) -> NullEmbeddings:
    """The empty prompt, and a grey picture, as an unconditional pass of the pipeline sees them."""
    grey = torch.zeros(1, 3, CLIP_PIXELS, CLIP_PIXELS, device=pipeline.vae.device)
    return NullEmbeddings(_text(pipeline, "", raw=raw), _images(pipeline, grey, raw=raw)[0])


def condition_frames(draws: TrainingDraws, num_frames: int, *, between_ends: bool = False) -> tuple[int, ...]:
    """The frames whose image tokens a sample needs: that of its condition picture, interpolation's being the first."""
    return (0,) if draws.ends or between_ends else (int(draws.frame * num_frames),)


def assemble(
    pipeline: Any,
    clips: Sequence[Encoded],
    draws: Sequence[TrainingDraws],
    nothing: NullEmbeddings,
    *,
    device: torch.device,
) -> dict[str, Tensor]:
    """A batch for `TrainingNetworks.forward`.

    A frame is chosen among those that were encoded, then the autoencoder's noise is drawn, then the diffusion's, each
    clip from its own generator and on the CPU.
    """
    rows = [_row(pipeline, clip, drawn, nothing) for clip, drawn in zip(clips, draws, strict=True)]
    return {name: torch.stack([row[name].to(device) for row in rows]) for name in rows[0]}


def _row(pipeline: Any, clip: Encoded, draws: TrainingDraws, nothing: NullEmbeddings) -> dict[str, Tensor]:
    shape = clip.mean.shape
    posterior = torch.randn(shape, generator=draws.generator)
    noise = torch.randn(shape, generator=draws.generator)
    latents = clip.mean + clip.std * posterior.to(clip.mean.device)
    ends = draws.ends or clip.between_ends
    place = 0 if ends else int(draws.frame * len(clip.frames))
    chosen = clip.frames[place]
    if clip.looks is not None:
        if chosen != 0:
            raise InputError("objective.condition must be first for a model that carries its picture, got random.")
        latents = carried(pipeline.vae, latents, clip.looks.to(latents), ends=ends)
    last = latents[None, :, -1] if ends else None
    given = torch.zeros(shape[1], dtype=torch.bool)
    given[[chosen] if last is None else [chosen, -1]] = True
    image_latents = pipeline.place_image_latents(latents[None, :, chosen], last, shape[1])[0]
    return {
        "latents": _windowed(latents, draws),
        "noise": _windowed(noise, draws),
        "timesteps": torch.tensor(draws.timestep),
        "image_latents": _windowed(image_latents, draws),
        "text": nothing.text if draws.drop_text else clip.text,
        "image": nothing.image if draws.drop_image else clip.image[place],
        "motion": torch.tensor(clip.motion, dtype=torch.float32),
        "given": given,
    }


def _windowed(latents: Tensor, draws: TrainingDraws) -> Tensor:
    """The part of latents (c, f, h, w) that is trained on."""
    if draws.window is None:
        return latents
    for dim, place in zip((2, 3), draws.place, strict=True):
        size = min(draws.window, latents.shape[dim])
        latents = latents.narrow(dim, int(place * (latents.shape[dim] - size + 1)), size)
    return latents


def _looks(vae: Any, sample: Sample) -> Tensor | None:
    if not isinstance(vae, PatchAutoencoder) or not vae.carries:
        return None
    return looks_of(sample.pixels, patch=vae.config["patch_size"]) if sample.looks is None else sample.looks


def _posterior(pipeline: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of frames (f, 3, h, w), each (c, f, h, w)."""
    means, stds = [], []
    scale = pipeline.vae.config["scaling_factor"]
    for frames in pixels.split(_FRAMES_AT_ONCE):
        (posterior,) = pipeline.vae.encode(frames.to(pipeline.vae.dtype), return_dict=False)
        means.append(posterior.mean.float() * scale)
        stds.append(posterior.std.float() * scale)
    return rearrange(torch.cat(means), "f c h w -> c f h w"), rearrange(torch.cat(stds), "f c h w -> c f h w")


def _text(pipeline: Any, caption: str, *, raw: bool) -> Tensor:
    if raw:
        length = pipeline.text_encoder.config.max_position_embeddings
        return tokenize([caption], length=length).ids[0].to(pipeline.text_encoder.device)
    return pipeline.encode_prompt([caption])[0]


def _images(pipeline: Any, pixels: Tensor, *, raw: bool) -> Tensor:
    """The image encoder's input for pictures (k, 3, h, w) in [-1, 1], or its answer, as `encode_image` has them."""
    inputs = clip_pixels(pixels).to(pipeline.image_encoder.dtype)
    return inputs if raw else pipeline.image_encoder(pixel_values=inputs).last_hidden_state
