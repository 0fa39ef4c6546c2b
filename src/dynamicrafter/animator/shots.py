"""One clip to be made: its pictures, prompt, options and random stream. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dynamicrafter.animator.options import PER_SHOT, AnimateOptions, Mode, check_names
from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import picture_hash, read_picture

PictureLike = str | Path | Image.Image | np.ndarray
OnStep = Callable[[int, int], None]
OnDenoised = Callable[[Any], None] | None  # gets a tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One clip to be made.

    Args:
        image: the picture, or the first of two.
        prompt: what happens.
        mode: animate, interpolate (needs `last_image`) or loop.
        last_image: the picture to end on.
        options: how it is made.
        item: names the random stream beside the seed, such as a job's key in a list; see `randomness`.
        sample: 0 for the first take of it, 1 for the second, …
    """

    image: PictureLike
    prompt: str = ""
    mode: Mode = "animate"
    last_image: PictureLike | None = None
    options: AnimateOptions = field(default_factory=AnimateOptions)
    item: str = ""
    sample: int = 0


def shot_of(mode: Mode, settings: dict[str, Any], **subject: Any) -> Shot:
    """A shot from loose settings: those that `Shot` knows, and the rest for its options."""
    own = {name: settings.pop(name) for name in ("options", "item", "sample") if name in settings}
    options = own.pop("options", AnimateOptions())
    check_names(settings)
    return Shot(mode=mode, options=replace(options, **settings), **own, **subject)


def stored_pictures(
    sources: Sequence[PictureLike | None], pictures: Sequence[Image.Image | None]
) -> list[dict[str, str | None]]:
    """What metadata keep of pictures: where they were, and the hash of their pixels."""
    return [
        {"path": str(source) if isinstance(source, str | Path) else None, "sha256": picture_hash(picture)}
        for source, picture in zip(sources, pictures, strict=True)
        if picture is not None
    ]


def last_picture(shot: Shot, first: Image.Image) -> Image.Image | None:
    """The picture that a clip is to end on, if any.

    Raises:
        InputError: there is none to interpolate to, or it can't be read.
    """
    if shot.mode == "loop":
        return first
    if shot.mode == "animate":
        return None
    if shot.last_image is None:
        raise InputError("last_image must be given to interpolate; pass the picture to end on.")
    return read_picture(shot.last_image)


def check_together(shots: Sequence[Shot]) -> None:
    """Raises InputError where shots don't go into one batch, which shares one run of the sampler."""
    for name in sorted({option.name for option in fields(AnimateOptions)} - PER_SHOT):
        values = {getattr(shot.options, name) for shot in shots}
        if len(values) > 1:
            listed = ", ".join(map(str, sorted(values, key=str)))
            raise InputError(f"shots of one batch must have the same {name}, got {listed}; run them apart.")
    modes = sorted({shot.mode for shot in shots})
    if len(modes) > 1:
        raise InputError(f"shots of one batch must have the same mode, got {', '.join(modes)}; run them apart.")
