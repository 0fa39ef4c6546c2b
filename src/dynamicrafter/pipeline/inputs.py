"""What a caller may hand the pipeline, checked and brought to one form before anything is computed."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from PIL import Image
from torch import Tensor

from dynamicrafter.checkpoints.networks import Dtypes
from dynamicrafter.errors import InputError
from dynamicrafter.media.fit import Fit
from dynamicrafter.media.framing import frame_floats, frame_picture, to_tensor
from dynamicrafter.media.pictures import opaque, read_picture
from dynamicrafter.memory.devices import choose_dtype
from dynamicrafter.memory.tiles import Autoencoder
from dynamicrafter.models.toon_autoencoder import ToonAutoencoder
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.presets import MAX_FRAMES, NUM_FRAMES

Picture = Image.Image | np.ndarray | Tensor
Pictures = Picture | Sequence[Picture]
OutputType = Literal["pil", "np", "pt", "uint8", "latent"]
OUTPUT_TYPES: tuple[OutputType, ...] = ("pil", "np", "pt", "uint8", "latent")


def check_frames(num_frames: int, *, least: int) -> None:
    """Raises InputError for a clip without frames, or one that is longer than any."""
    if not least <= num_frames <= MAX_FRAMES:
        raise InputError(f"num_frames must be between {least} and {MAX_FRAMES}, got {num_frames}; try {NUM_FRAMES}.")


def check_at_least_one(name: str, value: int) -> None:
    """Raises InputError for a count below 1."""
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}; try 1.")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises InputError where `value` is none of `choices`."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def check_pictures(
    unet: DynamiCrafterUNet, vae: Autoencoder, first: object, last: object, image_guidance: object, *, pinned: bool
) -> None:
    """Raises InputError where a model lacks a picture that it needs, or is given one that it doesn't read."""
    if not unet.config["reads_image"]:
        given = {"image": first, "last_image": last, "image_guidance_scale": image_guidance}
        given["pin_first_frame"] = pinned or None
        astray = next((name for name, value in given.items() if value is not None), None)
        if astray is not None:
            raise InputError(f"{astray} must be left out, as this model makes clips from text alone.")
        return
    if first is None:
        raise InputError("image must be a picture or a list of some, got none; give one, or take a model from text.")
    if last is not None and not unet.takes_image_latents:
        raise InputError("last_image must be left out, as this model reads the first picture alone.")
    if last is None and isinstance(vae, ToonAutoencoder):
        raise InputError("last_image must be a picture, as this model draws between two; give the last one too.")


def check_embeds(name: str, embeds: Tensor, *, count: int, length: int, width: int) -> None:
    """Raises InputError unless text context (b, n, c) has this length and width, and one row or `count`."""
    if embeds.ndim != 3 or embeds.shape[0] not in (1, count) or tuple(embeds.shape[1:]) != (length, width):
        rows = f"1 or {count}" if count > 1 else "1"
        raise InputError(f"{name} must be ({rows}, {length}, {width}), got {tuple(embeds.shape)}.")


def check_embeds_given(prompt: Tensor | None, negative: Tensor | None, *, guided: bool) -> None:
    """Raises InputError where embeddings are lacking that a pipeline without a text encoder can't make."""
    if prompt is None or (guided and negative is None):
        name = "prompt_embeds" if prompt is None else "negative_prompt_embeds"
        spare = "" if prompt is None else ", or guidance_scale=1"
        raise InputError(f"{name} must be given, as this pipeline has no text_encoder; pass it{spare}.")


def as_dtypes(given: Any) -> Dtypes:
    """A number format, or one for each component, of which each may be named.

    Raises:
        InputError: an unknown name.
    """
    if given is None or isinstance(given, torch.dtype):
        return given
    if isinstance(given, Mapping):
        named: dict[str, Any] = {name: as_dtypes(each) for name, each in given.items()}
        return named
    return choose_dtype(str(given).removeprefix("torch."), torch.device("cpu"))


