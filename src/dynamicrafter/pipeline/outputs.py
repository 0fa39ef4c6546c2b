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
    """Turn decoded videos (b, 3, f, h, w), clamped to [-1, 1], into an output type.

    Returns:
        "pil": a list of PIL images for each video. "uint8": (b, f, h, w, 3), rounded. "np": (b, f, h, w, 3), float32 in
        [0, 1], not rounded. "pt": (b, f, 3, h, w), likewise, on the video's device.

    Raises:
        InputError: pictures are asked for ("pil" or "uint8"), and the video holds what is no finite number.
    """
    if output_type == "pt":
        return rearrange((video / 2 + 0.5).clamp(0, 1), "b c f h w -> b f c h w")
    if output_type == "np":
        return rearrange((video / 2 + 0.5).clamp(0, 1), "b c f h w -> b f h w c").cpu().numpy()
    arrays = to_uint8(video)
    if output_type == "uint8":
        return arrays
    return [[Image.fromarray(frame) for frame in clip] for clip in arrays]
