"""A film of any length, written frame by frame, with sound."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors, replacing_file
from dynamicrafter.media.encoders import encode_video
from dynamicrafter.media.formats import check_rate, check_size, choose_crf, find_format
from dynamicrafter.media.notes import write_note
from dynamicrafter.media.sound import num_samples_of, sound_of

if TYPE_CHECKING:
    import numpy as np

    from dynamicrafter.media.formats import ClipFormat


def film_format(path: Path, *, sound: bool) -> ClipFormat:
    """The format of a film's file.

    Raises:
        InputError: one that can't be written frame by frame, or can't hold the sound.
        OutputError: an unknown extension.
    """
    found = find_format(path)
    if found.codec is None:
        raise InputError(f"{path} must be a film, mp4 or webm; name it {path.with_suffix('.mp4')}.")
    if sound and found.name != "mp4":
        raise InputError(f"{path} can't hold AAC sound, which mp4 does; name it {path.with_suffix('.mp4')}.")
    return found


def write_film(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    num_frames: int,
    size: tuple[int, int],
    fps: Fraction,
    metadata: dict[str, object],
    crf: int | None = None,
    sound: Path | None = None,
    within: Path | None = None,
) -> None:
    """Write a film of any length in little memory; it appears under its name only when it is complete.

    Args:
        path: an mp4 or webm, with symbolic links resolved.
        frames: uint8 (h, w, 3) each, `num_frames` of them.
        size: (height, width), both even.
        fps, metadata, crf: as for `write_clip`.
        sound: a file that is heard from the film's beginning to its end, cut off or followed by silence. mp4 only.
        within: a folder on the same disk, to write in until the film is complete.

    Raises:
        InputError: an argument breaks its rule, or the sound can't be read.
        OutputError: the film can't be written there.
    """
    kind = film_format(path, sound=sound is not None)
    quality = choose_crf(crf, kind)
    check_rate(fps, kind)
    check_size(*size, kind)
    note = write_note(metadata, fps=fps, num_frames=num_frames)
    heard = None if sound is None else sound_of(sound, num_samples=num_samples_of(num_frames, fps))
    assert kind.codec is not None and quality is not None  # noqa: PT018
    with one_line_errors(path), replacing_file(path, within=within) as aside:
        encode_video(
            aside,
            frames,
            size=size,
            fps=fps,
            note=note,
            codec=kind.codec,
            crf=quality,
            kind=kind.name,
            sound=heard,
        )
