"""Pictures as a clip is asked for with: read once, with where they came from and the hash of their pixels."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import picture_hash, read_picture

if TYPE_CHECKING:
    import numpy as np

MOST_BYTES = 512 * 2**20  # of decoded pictures that have a file; beyond it, those used longest ago are let go


class LoadedPicture:
    """A picture that was read.

    Its pixels stay in memory as long as there is room among all pictures' (`MOST_BYTES`), and are read from the file
    again where they had to go; so a list or a queue of any length holds no more than that.

    Args:
        image: upright RGB; see `read_picture`.
        path: how metadata name it; None for one that came as pixels.
        file: where it can be read again; None, and its pixels stay.

    Attributes:
        shape: height and width in pixels.
        sha256: hash of the pixels.
    """

    def __init__(self, *, image: Image.Image, path: str | None = None, file: Path | None = None) -> None:
        self.path, self._file = path, file
        self.shape = image.height, image.width
        self.sha256 = picture_hash(image)
        self._image: Image.Image | None = image
        _held.use(self)

    @property
    def image(self) -> Image.Image:
        """The pixels, upright RGB.

        Raises:
            InputError: they had to be read again, and the file is no longer what it was.
        """
        image = self._image
        if image is None:
            image = self._image = self._read_again()
        _held.use(self)
        return image

    @property
    def num_bytes(self) -> int:
        """Of the pixels in memory, where they can be let go."""
        return 0 if self._file is None else 3 * self.shape[0] * self.shape[1]

    def let_go(self) -> None:
        """Forget the pixels; whoever has them keeps them."""
        if self._file is not None:
            self._image = None

    def _read_again(self) -> Image.Image:
        assert self._file is not None
        try:
            image = read_picture(self._file)
        except InputError:
            image = None
        if image is None or picture_hash(image) != self.sha256:
            raise InputError(f"{self.path} changed or went away since it was looked at; run again.")
        return image

    def as_dict(self) -> dict[str, Any]:
        """What metadata keep of it."""
        return {"path": self.path, "sha256": self.sha256}


class _HeldPictures:
    """The pictures whose pixels are in memory and can be let go, the one used last at the end."""

    def __init__(self) -> None:
        self._order: OrderedDict[int, tuple[weakref.ref[LoadedPicture], int]] = OrderedDict()
        self._total = 0  # bytes
        self._lock = threading.RLock()  # a picture may be collected while it is held

    def use(self, picture: LoadedPicture) -> None:
        if not picture.num_bytes:
            return
        key = id(picture)
        with self._lock:
            self._drop(key)
            self._order[key] = (weakref.ref(picture, lambda _: self._drop(key)), picture.num_bytes)
            self._total += picture.num_bytes
            while self._total > MOST_BYTES and len(self._order) > 1:
                oldest = next(iter(self._order))
                kept = self._order[oldest][0]()
                self._drop(oldest)
                if kept is not None:
                    kept.let_go()

    def _drop(self, key: int) -> None:
        with self._lock:
            _, num_bytes = self._order.pop(key, (None, 0))
            self._total -= num_bytes


_held = _HeldPictures()
PictureLike = Union[str, Path, Image.Image, "np.ndarray", LoadedPicture]


def load_picture(source: PictureLike, *, name: str | None = None) -> LoadedPicture:
    """Read a picture, unless it is read already.

    Args:
        name: how metadata name a file; None for its path as it is.

    Raises:
        InputError: see `read_picture`.
    """
    if isinstance(source, LoadedPicture):
        return source
    image = read_picture(source)
    if not isinstance(source, str | Path):
        return LoadedPicture(image=image, path=name)
    return LoadedPicture(image=image, path=name or str(source), file=Path(source).absolute())
