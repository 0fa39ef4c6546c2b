"""The clip formats, each fact once: name, extension, quality scale, limits."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from dynamicrafter.errors import InputError, OutputError
from dynamicrafter.media.notes import MAX_FPS

EVEN_WIDTH = 128  # pixels
FormatName = Literal["mp4", "mov", "webm", "gif", "webp", "png", "npy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A video encoder of libav, its quality scale (lower is better) and its way to be asked for it."""

    name: str
    worst_crf: int
    default_crf: int
    options: tuple[tuple[str, str], ...]
    container_options: tuple[tuple[str, str], ...] = ()
    uneven_options: tuple[tuple[str, str], ...] = ()  # for widths that are no multiple of `EVEN_WIDTH`


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFormat:
    """One way to keep a clip."""

    name: FormatName
    codec: Codec | None = None  # with one, frames are yuv420p and their sizes must be even
    max_fps: Fraction = MAX_FPS

    @property
    def suffix(self) -> str:
        return "" if self.name == "png" else f".{self.name}"


_LEFT = ("chroma_sample_location", "left")
# What x264 and libvpx make of the same frames depends on the number of threads.
_ONE_THREAD = ("threads", "1")
_H264 = Codec(
    name="libx264",
    worst_crf=51,
    default_crf=16,  # x264's manual puts "visually lossless" at 17 to 18
    options=(("preset", "medium"), _LEFT, _ONE_THREAD),
    container_options=(("movflags", "+faststart"),),
    # x264's macroblock tree works on eight blocks of 16 pixels at a time, and takes what lies in memory behind a row of
    # another length into account: the same frames become another film each time.
    uneven_options=(("mbtree", "0"),),
)
_VP9 = Codec(
    name="libvpx-vp9",
    worst_crf=63,
    default_crf=24,
    options=(("b", "0"), ("deadline", "good"), ("cpu-used", "3"), _LEFT, _ONE_THREAD),  # b=0: crf alone decides
)

FORMATS: dict[str, ClipFormat] = {
    clip_format.name: clip_format
    for clip_format in (
        ClipFormat(name="mp4", codec=_H264),
        ClipFormat(name="mov", codec=_H264),
        ClipFormat(name="webm", codec=_VP9),
        ClipFormat(name="gif", max_fps=Fraction(50)),  # gif counts hundredths; viewers slow a delay of one down to ten
        ClipFormat(name="webp"),
        ClipFormat(name="png"),
        ClipFormat(name="npy"),
    )
}
_KNOWN = ".mp4, .mov, .webm, .gif, .webp, .npy, or no extension for a folder of PNG frames"


def find_format(path: Path, format: str | None = None) -> ClipFormat:  # noqa: A002
    """Say in which format a path is to be written: as `format` says, or else as its extension does.

    Raises:
        InputError: format is unknown.
        OutputError: the extension is unknown, or it contradicts format.
    """
    suffix = path.suffix.lower()
    by_suffix = FORMATS.get(suffix.removeprefix(".")) if suffix else FORMATS["png"]
    if format is not None and format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(get_args(FormatName))}, got {format!r}.")
    if path.name.lower().removeprefix(".") in FORMATS and path.name.startswith("."):
        raise OutputError(f"{path} is an extension without a name before it; try {path.with_name('clip' + path.name)}.")
    if suffix == ".png":
        raise OutputError(f"{path} names one picture, but PNG frames fill a folder; try {path.with_suffix('')}.")
    if format is None:
        if by_suffix is None:
            raise OutputError(f"{path} has the unknown extension {path.suffix}; known are {_KNOWN}.")
        return by_suffix
    if suffix and by_suffix is not None and by_suffix.name != format:
        raise OutputError(f"{path} has the extension {path.suffix}, but format is {format}; make them agree.")
    return FORMATS[format]


def check_rate(fps: Fraction, clip_format: ClipFormat) -> None:
    """Refuse frames per second that the format cannot hold.

    Raises:
        InputError: too many.
    """
    if fps > clip_format.max_fps:
        raise InputError(
            f"fps must be at most {clip_format.max_fps} for {clip_format.name}, got {fps}; try mp4 or webm."
        )


def choose_crf(crf: int | None, clip_format: ClipFormat) -> int | None:
    """Give the quality to encode with: `crf`, or else the format's own; None where there is nothing to choose.

    Raises:
        InputError: crf is out of range, or the format has none.
    """
    codec = clip_format.codec
    if codec is None:
        if crf is not None:
            raise InputError(
                f"crf applies to mp4, mov and webm only, got crf {crf} for {clip_format.name}; leave it out."
            )
        return None
    if crf is None:
        return codec.default_crf
    if isinstance(crf, bool) or not isinstance(crf, int) or not 0 <= crf <= codec.worst_crf:
        raise InputError(
            f"crf must be a whole number from 0 (best) to {codec.worst_crf} (worst) for {clip_format.name}, "
            f"got {crf}; try {codec.default_crf}."
        )
    return crf


def check_size(height: int, width: int, clip_format: ClipFormat) -> None:
    """Refuse frame sizes that the format cannot hold.

    Raises:
        InputError: an odd size, and the format halves its colours.
    """
    if clip_format.codec is not None and (height % 2 or width % 2):
        raise InputError(
            f"height and width must be even for {clip_format.name}, got {height}×{width}; "
            "crop or scale the frames, or write gif, webp, png or npy."
        )
