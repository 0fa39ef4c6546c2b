"""Writing clips and reading them back, whole or not at all."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from dynamicrafter.errors import InputError, OutputError
from dynamicrafter.files.atomic import check_target, one_line_errors, replacing_file, replacing_folder
from dynamicrafter.media.decoders import decode, decode_note, kind_of, opened_safely
from dynamicrafter.media.encoders import encode_gif, encode_npy, encode_png_folder, encode_video, encode_webp
from dynamicrafter.media.formats import ClipFormat, check_rate, check_size, choose_crf, find_format
from dynamicrafter.media.notes import parse_fps, write_note


def check_output(
    path: str | Path,
    format: str | None = None,  # noqa: A002
    *,
    fps: Fraction | float | str | None = None,
    crf: int | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Find out before a long run whether its clip can be written, leaving nothing behind.

    Args:
        path, format, fps, crf: as for `write_clip`; what is None is not judged, but for the format.
        size: (height, width) of the frames to come.

    Raises:
        InputError, OutputError: as `write_clip` would.
    """
    target = _resolved(path)
    clip_format = find_format(target, format)
    choose_crf(crf, clip_format)
    if fps is not None:
        check_rate(parse_fps(fps), clip_format)
    if size is not None:
        check_size(*size, clip_format)
    check_target(target, folder=clip_format.name == "png")


def write_clip(
    path: str | Path,
    frames: np.ndarray,
    *,
    fps: Fraction | float | str,
    metadata: dict[str, object],
    crf: int | None = None,
    format: str | None = None,  # noqa: A002
) -> None:
    """Write a clip; it appears under its name only when it is complete, and an older one stays until then.

    mp4 and mov are H.264, webm is VP9; gif and webp are animations that loop for ever; png is a folder of 0000.png,
    0001.png, … with clip.json; npy is the array. png and npy are lossless.

    Args:
        path: the file, or the folder for png. Its extension names the format; none means png.
        frames: uint8 (f, h, w, 3), RGB. Even height and width for mp4, mov and webm.
        fps: 0.1 … 240 frames per second, at most 50 for gif; a fraction such as "24000/1001" is kept exactly.
        metadata: how the clip was made, as JSON values; `read_metadata` gives it back.
        crf: quality of mp4 and mov (0 … 51, default 16) and webm (0 … 63, default 24), smaller is better. At 0, mp4 is
            lossless but for its colours' halved resolution, and few players can show it.
        format: mp4, mov, webm, gif, webp, png or npy, where the extension does not say it.

    Raises:
        InputError: frames, fps, metadata, crf or format break a rule above.
        OutputError: the clip cannot be written there: unknown extension, no such folder, no permission, disk full.
    """
    target = _resolved(path)
    clip_format = find_format(target, format)
    crf = choose_crf(crf, clip_format)
    fps = parse_fps(fps)
    check_rate(fps, clip_format)
    _check_frames(frames)
    check_size(frames.shape[1], frames.shape[2], clip_format)
    note = write_note(metadata, fps=fps, num_frames=len(frames))
    folder = clip_format.name == "png"
    check_target(target, folder=folder)
    replacing = replacing_folder if folder else replacing_file
    with one_line_errors(target), replacing(target) as aside:
        _encode(aside, frames, clip_format, fps=fps, note=note, crf=crf)


def _resolved(path: str | Path) -> Path:
    """Follow symbolic links, so that what a link points to is replaced and not the link."""
    if not str(path):
        raise OutputError("the output's name is empty; try clip.mp4.")
    if "\0" in str(path):
        raise OutputError(f"the output's name must not hold a NUL character, got {str(path)!r}; try clip.mp4.")
    with one_line_errors(Path(path)):  # the current folder may be gone
        return Path(os.path.realpath(path))


def _check_frames(frames: np.ndarray) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        found = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise InputError(f"frames must be a uint8 array of shape (f, h, w, 3), got {found}.")
    if 0 in frames.shape:
        raise InputError(f"frames must hold at least one frame of one pixel, got shape {frames.shape}.")


def _encode(
    path: Path, frames: np.ndarray, clip_format: ClipFormat, *, fps: Fraction, note: str, crf: int | None
) -> None:
    if clip_format.codec is not None and crf is not None:
        size, codec, kind = frames.shape[1:3], clip_format.codec, clip_format.name
        encode_video(path, frames, size=size, fps=fps, note=note, codec=codec, crf=crf, kind=kind)
    elif clip_format.name == "gif":
        encode_gif(path, frames, fps=fps, note=note)
    elif clip_format.name == "webp":
        encode_webp(path, frames, fps=fps, note=note)
    elif clip_format.name == "png":
        path.mkdir(exist_ok=True)
        encode_png_folder(path, frames, note=note)
    else:
        encode_npy(path, frames, note=note)


def read_clip(path: str | Path) -> tuple[np.ndarray, Fraction]:
    """Read a clip whole: one of ours, or another video in mp4, mov, mkv, webm, avi, flv or MPEG, a GIF or a WebP.

    Video is shown as it asks: turned and mirrored, with square pixels, without fields, HDR (PQ, HLG) with the white of
    SDR at 255. Without a tag for its colours, they are taken for BT.601.

    Returns:
        frames, uint8 (f, h, w, 3), RGB, and frames per second (of a video with a varying rate, the average).

    Raises:
        InputError: there is no such clip, it is damaged or cut short, or it takes more than 4 GiB when decoded.
    """
    path = Path(path)
    with opened_safely(path):
        frames, fps, _ = decode(path, kind_of(path))
    return frames, fps


def read_metadata(path: str | Path) -> dict[str, object]:
    """Read how a clip was made: the metadata that `write_clip` was given.

    Args:
        path: a clip in any format, a folder of frames, or its first frame.

    Raises:
        InputError: there is no such file, it cannot be read, or it carries no options of ours.
    """
    path = Path(path)
    with opened_safely(path):
        note = decode_note(path, kind_of(path))
    if note is None:
        raise InputError(f"{path} carries no dynamicrafter options; name a clip that dynamicrafter wrote.")
    return note.options
