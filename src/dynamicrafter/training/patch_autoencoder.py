"""Makes the small autoencoder of still pictures: principal components of their patches, and the latents' statistics.

With so many components a linear code keeps more of a picture than the trained one of fewer that it replaced, and no
gradient can take edges away for the sake of smaller errors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dynamicrafter.data.synthetic.photos import held_out_photos
from dynamicrafter.data.synthetic.pictures import crop, photo_crop, resized, training_picture
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder

PICTURES = 3000  # whose patches give the components; a fifth of them, the latents' statistics
_PICTURE = 128  # pixels
_PLAIN = 0.7  # share of photos in their own colours, whose statistics count most


@torch.no_grad()
def fit_autoencoder(autoencoder: PatchAutoencoder, *, photos: Path | None = None, seed: int = 0) -> float:
    """Set an autoencoder without branches in place: its maps, and statistics that give every latent unit variance.

    Args:
        photos: a folder of photos to learn from beside the sample photos.
        seed: of the pictures.

    Returns:
        PSNR on held-out photos at 128 px, dB.
    """
    rng = np.random.default_rng(seed)
    stills = to_signed(np.stack([_still(rng, photos) for _ in range(PICTURES)]))
    count = autoencoder.linear_in.out_channels - (2 if autoencoder.config["position_slope"] else 0)
    autoencoder.start_from_components(*principal_components(stills, count, patch=autoencoder.config["patch_size"]))
    codes = autoencoder.code(stills[: max(1, PICTURES // 5)])
    autoencoder.latent_mean.copy_(codes.mean((0, 2, 3)))
    autoencoder.latent_std.copy_(codes.std((0, 2, 3)))
    autoencoder.latent_std[count:] = 1.0  # where positions stand, and nothing else
    return held_out_psnr(autoencoder)


def principal_components(stills: Tensor, count: int, *, patch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the patches of pictures (n, 3, h, w): mean (3·p²,), directions (3·p², count), standard deviations (count,)."""
    patches = F.pixel_unshuffle(stills, patch).permute(0, 2, 3, 1).flatten(0, 2)
    mean = patches.mean(0)
    variance, directions = torch.linalg.eigh(torch.cov((patches - mean).T.double()))
    return mean, directions.flip(1)[:, :count].float(), variance.flip(0)[:count].clamp(min=1e-8).sqrt().float()


@torch.no_grad()
def held_out_psnr(autoencoder: PatchAutoencoder, *, size: int = 128, crops_of_each: int = 8) -> float:
    """Mean PSNR of reconstructed crops of the held-out photos, dB."""
    pictures = to_signed(held_out_crops(size, crops_of_each))
    (posterior,) = autoencoder.encode(pictures, return_dict=False)
    (decoded,) = autoencoder.decode(posterior.mean, return_dict=False)
    error = (decoded.clamp(-1, 1) - pictures).square().mean((1, 2, 3))
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


def _still(rng: np.random.Generator, photos: Path | None) -> np.ndarray:
    make = photo_crop if rng.random() < _PLAIN else training_picture
    return make(rng, _PICTURE, photos)
