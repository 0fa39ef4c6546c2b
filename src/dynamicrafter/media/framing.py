"""From any picture to a frame of the wanted size, and between uint8 frames and tensors in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.media.fit import Fit

if TYPE_CHECKING:
    from torch import Tensor

BAR_LEVEL = 128  # mid-grey, which is 0 in [-1, 1]: the picture that the networks take for "no picture"
_LARGEST_SCALED = 100_000_000  # pixels of a whole scaled picture, above which only the wanted part is computed


def frame_picture(picture: Image.Image, size: tuple[int, int], *, fit: Fit = "cover") -> np.ndarray:
    """Bring a picture to a frame's size.

    Args:
        picture: any size, mode RGB, upright (see `read_picture`).
        size: (height, width) in pixels.
        fit: "cover" scales until the frame is filled and crops the centre; "contain" scales until the whole picture
            fits and fills the rest with mid-grey bars; "stretch" gives up the picture's proportions.

    Returns:
        uint8 (height, width, 3), a fresh array.

    Raises:
        InputError: size, fit or the picture's mode is not as above.
    """
    if picture.mode != "RGB":
        raise InputError(f"picture must have mode RGB, got {picture.mode}; pass it through read_picture.")
    return _framed(picture, size, fit)


def frame_floats(pixels: np.ndarray, size: tuple[int, int], *, fit: Fit = "cover") -> np.ndarray:
    """Bring float pixels (h, w, 3) in [0, 1] to a frame's size, as `frame_picture` does, without rounding to 8 bits.

    Returns:
        float32 (height, width, 3), a fresh array.
    """
    bands = (Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(pixels.astype(np.float32), -1, 0))
    return np.stack([_framed(band, size, fit) for band in bands], axis=-1)


def _framed(picture: Image.Image, size: tuple[int, int], fit: Fit) -> np.ndarray:
    height, width = _checked_size(size)
    if fit == "cover":
        return _cover(picture, height, width)
    if fit == "contain":
        return _contain(picture, height, width)
    if fit == "stretch":
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
    raise InputError(f"fit must be one of {', '.join(get_args(Fit))}, got {fit!r}.")


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    if height < 1 or width < 1:
        raise InputError(f"size must be a positive (height, width) in pixels, got ({height}, {width}).")
    return height, width


def _cover(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """Scale, truncating the longer side, then crop the centre, rounding half to even: the published crop's numbers."""
    if picture.width * height >= width * picture.height:
        scaled_width, scaled_height = picture.width * height // picture.height, height
    else:
        scaled_width, scaled_height = width, picture.height * width // picture.width
    left, top = round((scaled_width - width) / 2), round((scaled_height - height) / 2)
    if scaled_width * scaled_height <= _LARGEST_SCALED:
        scaled = picture.resize((scaled_width, scaled_height), Image.Resampling.BILINEAR)
        return np.array(scaled.crop((left, top, left + width, top + height)))
    # A strip of 1×5000 would scale to gigabytes, nearly all of them cropped away: resample the crop alone. It is the
    # same picture but for the rounding of a few pixels by one level, which is why it is not the rule.
    x_step, y_step = picture.width / scaled_width, picture.height / scaled_height
    right = min((left + width) * x_step, picture.width)
    bottom = min((top + height) * y_step, picture.height)
    box = (left * x_step, top * y_step, right, bottom)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _contain(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """Scale the picture to lie inside the frame, at least one pixel thick, between mid-grey bars."""
    scale = min(height / picture.height, width / picture.width)
    inner_height = min(max(round(picture.height * scale), 1), height)
    inner_width = min(max(round(picture.width * scale), 1), width)
    scaled = np.asarray(picture.resize((inner_width, inner_height), Image.Resampling.BILINEAR))
    level = BAR_LEVEL if scaled.dtype == np.uint8 else BAR_LEVEL / 255
    frame = np.full((height, width, *scaled.shape[2:]), level, scaled.dtype)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    frame[top : top + inner_height, left : left + inner_width] = scaled
    return frame


def to_tensor(frames: np.ndarray) -> Tensor:
    """Turn uint8 frames into the tensor that the networks read.

    Args:
        frames: uint8 (h, w, 3), or (f, h, w, 3) for a clip.

    Returns:
        float32 in [-1, 1], (c, h, w) or (c, f, h, w): level / 255 · 2 − 1.

    Raises:
        InputError: another type or shape.
    """
    import torch

    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        raise InputError(
            f"frames must be uint8 of shape (h, w, 3) or (f, h, w, 3), got {frames.dtype} of shape {frames.shape}."
        )
    channels_first = np.ascontiguousarray(np.moveaxis(frames, -1, 0))
    return torch.from_numpy(channels_first).float() / 255 * 2 - 1


def to_uint8(video: Tensor) -> np.ndarray:
    """Turn the autoencoder's pixels into uint8 frames: clamp to [-1, 1], then round (x + 1) · 127.5.

    Args:
        video: (c, f, h, w) or (b, c, f, h, w) with c = 3, any float type, about [-1, 1].

    Returns:
        uint8 (f, h, w, 3) or (b, f, h, w, 3).

    Raises:
        InputError: another shape, or the video holds a value that is no finite number.
    """
    if video.ndim not in (4, 5) or video.shape[-4] != 3:
        raise InputError(f"video must have shape (3, f, h, w) or (b, 3, f, h, w), got {tuple(video.shape)}.")
    video = video.detach().float()
    if not video.isfinite().all():
        raise InputError(
            "video must hold finite numbers, but some are NaN or infinite; "
            "if a network ran in float16, run it in bfloat16 or float32; else its weights may be damaged."
        )
    levels = ((video.clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(levels.movedim(-4, -1).cpu().numpy())
