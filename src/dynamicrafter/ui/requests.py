"""What a visitor asks for, as values, and all that can be checked of it before it waits in the queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from dynamicrafter.animator.options import AnimateOptions, Mode, check_prompt
from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import FORMATS, read_picture
from dynamicrafter.presets import PRESETS
from dynamicrafter.ui.catalogue import ModelChoice
from dynamicrafter.ui.settings import ServerSettings
from dynamicrafter.ui.story import StoryShot, check_story

Task = Mode | Literal["story"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A picture that a visitor sent.

    Attributes:
        path: where the server keeps it; for no visitor's eyes.
        name: as the visitor called it.
    """

    path: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRequest:
    """One clip, as a visitor asked for it.

    Attributes:
        shots: of a story, whose pictures stand in `pictures`; `prompt` is its name then.
        model: the row that was chosen, and `key`, by which it was: "automatic" stays so when it is used again.
    """

    mode: Task
    pictures: tuple[Upload, ...]
    prompt: str = ""
    shots: tuple[StoryShot, ...] = ()
    options: AnimateOptions = field(default_factory=AnimateOptions)
    model: ModelChoice
    key: str

    @property
    def model_mode(self) -> Mode:
        """The mode that its options are for."""
        return "animate" if self.mode == "story" else self.mode


def check_request(request: ClipRequest, settings: ServerSettings) -> None:
    """Everything that can be checked without the model; reads the pictures once.

    Raises:
        InputError: it breaks a rule, or a limit of this server.
    """
    check_prompt("prompt", request.prompt)
    check_prompt("negative", request.options.negative)
    preset = request.model.preset or PRESETS["512"]
    options = request.options.resolved(preset, mode=request.model_mode)
    _check_limits(options, settings)
    sizes = [check_picture(picture, settings) for picture in request.pictures]
    if options.size == "auto":  # which only the picture tells
        _check_limits(options.resolved(preset, mode=request.model_mode, picture=sizes[0]), settings)
    if request.mode == "story":
        check_story(request, most_frames=settings.max_frames)


def _check_limits(options: AnimateOptions, settings: ServerSettings) -> None:
    if isinstance(options.size, tuple) and options.size[0] * options.size[1] > settings.max_size:
        height, width = options.size
        raise InputError(
            f"size must be at most {settings.max_size} pixels in all on this server, got {width}×{height}; make one "
            f"side smaller."
        )
    for name, limit in (("steps", settings.max_steps), ("frames", settings.max_frames)):
        if getattr(options, name) > limit:
            raise InputError(
                f"{name} must be at most {limit} on this server, got {getattr(options, name)}; try {limit}."
            )


def check_picture(picture: Upload, settings: ServerSettings) -> tuple[int, int]:
    """Look at a picture's size before decoding it, then decode it.

    Returns:
        Height and width.

    Raises:
        InputError: too large, or no picture; names it as its owner does.
    """
    try:
        if picture.path.stat().st_size > settings.max_upload * 10**6:
            raise InputError(f"{picture.name} has more than {settings.max_upload} megabytes; scale it down first.")
        _check_pixels(picture, settings)
        pixels = read_picture(picture.path)
    except FileNotFoundError:
        raise InputError(f"{picture.name} is no longer on the server; choose it again.") from None
    except InputError as error:
        raise InputError(str(error).replace(str(picture.path), picture.name)) from None
    return pixels.height, pixels.width


def _check_pixels(picture: Upload, settings: ServerSettings) -> None:
    try:
        with Image.open(picture.path, formats=FORMATS) as header:
            width, height = header.size
    except Image.DecompressionBombError:
        width, height = settings.max_megapixels, 10**6 + 1
    except Exception:  # what is wrong with it, reading says better
        return
    if width * height > settings.max_megapixels * 10**6:
        raise InputError(f"{picture.name} has more than {settings.max_megapixels} megapixels; scale it down first.")
