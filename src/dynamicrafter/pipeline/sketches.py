"""Drawings that guide a clip's frames, through ToonCrafter's sketch encoder (arXiv:2405.17933, §3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.media.fit import Fit
from dynamicrafter.media.framing import frame_picture
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.models.sketch_encoder import SketchEncoder

SKETCH_SCALE = 0.6  # how much of the encoder's answer counts; the published default

Drawing = Image.Image | np.ndarray | None


def read_sketches(drawings: Sequence[Drawing], *, num_frames: int, height: int, width: int, fit: Fit) -> Tensor:
    """Drawings in dark lines on white as the encoder reads them: white lines on black.

    Args:
        drawings: one for each frame, None for a frame without; black, which means no lines, stands for it.
        fit: how a drawing of another shape fills the frame; as the pictures' own.

    Returns:
        (1, 1, f, height, width), float32 in [0, 1].

    Raises:
        InputError: not as many drawings as frames, or none at all.
    """
    if len(drawings) != num_frames:
        raise InputError(
            f"sketches must be one for each of the {num_frames} frames (None for a frame without), got {len(drawings)}."
        )
    if all(drawing is None for drawing in drawings):
        raise InputError("sketches must hold at least one drawing, got none; leave them out.")
    frames = torch.zeros(num_frames, height, width)
    for place, drawing in enumerate(drawings):
        if drawing is not None:
            framed = frame_picture(read_picture(drawing), (height, width), fit=fit)
            grey = np.asarray(Image.fromarray(np.asarray(framed)).convert("L"), dtype=np.float32)
            frames[place] = 1 - torch.from_numpy(grey.copy()) / 255
    return frames[None, None]


@dataclass(frozen=True, slots=True, eq=False)
class SketchGuide:
    """What guides a run: the encoder, the drawings, and the text that each guidance pass reads.

    Attributes:
        encoder: on the run's device, in the UNet's number format.
        sketches: (b, 1, f, 8h, 8w) in [0, 1].
        texts: for each pass (b, n, c): the text alone, as the ControlNet that the encoder descends from was trained.
        scale: 0 … 1.
    """

    encoder: SketchEncoder
    sketches: Tensor
    texts: Mapping[str, Tensor]
    scale: float = SKETCH_SCALE

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 1:
            raise InputError(f"sketch_scale must be between 0 and 1, got {self.scale}; try {SKETCH_SCALE}.")

    def control(self, name: str, latents: Tensor, timestep: int) -> list[Tensor]:
        """What one pass of a step adds to the UNet's features; latents are the noisy ones, (b, 4, f, h, w)."""
        text = self.texts[name]
        times = torch.full((len(latents),), timestep, device=latents.device)
        answers = self.encoder(latents.to(text.dtype), times, text, self.sketches.to(text.device, text.dtype))
        return [self.scale * answer for answer in answers]
