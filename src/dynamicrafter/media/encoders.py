"""One function per kind of output: uint8 frames and a note to a file or folder under a name that is given."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, PngImagePlugin

from dynamicrafter.errors import OutputError
from dynamicrafter.media.formats import EVEN_WIDTH
from dynamicrafter.media.notes import MAX_NOTE
from dynamicrafter.media.sound import SoundTrack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av import AudioFrame, VideoFrame

    from dynamicrafter.media.formats import Codec

NOTE_FILE = "clip.json"
NOTE_TEXT = "dynamicrafter"  # keyword of the first PNG's text
EXIF_IMAGE_DESCRIPTION = 0x010E

GIF_TICK, WEBP_TICK = 10, 1  # milliseconds: the formats' units of time
_PALETTE_PIXELS = 100_000  # a sample of the clip, enough to choose 256 colours

# swscale's defaults truncate: half a level darker on the way back, and more in saturated colours. These are its
# SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP, which older PyAV does not name.
EXACT_SWSCALE = 0x2 | 0x40000 | 0x2000 | 0x4000


def encode_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    size: tuple[int, int],
    fps: Fraction,
    note: str,
    codec: Codec,
    crf: int,
    kind: str,
    sound: Iterator[AudioFrame] | None = None,
) -> None:
    """Write an mp4 or webm: yuv420p with left-sited colours, BT.709 in limited range, and tagged so.

    Frames are taken one at a time, so that a film of any length needs the memory of a short one.

    Args:
        frames: uint8 (h, w, 3) each.
        size: (height, width) of all of them.
        sound: what is heard meanwhile, as `sound_of` gives it; becomes AAC.

    Raises:
        OutputError: the encoder refuses the frames.
        OSError: the disk does.
    """
    import av
    from av.video.reformatter import ColorRange, Colorspace

    height, width = size
    options = {**dict(codec.options), **dict(codec.uneven_options if width % EVEN_WIDTH else ()), "crf": str(crf)}
    try:
        with av.open(str(path), "w", format=kind, options=dict(codec.container_options)) as container:
            container.metadata["comment"] = note
            stream = container.add_stream(codec.name, rate=fps, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            context = stream.codec_context
            context.color_range = ColorRange.MPEG
            context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
            track = None if sound is None else SoundTrack(container, sound)
            for shown, frame in enumerate(_yuv_frames(frames, size, fps), start=1):
                container.mux(stream.encode(frame))
                if track is not None:
                    track.play_until(shown / fps)
            container.mux(stream.encode(None))
            if track is not None:
                track.finish()
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise OutputError(f"the {kind} encoder refused frames of {height}×{width} ({error}); try png.") from error


def _yuv_frames(frames: Iterable[np.ndarray], size: tuple[int, int], fps: Fraction) -> Iterator[VideoFrame]:
    """Convert RGB to BT.709 by libav's scale filter, which alone can put the colours where players look for them."""
    from av import VideoFormat, VideoFrame
    from av.filter import Graph

    height, width = size
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=1 / fps),
        graph.add("scale", f"out_color_matrix=bt709:out_range=tv:out_chroma_loc=left:sws_flags={EXACT_SWSCALE}"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ).configure()
    for index, pixels in enumerate(frames):
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        rgb.pts, rgb.time_base = index, 1 / fps
        graph.vpush(rgb)
        yield graph.vpull()


def time_after(num_frames: int, *, fps: Fraction, tick: int) -> int:
    """Milliseconds after which so many frames have been shown, to the nearest tick."""
    return round(Fraction(1000 * num_frames, tick) / fps) * tick


def frame_durations(num_frames: int, *, fps: Fraction, tick: int) -> list[int]:
    """Milliseconds that each frame shows, in whole ticks, rounded so that no error adds up along the clip."""
    return [end - start for start, end in pairwise(time_after(i, fps=fps, tick=tick) for i in range(num_frames + 1))]


def encode_gif(path: Path, frames: np.ndarray, *, fps: Fraction, note: str) -> None:
    """Write a GIF that loops for ever, with one palette for the whole clip and error diffusion."""
    sample = frames.reshape(-1, 3)
    sample = sample[:: -(-len(sample) // _PALETTE_PIXELS)]
    palette = Image.fromarray(sample[None]).quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    first, *rest = (
        Image.fromarray(pixels).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for pixels in frames
    )
    durations = frame_durations(len(frames), fps=fps, tick=GIF_TICK)
    first.save(path, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, comment=note.encode())


def encode_webp(path: Path, frames: np.ndarray, *, fps: Fraction, note: str) -> None:
    """Write an animated WebP that loops for ever."""
    exif = Image.Exif()
    exif[EXIF_IMAGE_DESCRIPTION] = note
    first, *rest = (Image.fromarray(pixels) for pixels in frames)
    durations = frame_durations(len(frames), fps=fps, tick=WEBP_TICK)
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=90, exif=exif)


def encode_png_folder(folder: Path, frames: np.ndarray, *, note: str) -> None:
    """Fill a folder with 0000.png, 0001.png, …, and clip.json, the note."""
    text = PngImagePlugin.PngInfo()
    text.add_text(NOTE_TEXT, note)
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / f"{index:04}.png", pnginfo=None if index else text)
    readable = json.dumps(json.loads(note), indent=2)
    (folder / NOTE_FILE).write_text(readable if len(readable) <= MAX_NOTE else note)


def encode_npy(path: Path, frames: np.ndarray, *, note: str) -> None:
    """Write the array as `numpy.load` reads it, and the note after its end."""
    frames = np.ascontiguousarray(frames)
    with path.open("wb") as file:  # numpy's own writing would hide why the disk refuses
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(frames))
        file.write(frames.data)
        file.write(note.encode())
