"""A few frames out of a video file, reached by seeking.

A clip is taken as it plays at the rate that its file states: slot j lasts from j / fps to (j + 1) / fps, and its frame
is the one on display in its middle. With a constant rate these are the file's frames, however its time stamps are
rounded; with a varying one, frames repeat or drop out as they do on a screen.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.files.names import as_stored
from dynamicrafter.media.completeness import is_cut_short
from dynamicrafter.media.decoders import decode, kind_of, opened_safely, opened_video
from dynamicrafter.media.frames import FrameReader, first_video
from dynamicrafter.media.framing import frame_picture
from dynamicrafter.media.pictures import MAX_PIXELS

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

T = TypeVar("T")
Prepare = Callable[[np.ndarray], T]

_RATES = (Fraction(1, 10), Fraction(240))  # frames per second; beyond, a header names the ticks of its clock
_SHOWN_ON = Fraction(3, 2)  # frames for which the last one may stand in where a file's length is rounded
_EARLIER = (0, 2, 10)  # seconds by which to seek before a frame; what comes out too late is tried from further back
_ESTIMATED = ("mpeg",)  # containers whose length libav guesses
_LATE_BEGIN = 2  # frames that a stream may need to its first whole one, as after a cut without re-encoding


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """How a clip plays: frames per second (the mean, where it varies) and frames at that rate."""

    fps: Fraction
    num_frames: int

    @property
    def seconds(self) -> float:
        return float(self.num_frames / self.fps)


class OpenClip(Protocol):
    """A clip that is open for reading."""

    @property
    def info(self) -> ClipInfo: ...

    @property
    def remarks(self) -> Sequence[str]:
        """What the frames read so far were converted from, such as HDR."""
        ...

    def pick(self, slots: Sequence[int], prepare: Prepare[T]) -> list[T]:
        """Read frames.

        Args:
            slots: rising places, 0 … num_frames − 1.
            prepare: what to make of each frame, uint8 (h, w, 3), upright RGB; it should be small.

        Raises:
            InputError: a frame is damaged, or the file ends before it should.
        """
        ...


@contextmanager
def opened_clip(path: Path) -> Generator[OpenClip]:
    """Open a video (or a whole GIF, WebP or NPY of ours) and find out how long it is.

    Raises:
        InputError: it is missing, empty, cut short, damaged, or does not say its frames per second.
    """
    with ExitStack() as stack:
        with opened_safely(path):
            clip = _open(path, stack)
        yield clip


def _open(path: Path, stack: ExitStack) -> OpenClip:
    path = as_stored(path)
    kind = kind_of(path)
    if kind != "video":
        decoded = decode(path, kind)
        return _Frames(decoded.frames, ClipInfo(decoded.fps, len(decoded.frames)))
    with path.open("rb") as file:
        if is_cut_short(file):
            raise InputError(f"{path} is cut short; copy or download it again.")
    return _Video(path, stack.enter_context(opened_video(path)))


def framed(size: tuple[int, int]) -> Prepare[np.ndarray]:
    """A frame scaled to cover (height, width) and cropped at the centre, uint8."""
    return lambda pixels: frame_picture(Image.fromarray(np.ascontiguousarray(pixels)), size)


@dataclass(frozen=True, slots=True)
class _Frames:
    frames: np.ndarray
    info: ClipInfo
    remarks: Sequence[str] = ()

    def pick(self, slots: Sequence[int], prepare: Prepare[T]) -> list[T]:
        return [prepare(self.frames[slot]) for slot in slots]


class _Video:
    def __init__(self, path: Path, container: InputContainer) -> None:
        self._path, self._container = path, container
        self._stream = first_video(container, path)
        self._reader = FrameReader(self._stream, path)
        # Readers run side by side already, and threads of the decoder's would read ahead.
        self._stream.codec_context.thread_count = 1
        if self._stream.time_base is None:
            raise InputError(f"{path} has no clock; write it anew with another program.")
        self._tick = Fraction(self._stream.time_base)
        self._begin = (self._stream.start_time or 0) * self._tick
        self.info = self._measure()

    @property
    def remarks(self) -> Sequence[str]:
        return tuple(self._reader.remarks)

    def _measure(self) -> ClipInfo:
        stream, container = self._stream, self._container
        fps = Fraction(stream.average_rate or 0)
        if not _RATES[0] <= fps <= _RATES[1] or container.duration is None:
            times = sorted(self._packet_times(self._begin - 1))
            if len(times) < 2 or times[0] == times[-1]:
                raise InputError(f"{self._path} does not say its frames per second.")
            self._begin = times[0]
            return ClipInfo((len(times) - 1) / (times[-1] - times[0]), len(times))
        if stream.duration is not None and container.format.name not in _ESTIMATED:
            seconds = stream.duration * self._tick
        else:  # what the container says is the sound's length where that is longer, or a guess
            end = Fraction((container.start_time or 0) + container.duration, 1_000_000)
            near_end = list(self._packet_times(end))
            last = max(near_end or self._packet_times(self._begin - 1), default=self._begin)
            seconds = last - self._begin + 1 / fps
        return ClipInfo(fps, max(1, round(seconds * fps)))

    def _packet_times(self, after: Fraction) -> Iterator[Fraction]:
        """When frames show, from the last key frame before a time, in the order of the file, without decoding."""
        self._seek(after)
        for packet in self._container.demux(self._stream):
            if packet.pts is not None:
                yield packet.pts * self._tick

    def _seek(self, time: Fraction) -> None:
        """Go to the last key frame before a time, or to the first one."""
        try:
            self._container.seek(int(time / self._tick), stream=self._stream, backward=True)
        except OSError:
            if time >= self._begin:
                raise
            # Some containers have nothing before their first frame, and others can't go to it but from before.
            self._container.seek(int(self._begin / self._tick), stream=self._stream, backward=True)

    def pick(self, slots: Sequence[int], prepare: Prepare[T]) -> list[T]:
        with opened_safely(self._path):
            return self._pick([self._begin + (slot + Fraction(1, 2)) / self.info.fps for slot in slots], prepare)

    def _pick(self, times: Sequence[Fraction], prepare: Prepare[T]) -> list[T]:
        # An index goes by the order of decoding, and MPEG streams have none: a seek may come out after its target.
        for earlier in (*_EARLIER, None):
            from_begin = earlier is None or times[0] - earlier <= self._begin
            self._seek(self._begin - 1 if from_begin else times[0] - earlier)
            found = self._show(times, prepare, from_begin=from_begin)
            if found is not None:
                return found
            if from_begin:
                break
        raise InputError(f"{self._path} is damaged: frames around {float(times[0]):.1f} s cannot be decoded.")

    def _show(self, times: Sequence[Fraction], prepare: Prepare[T], *, from_begin: bool) -> list[T] | None:
        """Decode on from here and keep what is on display at the times; None where that cannot be told from here."""
        found: list[T] = []
        shown: VideoFrame | None = None
        shown_at = Fraction(0)
        latest_first = max(times[0], self._begin + _LATE_BEGIN / self.info.fps) if from_begin else times[0]
        for frame, time in self._timed():
            if shown is None and time > latest_first:
                return None
            while shown is not None and len(found) < len(times) and times[len(found)] < time:
                if shown.is_corrupt:
                    return None
                found.append(prepare(self._upright(shown)))
            if len(found) == len(times):
                return found
            shown, shown_at = frame, time
        if shown is None or shown.is_corrupt:
            return None
        ends = shown_at + max((shown.duration or 0) * self._tick, _SHOWN_ON / self.info.fps)
        if times[-1] > ends:
            seconds = float(ends - self._begin)
            raise InputError(f"{self._path} ends at {seconds:.1f} s, before it should; copy it again.")
        return found + [prepare(self._upright(shown)) for _ in times[len(found) :]]

    def _timed(self) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Decode on from here: frames and when they show; MPEG stamps only some, and the others follow at the rate."""
        time: Fraction | None = None
        for frame in self._reader.progressive(_decoded(self._container, self._stream)):
            if frame.pts is not None:
                time = frame.pts * self._tick
            elif time is not None:
                time += 1 / self.info.fps
            if time is not None:
                yield frame, time

    def _upright(self, frame: VideoFrame) -> np.ndarray:
        if frame.width * frame.height > MAX_PIXELS:
            raise InputError(f"{self._path} has frames of {frame.width}×{frame.height} pixels; scale it down first.")
        return self._reader.rgb(frame)


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    return container.decode(stream)
