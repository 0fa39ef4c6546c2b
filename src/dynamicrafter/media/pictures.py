"""Any picture that a user may hold out, as upright 8-bit RGB, or one line that says why not."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, ImageOps

from dynamicrafter.errors import InputError

if TYPE_CHECKING:
    import numpy as np  # where it is used it is imported: a help text needs none

MAX_PIXELS = 150_000_000  # above what cameras of 100 megapixels make; decoded it takes 600 MB
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")  # mostly
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # none of them starts another program, as EPS would

_log = logging.getLogger(__name__)

_VIDEO = "a video; take one frame of it, e.g. `ffmpeg -i VIDEO -frames:v 1 frame.png`"
_SVG = "an SVG drawing; export it as PNG"
_HEIC = 'a HEIC photo; run pip install "dynamicrafter[heif]" to read those, or export it as JPEG'
_BURST = "a burst of HEIC photos; export one of them as JPEG"
_JXL = "a JPEG XL picture; export it as JPEG or PNG"
_JP2 = "a JPEG 2000 picture; export it as JPEG or PNG"
_RAW = "a camera raw file; develop it, and export it as JPEG or PNG"
_OTHER_KINDS = (  # (offset, first bytes, what it is and what to do)
    (0, b"%PDF", "a PDF document; export its page as PNG"),
    (0, b"%!PS", "a PostScript drawing; export it as PNG"),
    (0, b"8BPS", "a Photoshop document; export it as PNG"),
    (0, b"<svg", _SVG),
    (0, b"<?xml", _SVG),
    (0, b"\xff\x0a", _JXL),
    (4, b"JXL ", _JXL),
    (4, b"jP  ", _JP2),
    (0, b"\xff\x4f\xff\x51", _JP2),
    *((4, b"ftyp" + brand, _HEIC) for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2")),
    *((4, b"ftyp" + brand, _BURST) for brand in (b"msf1", b"hevc", b"hevx", b"hevm", b"hevs")),
    (4, b"ftypcrx ", _RAW),  # CR3
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIRO", _RAW),  # ORF
    (0, b"IIRS", _RAW),
    (0, b"MMOR", _RAW),
    (0, b"IIU\0", _RAW),  # RW2
    (0, b"FOVb", _RAW),  # X3F
    (0, b"\0MRM", _RAW),
    (8, b"CR\x02", _RAW),
    (4, b"ftypavi", "a damaged AVIF picture; copy or download it again"),
    (4, b"ftyp", _VIDEO),
    (0, b"\x1a\x45\xdf\xa3", _VIDEO),
    (8, b"AVI ", _VIDEO),
    (0, b"\x00\x00\x01\xba", _VIDEO),
)
# Raw files of these are TIFFs, whose first picture is a thumbnail.
_RAW_SUFFIXES = (
    *(".dng", ".nef", ".nrw", ".cr2", ".arw", ".srf", ".sr2", ".pef", ".srw", ".erf", ".kdc", ".dcr"),
    *(".mos", ".iiq", ".3fr", ".fff"),
)
_DNG_VERSION, _SUBFILE, _COLOURS = 50706, 254, 262  # TIFF's tags
_THUMBNAIL, _SENSOR = 1, (32803, 34892)  # their values: a smaller copy of another picture; colours of a sensor


def read_picture(source: str | Path | Image.Image | np.ndarray) -> Image.Image:
    """Read a picture as upright 8-bit RGB.

    The EXIF orientation is applied; an animation gives its first frame; transparent parts come to lie on white, which
    is logged. 16-bit grey is rounded to 8 bits (a 32-bit integer picture is taken for 16-bit grey in 0…65535, a float
    picture for grey in [0, 1]); of 16-bit colour, Pillow keeps the higher byte. Colour profiles are not applied, as
    the published code applies none.

    Args:
        source: a file (JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF, with pillow-heif HEIC too, known by content, not by
            name), an opened picture, or pixels as `opaque` takes them.

    Returns:
        A picture of its own, mode RGB, up to 150 megapixels.

    Raises:
        InputError: there is no such file, it is no picture in these formats, it is damaged, or it is larger than
            150 megapixels, which is seen before anything is decoded.
    """
    import numpy as np

    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _upright_rgb(source, name="picture")
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"picture must be a path, a PIL image or a numpy array, got {type(source).__name__}.")
    path = Path(source)
    try:
        _check_is_file(path, source)
        with path.open("rb") as file:
            return _upright_rgb(_identified(file, path), name=str(path))
    except PermissionError:
        raise InputError(f"{path} may not be read by this user; change its permissions or copy it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the picture's name.") from None


def picture_hash(picture: Image.Image) -> str:
    """sha256 of a picture's size and RGB pixels, which stays the same when the file is renamed or re-encoded."""
    return hashlib.sha256(repr(picture.size).encode() + picture.convert("RGB").tobytes()).hexdigest()


def _check_is_file(path: Path, source: str | os.PathLike[str]) -> None:
    if path.is_file():
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty; copy or download the picture again.")
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder, where a picture is wanted; name one of its files.")
    if str(source).startswith(("http:/", "https:/")):  # a Path drops the second slash
        raise InputError(f"{source} is a web address, where a file is wanted; download the picture first.")
    if path.exists():
        raise InputError(f"{path} is no regular file; copy the picture to one.")
    raise InputError(f"{path} does not exist; check the picture's name and folder.")


