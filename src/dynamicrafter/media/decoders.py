"""One function per kind of input: a file or folder back to uint8 frames, frames per second and note.

Files are untrusted: kinds are known by content, libav may open no other file or address and Pillow no other format,
and no clip may fill the memory.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.media.completeness import is_cut_short
from dynamicrafter.media.encoders import (
    EXIF_IMAGE_DESCRIPTION,
    GIF_TICK,
    NOTE_FILE,
    NOTE_TEXT,
    WEBP_TICK,
    time_after,
)
from dynamicrafter.media.frames import FrameReader, first_video
from dynamicrafter.media.notes import MAX_NOTE, Note, parse_note

if TYPE_CHECKING:
    from av.container import InputContainer

_UNSAID_DELAY = 100  # milliseconds; how long browsers show a frame of an animation whose delay is 0
MAX_CLIP_BYTES = 4 * 2**30  # of decoded pixels
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv"  # none that reads lists of other files


class Decoded(NamedTuple):
    """A clip as it was read: frames uint8 (f, h, w, 3), frames per second, and the note if it has one of ours."""

    frames: np.ndarray
    fps: Fraction
    note: Note | None


@contextmanager
def opened_safely(path: Path) -> Generator[None]:
    """Turn whatever a reader stumbles over into one InputError."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:  # a damaged length may ask for any amount
        raise InputError(
            f"{path} takes more memory to decode than there is: it is damaged, or too large; copy it again or scale it "
            f"down."
        ) from error
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the clip's name and folder.") from None
    except Exception as error:
        # The decoder, too, says "not permitted", of places in the file that don't exist.
        if isinstance(error, PermissionError) and not os.access(path, os.R_OK):
            raise InputError(f"{path} may not be read by this user; change its permissions or copy it.") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no clip that can be read here, or a damaged one ({reason}).") from error


def kind_of(path: Path) -> str:
    """Say what a path holds: folder, npy, gif, webp, png or video (whatever is none of the others)."""
    if path.is_dir():
        return "folder"
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no regular file; copy the clip to one.")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise InputError(f"{path} is empty; copy or download the clip again.")
    marks = {b"\x93NUMPY": "npy", b"GIF8": "gif", b"\x89PNG": "png"}
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    return next((kind for mark, kind in marks.items() if head.startswith(mark)), "video")


def decode(path: Path, kind: str) -> Decoded:
    """Read a whole clip."""
    if kind == "video":
        return _decode_video(path)
    if kind in ("gif", "webp"):
        return _decode_animation(path, kind)
    if kind == "folder":
        return _decode_folder(path)
    if kind == "npy":
        return _decode_npy(path)
    raise InputError(f"{path} is one picture, where a clip is wanted; name its folder.")


def decode_note(path: Path, kind: str) -> Note | None:
    """Read a clip's note alone."""
    if kind == "video":
        with opened_video(path) as container:
            return _video_note(container)
    if kind == "folder":
        note_file = path / NOTE_FILE
        return _short_note(note_file, start=0) if note_file.is_file() else None
    if kind == "npy":
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
        return _short_note(path, start=frames.offset + frames.nbytes)
    with Image.open(path, formats=(kind,)) as image:
        return _picture_note(image)


def _stack(frames: Iterator[np.ndarray], path: Path) -> np.ndarray:
    """Gather frames of one size, as long as they fit into memory."""
    gathered: list[np.ndarray] = []
    for frame in frames:
        if gathered and frame.shape != gathered[0].shape:
            raise InputError(f"{path} changes its size at frame {len(gathered)}; cut or scale it first.")
        if (len(gathered) + 1) * frame.nbytes > MAX_CLIP_BYTES:
            raise InputError(f"{path} takes more than {MAX_CLIP_BYTES // 2**30} GiB when decoded; cut it first.")
        gathered.append(frame)
    if not gathered:
        raise InputError(f"{path} holds no frames.")
    return np.stack(gathered)


def _short_note(path: Path, *, start: int) -> Note | None:
    with path.open("rb") as file:
        file.seek(start)
        return parse_note(file.read(2 * MAX_NOTE))


def _picture_note(image: Image.Image) -> Note | None:
    if image.format == "WEBP":
        return parse_note(image.getexif().get(EXIF_IMAGE_DESCRIPTION))
    return parse_note(image.info.get("comment" if image.format == "GIF" else NOTE_TEXT))


