"""Trains the small autoencoder on still pictures: principal components first, then everything by gradient."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dynamicrafter.data.synthetic.photos import held_out_photos
from dynamicrafter.data.synthetic.pictures import crop, resized, training_picture
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder

PICTURES = 400  # whose patches give the components; half as many, the latents' statistics
_PICTURE = 192  # pixels: crops are taken of these
_CROP = 64
_CROPS_OF_ONE = 4
_LATENT_NOISE = 0.03  # of unit variance: the decoder learns to forgive what the denoiser leaves


def train_autoencoder(
    autoencoder: PatchAutoencoder,
    *,
    seconds: float,
    batch_size: int = 16,
    lr: float = 1.5e-3,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> float:
    """Train in place for a stretch of time, and set the latents' statistics.

    Returns:
        PSNR on held-out photos at 128 px, dB.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    autoencoder.start_from_components(*principal_components(rng, autoencoder.config["latent_channels"]))
    to: Any = autoencoder.to
    to(memory_format=torch.channels_last)
    linear = [p for name, p in autoencoder.named_parameters() if name.startswith("linear")]
    others = [p for name, p in autoencoder.named_parameters() if not name.startswith("linear")]
    optimizer = torch.optim.AdamW(
        [{"params": linear, "share": 0.3}, {"params": others, "share": 1.0}], betas=(0.9, 0.99), weight_decay=1e-3
    )
    log(f"components alone: {held_out_psnr(autoencoder):.2f} dB")
    began = shown = time.monotonic()
    step = 0
    while (spent := time.monotonic() - began) < seconds:
        done = spent / seconds
        rate = (
            lr
            * min(1, (step + 1) / 100)
            * (1 if done < 0.3 else 0.02 + 0.49 * (1 + math.cos(math.pi * (done - 0.3) / 0.7)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        loss = _loss(autoencoder, _crops(rng, batch_size))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 0.5)
        optimizer.step()
        step += 1
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            log(f"{spent:.0f} s, step {step}: loss {loss.item():.4f}, held out {held_out_psnr(autoencoder):.2f} dB")
    set_statistics(autoencoder, rng)
    return held_out_psnr(autoencoder)


def principal_components(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (192,), directions (192, count) and standard deviations (count,) of patches of 8×8 pixels."""
    stills = np.stack([training_picture(rng, 128) for _ in range(PICTURES)])
    patches = F.pixel_unshuffle(to_signed(stills), 8).permute(0, 2, 3, 1).flatten(0, 2)
    mean = patches.mean(0)
    variance, directions = torch.linalg.eigh(torch.cov((patches - mean).T.double()))
    return mean, directions.flip(1)[:, :count].float(), variance.flip(0)[:count].sqrt().float()


@torch.no_grad()
def set_statistics(autoencoder: PatchAutoencoder, rng: np.random.Generator, *, power: float = 0.75) -> None:
    """Make the latents' mean zero and their standard deviations a gentle slope.

    Whitening would make the denoiser care as much for noise in the last component as for the picture's brightness;
    `power` 0.5 leaves them as they are, 1 gives the slope of the pixels' own variance.
    """
    stills = to_signed(np.stack([training_picture(rng, 128) for _ in range(PICTURES // 2)]))
    with torch.autocast("cpu", torch.bfloat16):
        latents = _raw_latents(autoencoder, stills).float()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    wanted = std ** (2 * power - 1)
    wanted = wanted / wanted.square().mean().sqrt()
    autoencoder.latent_mean.copy_(mean)
    autoencoder.latent_std.copy_(std / wanted)


@torch.no_grad()
def held_out_psnr(autoencoder: PatchAutoencoder, *, size: int = 128, crops_of_each: int = 8) -> float:
    """Mean PSNR of reconstructed crops of the held-out photos, dB."""
    pictures = to_signed(held_out_crops(size, crops_of_each))
    with torch.autocast("cpu", torch.bfloat16):
        (posterior,) = autoencoder.encode(pictures, return_dict=False)
        (decoded,) = autoencoder.decode(posterior.mean, return_dict=False)
    error = (decoded.float().clamp(-1, 1) - pictures).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()


def held_out_crops(size: int, crops_of_each: int) -> np.ndarray:
    """(n, size, size, 3): of each held-out photo its middle square, and random crops."""
    rng = np.random.default_rng(7)
    crops = []
    for _, photo in held_out_photos():
        height, width = photo.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        crops.append(resized(photo[top : top + side, left : left + side], size))
        crops += [crop(rng, photo, size) for _ in range(crops_of_each - 1)]
    return np.stack(crops)


def to_signed(pictures: np.ndarray) -> Tensor:
    """(n, h, w, 3), uint8 → (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _raw_latents(autoencoder: PatchAutoencoder, pixels: Tensor) -> Tensor:
    patches = F.pixel_unshuffle(pixels, autoencoder.config["patch_size"])
    return autoencoder.linear_in(patches) + autoencoder.branch_in(patches)


def _crops(rng: np.random.Generator, count: int) -> Tensor:
    crops = []
    while len(crops) < count:
        picture = training_picture(rng, _PICTURE)
        for top, left in rng.integers(0, _PICTURE - _CROP + 1, (_CROPS_OF_ONE, 2)):
            crops.append(picture[top : top + _CROP, left : left + _CROP])
    return to_signed(np.stack(crops[:count]))


def _late_cosine(done: float) -> float:
    """1 for the first 30 %, then down to 0.02 along a cosine."""
    return 1.0 if done < 0.3 else 0.02 + 0.49 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))


def _loss(autoencoder: PatchAutoencoder, pixels: Tensor) -> Tensor:
    """Absolute and squared error of pixels, and the absolute error of their differences, which keeps edges."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = _raw_latents(autoencoder, pixels)
        latents = latents + _LATENT_NOISE * torch.randn_like(latents)
        (decoded,) = autoencoder.decode(latents, return_dict=False)
    error = decoded.float() - pixels
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()
    return 0.5 * error.abs().mean() + 4 * error.square().mean() + 0.25 * edges
