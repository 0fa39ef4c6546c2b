"""Clips as one picture carried through time, for autoencoders whose latents have displacements.

Such a clip's latents are those of the picture that it goes out from, on every frame, and where each frame looks in it:
known where the clip was made so, else found by optical flow (DIS, arXiv:1603.03590).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dynamicrafter.errors import InputError
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder

_SMALLEST = 16  # pixels along a side: below, flow has no pyramid to climb


def looks_of(pixels: Tensor, *, patch: int) -> Tensor:
    """Where each frame of a clip finds its content in the first frame, and in the last one.

    Args:
        pixels: (3, f, h, w), uint8.
        patch: pixels along the side of a latent; divides both sides.

    Returns:
        (2, f, 2, h / patch, w / patch), float32: pixels to the right and down, means over the patches.

    Raises:
        InputError: the frames are too small.
    """
    import cv2

    if min(pixels.shape[2:]) < _SMALLEST:
        raise InputError(f"frames must be at least {_SMALLEST} pixels high and wide, got {tuple(pixels.shape[2:])}.")
    frames = [np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()) for frame in pixels.unbind(1)]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [[_flow(finder, frame, source) for frame in grey] for source in (grey[0], grey[-1])]
    fields = torch.from_numpy(np.array(flows, dtype=np.float32)).permute(0, 1, 4, 2, 3)
    return F.avg_pool2d(fields.flatten(0, 1), patch).unflatten(0, fields.shape[:2])


def carried(vae: PatchAutoencoder, latents: Tensor, looks: Tensor, *, ends: bool) -> Tensor:
    """A clip's latents (c, f, h, w) as its first picture's, displaced; between ends, as those of the nearer one.

    Args:
        latents: of each frame by itself.
        looks: as `looks_of` finds them.
    """
    num_frames = latents.shape[1]
    middle = (num_frames + 1) // 2 if ends else num_frames
    sources = torch.zeros(num_frames, dtype=torch.long)
    sources[middle:] = num_frames - 1
    ways = torch.zeros(num_frames, dtype=torch.long)
    ways[middle:] = 1
    displaced = looks[ways, torch.arange(num_frames)].movedim(0, 1) / vae.config["displacement"]
    return torch.cat([latents[:-2, sources], displaced.to(latents)])


def _flow(finder: Any, frame: np.ndarray, source: np.ndarray) -> np.ndarray:
    if frame is source:
        return np.zeros((*frame.shape, 2), np.float32)
    return np.asarray(finder.calc(frame, source, None))