def callback_inputs(callback: Any, names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """The tensors that a callback is shown: those that are named, or that diffusers' callback objects name themselves.

    Raises:
        InputError: a name that no step has.
    """
    if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
        names = callback.tensor_inputs
    unknown = set(names) - set(known)
    if unknown:
        raise InputError(
            f"callback_on_step_end_tensor_inputs may name {', '.join(known)}, got {', '.join(sorted(unknown))}."
        )
    return names


def changed_latents(changed: Mapping[str, Any], latents: Tensor, shown: Mapping[str, Tensor]) -> Tensor:
    """What a callback leaves of the latents.

    Args:
        changed: its answer.
        shown: what it was shown beside them. diffusers' own callbacks cut those to the guided half; more is not done.

    Raises:
        InputError: it changed something else.
    """
    for name, tensor in shown.items():
        other = changed.get(name)
        if other is not None and other is not tensor and not torch.equal(other, tensor[-len(other) :]):
            raise InputError(f"a callback may change latents, but not {name}, which are read once for the whole run.")
    return changed.get("latents", latents)


def check_generators(generator: Any) -> None:
    """Raises InputError for what is neither a random generator nor several of them."""
    several = generator if isinstance(generator, list | tuple) else [] if generator is None else [generator]
    strange = next((each for each in several if not isinstance(each, torch.Generator)), None)
    if strange is not None:
        raise InputError(
            f"generator must be a torch.Generator, or a list with one for each video, got {strange!r}; "
            f"for a seed, pass torch.Generator().manual_seed(SEED)."
        )


def as_pixels(pictures: Pictures, *, height: int, width: int, fit: Fit, name: str = "image") -> Tensor:
    """Bring pictures to the frame size.

    Args:
        pictures: one or several. PIL images and arrays (h, w, 3), uint8 or floats in [0, 1], of any size are framed,
            floats without rounding; tensors (3, h, w) or (b, 3, h, w) in [0, 1] must have the frame size already. A
            fourth channel is opacity, and what shows through is white.
        fit: how a picture of another shape fills the frame.
        name: how messages call the argument.

    Returns:
        (b, 3, height, width), float32 in [-1, 1].

    Raises:
        InputError: no picture, another type, a wrong shape or range.
    """
    if isinstance(pictures, Tensor):
        return _from_tensor(pictures, height, width, name)
    if isinstance(pictures, np.ndarray) and pictures.ndim == 4:
        pictures = list(pictures)
    listed = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
    if not listed:
        raise InputError(f"{name} must be a picture or a list of some, got an empty list.")
    rows = []
    for picture in listed:
        if isinstance(picture, Tensor):
            rows.append(_from_tensor(picture, height, width, name))
        elif isinstance(picture, np.ndarray) and np.issubdtype(picture.dtype, np.floating):
            framed = frame_floats(opaque(picture), (height, width), fit=fit)
            rows.append(torch.from_numpy(framed).movedim(-1, 0)[None] * 2 - 1)
        elif isinstance(picture, Image.Image | np.ndarray):
            rows.append(to_tensor(frame_picture(read_picture(picture), (height, width), fit=fit))[None])
        else:
            raise InputError(
                f"{name} must be a PIL image, an array or a tensor, got {type(picture).__name__}; "
                f"open files with PIL.Image.open first."
            )
    return torch.cat(rows)


def as_prompts(value: str | Sequence[str] | None, *, count: int, name: str) -> list[str]:
    """One prompt for each of `count` videos; a single one serves all.

    Raises:
        InputError: neither one nor `count` prompts.
    """
    prompts = [value or ""] if value is None or isinstance(value, str) else list(value)
    if len(prompts) not in (1, count):
        raise InputError(f"{name} must be one or as many as there are videos, {count}, got {len(prompts)}.")
    return prompts * count if len(prompts) == 1 else prompts


def as_motion(value: int | Sequence[int], *, count: int) -> Tensor:
    """The motion numbers (count,), int64; a single one serves all.

    Raises:
        InputError: neither one nor `count`, or one that is no whole number of 1 or more.
    """
    try:
        numbers = _whole_numbers(value)
    except TypeError:
        raise InputError(f"motion must be a whole number, or one for each video, got {value!r}.") from None
    if len(numbers) not in (1, count):
        raise InputError(f"motion must be one or as many as there are videos, {count}, got {len(numbers)}.")
    if min(numbers) < 1:
        raise InputError(f"motion must be at least 1, got {min(numbers)}.")
    return torch.tensor(numbers * count if len(numbers) == 1 else numbers)


def _whole_numbers(value: Any) -> list[int]:
    """One number or several, of Python, numpy or torch. Raises TypeError for others."""
    try:
        return [operator.index(value)]
    except TypeError:
        return [operator.index(number) for number in value]


def count_videos(
    first: Tensor | None, last: Tensor | None, prompt: str | Sequence[str] | None, embeds: Tensor | None
) -> int:
    """How many videos the pictures and prompts ask for, one picture or prompt serving all.

    Raises:
        InputError: numbers that don't match.
    """
    counts = {} if first is None else {"image": first.shape[0]}
    if last is not None:
        counts["last_image"] = last.shape[0]
    if prompt is not None and not isinstance(prompt, str):
        counts["prompt"] = len(prompt)
    if embeds is not None:
        counts["prompt_embeds"] = embeds.shape[0]
    count = max(counts.values(), default=1)
    for name, number in counts.items():
        if number not in (1, count):
            raise InputError(f"{name} must be one or as many as there are videos, {count}, got {number}.")
    return count


def _from_tensor(tensor: Tensor, height: int, width: int, name: str) -> Tensor:
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or batch.shape[1] not in (3, 4) or tuple(batch.shape[2:]) != (height, width):
        raise InputError(
            f"{name} as a tensor must have the shape (3, {height}, {width}) with or without a batch, "
            f"got {tuple(tensor.shape)}; resize it, or pass a PIL image."
        )
    low, high = batch.min().item(), batch.max().item()
    if not (low >= 0 and high <= 1):
        raise InputError(f"{name} as a tensor must be in [0, 1], got values from {low:g} to {high:g}.")
    if batch.shape[1] == 4:
        colours, opacity = batch.split((3, 1), dim=1)
        batch = colours * opacity + (1 - opacity)
    return batch.float() * 2 - 1
