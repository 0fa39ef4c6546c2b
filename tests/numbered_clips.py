"""Small videos whose frames carry their number, as eight bars that are a byte's bits."""

import struct
from fractions import Fraction

import av
import numpy as np

HEIGHT, WIDTH = 48, 64
_BAR = WIDTH // 8


def numbered(number: int) -> np.ndarray:
    """uint8 (48, 64, 3): bar k is white where bit k of the number is set."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(8):
        frame[:, bit * _BAR : (bit + 1) * _BAR] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number of a frame, (h, w, 3) of any size in the same proportions, mod 256."""
    height, width = frame.shape[:2]
    centres = frame[height // 2, [(2 * bit + 1) * width // 16 for bit in range(8)]].mean(-1)
    return sum(int(level > 127) << bit for bit, level in enumerate(centres))


def write_numbered(path, stamps=60, *, fps=30, key_every=12, codec="libx264", sound=0.0, file=None, x264=""):
    """Write a video with B-frames where the codec has them.

    stamps: times of frames in 1/600 s, or how many there are at a steady rate. sound: seconds of silence beside it.
    x264: further parameters of that encoder.
    """
    tick = Fraction(1, 600)
    if isinstance(stamps, int):
        stamps, tick = range(stamps), 1 / Fraction(fps)
    options = {"g": str(key_every)} | ({"bf": "2", "x264-params": f"scenecut=0:{x264}"} if codec == "libx264" else {})
    with av.open(file or str(path), "w", format="webm" if file else None) as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.time_base = tick
        silence = container.add_stream("pcm_s16le", rate=8000) if sound else None
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = int(stamp), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if silence is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, int(sound * 8000)), np.int16), "s16", "mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(silence.encode(samples))
            container.mux(silence.encode(None))
    return path


def rotate_by_header(path, matrix):
    """Let an mp4 ask its player to turn it, as phones do; matrix: a, b, c, d."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # the track header's matrix: a b u c d v x y w
    a, b, c, d = (65536 * entry for entry in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def damage(path, *, after=0.5, length=100):
    """Overwrite a part of a file's content."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * after)
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
