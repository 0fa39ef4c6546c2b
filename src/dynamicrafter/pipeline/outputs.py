"""Decoded videos in the form that the caller asked for."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from PIL import Image
from torch import Tensor

from dynamicrafter.media.framing import to_uint8
from dynamicrafter.pipeline.inputs import OutputType

Frames = list[list[Image.Image]] | np.ndarray | Tensor


def convert_frames(video: Tensor, output_type: OutputType) -> Frames:
    """Turn decoded videos (b, 3, f, h, w) in about [-1, 1] into an output type; every type but pt rounds, none cuts.

    Returns:
        "pil": a list of PIL images for each video. "uint8": (b, f, h, w, 3). "np": the same as float32 in [0, 1].
        "pt": (b, f, 3, h, w) float32 in [0, 1].

    Raises:
        InputError: the video holds NaN.
    """
    if output_type == "pt":
        return rearrange((video / 2 + 0.5).clamp(0, 1), "b c f h w -> b f c h w")
    if output_type == "np":
        return rearrange((video / 2 + 0.5).clamp(0, 1), "b c f h w -> b f h w c").cpu().numpy()
    arrays = np.stack([to_uint8(clip) for clip in video])
    if output_type == "uint8":
        return arrays
    return [[Image.fromarray(frame) for frame in clip] for clip in arrays]
