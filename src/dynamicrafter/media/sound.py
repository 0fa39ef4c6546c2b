"""What is heard while a film plays: any file of sound, made as long as the film.

Files are untrusted: libav may open no other file or address for them.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynamicrafter.errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import InputContainer, OutputContainer

SAMPLE_RATE = 48_000  # samples a second of what is written
_BLOCK = 1024  # samples; what AAC codes at a time
_BIT_RATE = 192_000  # bits a second
# Of what libav reads, the containers of sound and of video with sound; none that reads lists of other files.
_DEMUXERS = (
    "wav,w64,aiff,au,caf,mp3,aac,ac3,eac3,flac,ogg,opus,wv,tta,ape,amr,asf,"
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv"
)


def check_sound(path: Path) -> None:
    """Find out whether a file has sound that can be decoded.

    Raises:
        InputError: there is no such file, or nothing that can be heard in it.
    """
    if next(sound_of(path, num_samples=1), None) is None:
        raise InputError(f"{path} holds no sound; name another file.")


def num_samples_of(num_frames: int, fps: Fraction) -> int:
    """How many samples are heard while so many frames are shown."""
    return round(num_frames / fps * SAMPLE_RATE)


def sound_of(path: Path, *, num_samples: int) -> Iterator[AudioFrame]:
    """Decode a file's first sound track, cut off or followed by silence so that it is `num_samples` long.

    Yields:
        Stereo frames of 48,000 floats a second, at most 1,024 samples each.

    Raises:
        InputError: see `check_sound`; the file is damaged.
    """
    from av import AudioFrame

    def frame(samples: np.ndarray, start: int) -> AudioFrame:
        made = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
        made.sample_rate, made.time_base, made.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), start
        return made

    heard = 0
    for samples in _decoded(path):
        kept = samples[:, : num_samples - heard]
        yield frame(kept, heard)
        heard += kept.shape[1]
        if heard == num_samples:
            return
    while heard < num_samples:
        silence = np.zeros((2, min(_BLOCK, num_samples - heard)), np.float32)
        yield frame(silence, heard)
        heard += silence.shape[1]


def _decoded(path: Path) -> Iterator[np.ndarray]:
    """A file's samples, float32 (2, up to 1024)."""
    from av import AudioResampler

    resampler = AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE, frame_size=_BLOCK)
    found = False
    with _opened(path) as container, _one_line_errors(path):
        for decoded in container.decode(container.streams.audio[0]):
            for frame in resampler.resample(decoded):
                found = True
                yield frame.to_ndarray()
        for frame in resampler.resample(None):
            yield frame.to_ndarray()
    if not found:
        raise InputError(f"{path} holds no sound; name another file.")


@contextmanager
def _opened(path: Path) -> Generator[InputContainer]:
    import av

    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; check the name of the sound and its folder.")
    with _one_line_errors(path):
        # An absolute path is never mistaken for an address.
        container = av.open(os.path.abspath(path), options=options)  # noqa: PTH100
    with container:
        if not container.streams.audio:
            raise InputError(f"{path} holds no sound; name another file.")
        yield container


@contextmanager
def _one_line_errors(path: Path) -> Generator[None]:
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path} is no sound that can be read here, or damaged ({reason}).") from error


class SoundTrack:
    """The sound of a film in the making, written in step with its pictures.

    Were all of one written before the other, libav would have to hold it in memory.
    """

    def __init__(self, container: OutputContainer, sound: Iterator[AudioFrame]) -> None:
        self._container, self._sound = container, sound
        self._stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        self._stream.bit_rate = _BIT_RATE
        self._heard = 0

    def play_until(self, seconds: Fraction) -> None:
        """Write what is heard up to a moment of the film."""
        while self._heard < seconds * SAMPLE_RATE:
            frame = next(self._sound, None)
            if frame is None:
                return
            self._heard += frame.samples
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the rest."""
        for frame in self._sound:
            self._container.mux(self._stream.encode(frame))
        self._container.mux(self._stream.encode(None))
