"""Pictures as a clip is asked for with: read once, with where they came from and the hash of their pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dynamicrafter.media.pictures import picture_hash, read_picture


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPicture:
    """A picture file that was looked at and let go of.

    Attributes:
        sha256: hash of its pixels.
        shape: height and width in pixels.
    """

    path: Path
    sha256: str
    shape: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedPicture:
    """A picture in memory.

    Attributes:
        image: upright RGB; see `read_picture`.
        path: where it was, as it was named; None for one that came as pixels.
    """

    image: Image.Image = field(repr=False)
    path: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height, self.image.width

    @cached_property
    def sha256(self) -> str:
        """Hash of the pixels."""
        return picture_hash(self.image)

    def as_dict(self) -> dict[str, Any]:
        """What metadata keep of it."""
        return {"path": self.path, "sha256": self.sha256}


PictureLike = str | Path | Image.Image | np.ndarray | LoadedPicture


def load_picture(source: PictureLike) -> LoadedPicture:
    """Read a picture, unless it is read already.

    Raises:
        InputError: see `read_picture`.
    """
    if isinstance(source, LoadedPicture):
        return source
    return LoadedPicture(image=read_picture(source), path=str(source) if isinstance(source, str | Path) else None)


def look_at(path: Path) -> SeenPicture:
    """Read a picture for its hash and its shape alone.

    Raises:
        InputError: see `read_picture`.
    """
    picture = load_picture(path)
    return SeenPicture(path=path, sha256=picture.sha256, shape=picture.shape)