@contextmanager
def opened_video(path: Path) -> Generator[InputContainer]:
    """Open a file with a video that may open no other file."""
    import av

    # An absolute path is never mistaken for an address, and the lists keep files that name other files out.
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    with av.open(os.path.abspath(path), options=options) as container:  # noqa: PTH100
        first_video(container, path)
        yield container


def _video_note(container: InputContainer) -> Note | None:
    tags = {key.lower(): value for key, value in container.metadata.items()}
    return parse_note(tags.get("comment"))


def _decode_video(path: Path) -> Decoded:
    with path.open("rb") as file:
        if is_cut_short(file):
            raise InputError(f"{path} is cut short; copy or download it again.")
    with opened_video(path) as container:
        stream = first_video(container, path)
        stream.thread_type = "AUTO"
        reader = FrameReader(stream, path)
        frames = _stack((reader.rgb(frame) for frame in reader.progressive(container.decode(stream))), path)
        note = _video_note(container)
        rate = stream.average_rate or stream.guessed_rate or (note.fps if note else None)
    if rate is None:
        raise InputError(f"{path} does not say its frames per second.")
    return Decoded(frames, Fraction(rate), note)


def _decode_animation(path: Path, kind: str) -> Decoded:
    with Image.open(path, formats=(kind,)) as image:
        note = _picture_note(image)
        durations: list[int] = []

        def frames() -> Iterator[np.ndarray]:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                pixels = np.array(image.convert("RGB"))
                durations.append(int(image.info.get("duration", 0)))
                yield pixels

        pixels = _stack(frames(), path)
    if note is not None:
        repeats = _repeats(durations, note, tick=GIF_TICK if kind == "gif" else WEBP_TICK)
        if repeats is not None:
            if sum(repeats) * pixels[0].nbytes > MAX_CLIP_BYTES:
                raise InputError(f"{path} takes more than {MAX_CLIP_BYTES // 2**30} GiB when decoded; cut it first.")
            return Decoded(np.repeat(pixels, repeats, axis=0), note.fps, note)
    if len(durations) == 1:
        raise InputError(f"{path} is one picture, where a clip is wanted; name an animation.")
    durations = [duration or _UNSAID_DELAY for duration in durations]
    return Decoded(pixels, Fraction(1000 * len(durations), sum(durations)), note)


def _repeats(durations: list[int], note: Note, *, tick: int) -> list[int] | None:
    """How many of the clip's frames each shown frame stands for: these formats merge frames that are equal.

    None where the durations are not those that we would have written, so that someone has changed them since.
    """
    if durations == [0]:
        return [note.num_frames]  # WebP keeps a clip without motion as a still
    ends = [0, *accumulate(durations)]
    counts = [round(end * note.fps / 1000) for end in ends]
    written = [time_after(count, fps=note.fps, tick=tick) for count in counts]
    if written != ends or counts[-1] != note.num_frames:
        return None
    return [later - earlier for earlier, later in pairwise(counts)]


def _decode_folder(path: Path) -> Decoded:
    note = decode_note(path, "folder")
    if note is None:
        raise InputError(f"{path} is no clip: it has no {NOTE_FILE} of ours, which gives the frames per second.")
    if len(list(path.glob("*.png"))) != note.num_frames:
        raise InputError(f"{path} must hold {note.num_frames} frames, as its {NOTE_FILE} says, no more and no fewer.")

    def frames() -> Iterator[np.ndarray]:
        for index in range(note.num_frames):
            with Image.open(path / f"{index:04}.png", formats=("PNG",)) as image:
                yield np.array(image.convert("RGB"))

    return Decoded(_stack(frames(), path), note.fps, note)


def _decode_npy(path: Path) -> Decoded:
    note = decode_note(path, "npy")
    if note is None:
        raise InputError(f"{path} is no clip: it does not say its frames per second.")
    frames = np.load(path, mmap_mode="r", allow_pickle=False)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(f"{path} must hold uint8 frames (f, h, w, 3), got {frames.dtype} {frames.shape}.")
    if frames.nbytes > MAX_CLIP_BYTES:
        raise InputError(f"{path} takes more than {MAX_CLIP_BYTES // 2**30} GiB; cut it first.")
    return Decoded(np.array(frames), note.fps, note)