def _identified(file: BinaryIO, path: Path) -> Image.Image:
    """Open a file by its header only."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from 179 on; MAX_PIXELS lies between. What else it warns
            # of while opening (damaged side information) either does not matter or becomes an error in decoding.
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
    except PermissionError:
        raise
    except Image.UnidentifiedImageError:
        file.seek(0)
        kind = _other_kind(file.read(1024))
        if kind == _HEIC and (photo := _heif_photo(file, path)) is not None:
            return photo
        raise InputError(f"{path} is {kind}.") from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(path)) from None
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise InputError(_damaged(path, error)) from error
    if image.format == "TIFF" and _is_raw(image, path):
        raise InputError(f"{path} is {_RAW}.")
    return image


def _is_raw(image: Image.Image, path: Path) -> bool:
    """Whether a TIFF is a camera raw file, whose first picture is a thumbnail, or the sensor's levels."""
    tags = getattr(image, "tag_v2", {})
    return (
        path.suffix.lower() in _RAW_SUFFIXES
        or _DNG_VERSION in tags
        or tags.get(_SUBFILE) == _THUMBNAIL
        or tags.get(_COLOURS) in _SENSOR
    )


def _heif_photo(file: BinaryIO, path: Path) -> Image.Image | None:
    """The photo in a HEIC file; None without the package that reads them."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        return None
    file.seek(0)
    try:
        found = pillow_heif.open_heif(file)
        if found.size[0] * found.size[1] > MAX_PIXELS:
            raise InputError(_too_large(path))
        return found.to_pillow()
    except InputError:
        raise
    except Exception as error:  # as with Pillow's own readers
        raise InputError(_damaged(path, error)) from error


def _other_kind(head: bytes) -> str:
    for offset, mark, kind in _OTHER_KINDS:
        if head[offset:].startswith(mark):
            return kind
    return "no picture that can be read here, or a damaged one; save it as JPEG or PNG"


def _too_large(name: object) -> str:
    return f"{name} has more than {MAX_PIXELS // 10**6} megapixels; scale it down first."


def _damaged(name: object, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{name} is damaged or cut short ({reason}); copy or download it again."


def _upright_rgb(image: Image.Image, *, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(_too_large(name))
    if 0 in image.size:
        raise InputError(f"{name} must have at least one pixel, got {image.width}×{image.height}.")
    try:
        image = ImageOps.exif_transpose(image)
    except (
        Exception
    ) as error:  # as above, a damaged length that asks for any amount of memory among it: decoding happens here
        raise InputError(_damaged(name, error)) from error
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit_grey(image, name)
    try:
        return _over_white(image, name) if image.has_transparency_data else image.convert("RGB")
    except ValueError as error:
        raise InputError(f"{name} has colours of a kind that is not read here ({error}); save it as RGB.") from error


def _eight_bit_grey(image: Image.Image, name: str) -> Image.Image:
    """Round grey of 16 bits, of 32-bit integers in 0…65535 or of floats in [0, 1] to 8 bits, alpha kept."""
    import numpy as np

    levels = np.asarray(image)
    top = 1.0 if image.mode == "F" else 65535
    low, high = levels.min().item(), levels.max().item()
    if not (low >= 0 and high <= top):  # so written, NaN is refused too
        raise InputError(f"{name} must have grey levels from 0 to {top:g}, got {low:g} to {high:g}; save it as 8 bits.")
    grey = Image.fromarray((levels * np.float32(255 / top)).round().astype(np.uint8))
    see_through = image.info.get("transparency")  # one grey level of a 16-bit PNG that stands for "nothing here"
    if isinstance(see_through, int):
        grey.putalpha(Image.fromarray(np.where(levels == see_through, 0, 255).astype(np.uint8)))
    return grey


def _over_white(image: Image.Image, name: str) -> Image.Image:
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    _log.warning("%s has transparent parts; they are laid over white.", name)
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def opaque(pixels: np.ndarray) -> np.ndarray:
    """Check a picture's pixels, and lay what is transparent over white, as with files.

    Args:
        pixels: (h, w, 3) or, with opacity, (h, w, 4); uint8 or floats in [0, 1].

    Returns:
        (h, w, 3), uint8 or float32.

    Raises:
        InputError: another shape, type or range.
    """
    import numpy as np

    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or 0 in pixels.shape:
        raise InputError(f"picture must have shape (h, w, 3), RGB, or (h, w, 4), RGBA, got {pixels.shape}.")
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise InputError(_too_large("picture"))
    if pixels.dtype == np.uint8:
        whole = np.ascontiguousarray(pixels)
        return whole if whole.shape[2] == 3 else np.asarray(_over_white(Image.fromarray(whole), "picture"))
    if not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(f"picture must be uint8, or floats in [0, 1], got {pixels.dtype}.")
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 1):  # so written, NaN is refused too
        raise InputError(f"picture must hold floats in [0, 1], got {low:g} to {high:g}; divide by its largest level.")
    colours, opacity = pixels[..., :3].astype(np.float32), pixels[..., 3:].astype(np.float32)
    return colours if opacity.size == 0 else colours * opacity + (1 - opacity)


def _from_array(pixels: np.ndarray) -> Image.Image:
    import numpy as np

    whole = opaque(pixels)
    return Image.fromarray(whole if whole.dtype == np.uint8 else (whole * 255).round().astype(np.uint8))
