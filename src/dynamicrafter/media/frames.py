"""From libav's frames to upright RGB, as a player shows them: what container and camera say of a video, heeded.

Display matrices (turned and mirrored), pixels that are not square, fields (deinterlaced by bwdif), and HDR (PQ and HLG)
brought to SDR: BT.2408 puts the white of SDR at 203 nits, the signal 0.58 of PQ and 0.75 of HLG. It becomes 255, darker
light keeps its place below it, and brighter light is cut off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.media.encoders import EXACT_SWSCALE

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.filter import Graph

MOST_STRETCH = 4  # of one side for square pixels; what asks for more is damaged
_THUMBNAILS = 0x400 | 0x800  # libav's dispositions of attached pictures and timed thumbnails
_PQ, _HLG = 16, 18  # ITU-T H.273, transfer characteristics
_BT2020 = 9  # H.273, primaries
_LEVELS = 1 << 16
_FULL = 255 << 8  # what swscale makes of a signal of 1 in 16 bits; its rgb48 overflows
_PQ_WHITE, _HLG_WHITE = 203 / 10_000, 0.265  # of what the signal 1 stands for, which is 10,000 nits in PQ
# ITU-R BT.2087, from the primaries of BT.2020 to those of BT.709, in linear light.
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


def first_video(container: InputContainer, name: object) -> VideoStream:
    """The first video track that is no cover picture.

    Raises:
        InputError: there is none.
    """
    for stream in container.streams.video:
        if not int(stream.disposition) & _THUMBNAILS:
            return stream
    raise InputError(f"{name} holds no video.")


class FrameReader:
    """Frames of one video track as RGB.

    Attributes:
        remarks: what was met in the frames so far that is not shown as it was stored.
    """

    def __init__(self, stream: VideoStream, name: object) -> None:
        self._stretch = _stretch(stream.sample_aspect_ratio, name)
        self.remarks: dict[str, None] = {}

    def progressive(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Give frames on as they come, those of two fields as one moment each, from the first such frame on."""
        graph: Graph | None = None
        times: deque[tuple[int | None, Fraction | None, int]] = deque()
        for frame in frames:
            if graph is None and frame.interlaced_frame:
                self.remarks["interlaced"] = None
                graph = _deinterlacer(frame)
            if graph is None:
                yield frame
                continue
            times.append((frame.pts, frame.time_base, frame.duration))
            graph.vpush(frame)
            yield from _pulled(graph, times)
        if graph is not None:
            graph.vpush(None)
            yield from _pulled(graph, times)

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """A decoded frame as uint8 (h, w, 3) with square pixels, as its file asks to show it."""
        if frame.color_trc in (_PQ, _HLG):
            self.remarks["HDR"] = None
            pixels = _tone_mapped(_converted(frame, "gbrp16le"), frame.color_trc, wide=frame.color_primaries == _BT2020)
        else:
            pixels = _converted(frame, "rgb24")
        if self._stretch != (1, 1):
            self.remarks["pixels that are not square"] = None
            size = (round(pixels.shape[1] * self._stretch[0]), round(pixels.shape[0] * self._stretch[1]))
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        return self._oriented(pixels, frame)

    def _oriented(self, pixels: np.ndarray, frame: VideoFrame) -> np.ndarray:
        """Apply the display matrix, to the nearest of the eight ways to lay a picture down.

        Source: ISO/IEC 14496-12 §8.3.2: (x, y) is shown at (a·x + c·y, b·x + d·y).
        """
        kept: Any = frame.side_data  # its iterator gives values, where a mapping's gives keys
        said = next((each for each in kept if each.type.name == "DISPLAYMATRIX"), None)
        if said is None:
            return pixels
        a, b, _, c, d = np.frombuffer(bytes(said), np.int32)[:5].astype(float)
        if max(abs(b), abs(c)) > max(abs(a), abs(d)):
            pixels, across, down = pixels.transpose(1, 0, 2), c, b
        else:
            across, down = a, d
        if a * d < b * c:
            self.remarks["mirrored"] = None
        return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _stretch(aspect: Fraction | None, name: object) -> tuple[Fraction, Fraction]:
    """Factors of width and height that make pixels square, neither below 1."""
    if not aspect or aspect < 0:
        return Fraction(1), Fraction(1)
    if not Fraction(1, MOST_STRETCH) <= aspect <= MOST_STRETCH:
        raise InputError(f"{name} says that its pixels are {aspect} times as wide as high; write it anew.")
    return max(Fraction(1), Fraction(aspect)), max(Fraction(1), 1 / Fraction(aspect))


def _converted(frame: VideoFrame, kind: str) -> np.ndarray:
    """RGB of a kind, rounded where libav's default truncates."""
    from av.video.reformatter import ColorRange

    return frame.reformat(
        format=kind,
        src_colorspace=frame.colorspace,
        src_color_range=frame.color_range,
        dst_color_range=ColorRange.JPEG,  # full range; older PyAV heeds the source's matrix only if this is given
        interpolation=EXACT_SWSCALE,
        threads=1,  # threads of the scaler's would be waited for in vain by a process that was forked meanwhile
    ).to_ndarray()


def _tone_mapped(signal: np.ndarray, transfer: int, *, wide: bool) -> np.ndarray:
    """HDR of 16 bits as SDR of 8. wide: the colours are BT.2020's, and become BT.709's."""
    light = _light(transfer)[signal]
    if wide:
        light = light @ _TO_BT709.T
    return _srgb()[(light.clip(0, 1) * (_LEVELS - 1)).round().astype(np.uint16)]


@cache
def _light(transfer: int) -> np.ndarray:
    """Linear light of each level of a signal, 1 for the white of SDR.

    Source: SMPTE ST 2084 eq. 4.1 and 5.2; ITU-R BT.2100, table 5, HLG's inverse OETF.
    """
    signal = (np.arange(_LEVELS) / _FULL).clip(0, 1)
    if transfer == _PQ:
        power = signal ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        return (light / _PQ_WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return (light / _HLG_WHITE).astype(np.float32)


@cache
def _srgb() -> np.ndarray:
    """Level of 8 bits for each of 65,536 steps of linear light. Source: IEC 61966-2-1."""
    light = np.arange(_LEVELS) / (_LEVELS - 1)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (signal * 255).round().astype(np.uint8)


def _deinterlacer(frame: VideoFrame) -> Graph:
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1  # as above
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
        ),
        graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pulled(graph: Graph, times: deque[tuple[int | None, Fraction | None, int]]) -> Iterator[VideoFrame]:
    """What the filter has ready; it keeps the order of frames, but not their times."""
    from av import FFmpegError

    while times:
        try:
            frame = graph.vpull()
        except (EOFError, BlockingIOError):
            return
        except FFmpegError as error:
            raise InputError(f"its fields can't be put together ({error.strerror})") from error
        frame.pts, frame.time_base, frame.duration = times.popleft()
        yield frame
