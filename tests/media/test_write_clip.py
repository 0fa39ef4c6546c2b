import json
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from dynamicrafter.errors import InputError
from dynamicrafter.media.encoders import frame_durations
from dynamicrafter.media.video import read_clip, read_metadata, write_clip

NAMES = ("clip.mp4", "clip.webm", "clip.gif", "clip.webp", "clip", "clip.npy")
OPTIONS = {"prompt": 'Boot ⛵ auf "See"\n', "seed": 2**62, "nested": {"list": [1, 2.5, None, True], "empty": {}}}


def panning(num_frames: int = 5, height: int = 96, width: int = 128) -> np.ndarray:
    """A photograph, with the view moving right and down."""
    photo = np.asarray(Image.fromarray(data.coffee()).reduce(2))
    return np.stack([photo[2 * i : 2 * i + height, 4 * i : 4 * i + width] for i in range(num_frames)])


def gradient(height: int = 96, width: int = 128) -> np.ndarray:
    """Two frames of colours that change smoothly and cover most of the cube."""
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([255 * x / width, 255 * y / height, 127 * (x / width + y / height)], -1).round().astype(np.uint8)
    return np.stack([frame, frame[::-1]])


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((found.astype(float) - wanted) ** 2), 1e-9))


@pytest.mark.parametrize("name", NAMES)
def test_pixels_rate_and_options_come_back_from_every_format(tmp_path, name):
    clip = panning()
    write_clip(tmp_path / name, clip, fps="24000/1001", metadata=OPTIONS)
    frames, fps = read_clip(tmp_path / name)
    assert frames.shape == clip.shape
    assert frames.dtype == np.uint8
    assert fps == Fraction(24000, 1001)
    assert read_metadata(tmp_path / name) == OPTIONS
    if name in ("clip", "clip.npy"):
        assert np.array_equal(frames, clip)
    else:
        assert min(psnr(found, wanted) for found, wanted in zip(frames, clip, strict=True)) > 30


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm"])
def test_a_video_does_not_depend_on_the_number_of_cores(tmp_path, name):
    cores = os.sched_getaffinity(0)
    clip = panning(24, 128, 192)
    try:
        os.sched_setaffinity(0, {min(cores)})
        write_clip(tmp_path / f"one-{name}", clip, fps=8, metadata=OPTIONS)
    finally:
        os.sched_setaffinity(0, cores)
    write_clip(tmp_path / f"all-{name}", clip, fps=8, metadata=OPTIONS)
    one, every = (read_clip(tmp_path / f"{cores}-{name}")[0] for cores in ("one", "all"))
    np.testing.assert_array_equal(one, every)


@pytest.mark.parametrize("width", [64, 128, 192, 320])
def test_the_same_frames_give_the_same_video_each_time(tmp_path, width):
    part, chance = panning(32, 64, 64), np.random.default_rng(0)
    clip = np.concatenate([np.roll(part, 5 * index, axis=2) for index in range(width // 64)], axis=2)
    seen = set()
    for _ in range(4):
        dirt = [chance.integers(0, 256, size, dtype=np.uint8) for size in chance.integers(1000, 400_000, 60)]
        del dirt  # left in memory, for whoever reads more than is its own
        write_clip(tmp_path / "clip.mp4", clip, fps=8, metadata=OPTIONS)
        seen.add((tmp_path / "clip.mp4").read_bytes())
    assert len(seen) == 1


@pytest.mark.parametrize("name", NAMES)
def test_options_of_the_largest_size_come_back_from_every_format(tmp_path, name):
    options = {"curve": [[index] for index in range(8000)]}
    write_clip(tmp_path / name, panning(1, 16, 16), fps=8, metadata=options)
    assert read_metadata(tmp_path / name) == options
    assert read_clip(tmp_path / name)[1] == 8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fps", [8, 0.1, 29.97, Fraction(50)])
@pytest.mark.parametrize("num_frames", [1, 2])
def test_the_shortest_clips_keep_their_length_and_rate(tmp_path, name, fps, num_frames):
    write_clip(tmp_path / name, panning(num_frames, 32, 64), fps=fps, metadata={})
    frames, rate = read_clip(str(tmp_path / name))
    assert len(frames) == num_frames
    assert rate == Fraction(str(fps))


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_without_motion_keeps_its_length_although_formats_merge_equal_frames(tmp_path, name):
    clip = panning(3, 32, 64)[[0, 0, 1, 1, 1, 2, 2]]
    for still in (clip, clip[[0] * 7]):
        write_clip(tmp_path / name, still, fps=8, metadata={})
        frames, rate = read_clip(tmp_path / name)
        assert (len(frames), rate) == (7, 8)
        assert min(psnr(found, wanted) for found, wanted in zip(frames, still, strict=True)) > 25


@pytest.mark.parametrize(("name", "crf"), [("a.mp4", 0), ("a.mp4", 10), ("a.webm", 0), ("a.webm", 10)])
def test_video_is_neither_darker_nor_of_another_hue(tmp_path, name, crf):
    write_clip(tmp_path / name, gradient(), fps=8, metadata={}, crf=crf)
    frames = read_clip(tmp_path / name)[0]
    assert psnr(frames, gradient()) > 48
    assert np.abs((frames.astype(float) - gradient()).mean((0, 1, 2))).max() < 0.2


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 50)])
def test_flat_colours_survive_video(tmp_path, name, colour):
    write_clip(tmp_path / name, np.full((1, 32, 32, 3), colour, np.uint8), fps=8, metadata={}, crf=4)
    assert np.abs(read_clip(tmp_path / name)[0].astype(int) - colour).max() <= 3


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "h264"), ("a.webm", "vp9")])
def test_video_says_which_colours_it_holds(tmp_path, name, codec):
    write_clip(tmp_path / name, panning(2), fps=8, metadata={})
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        assert stream.codec_context.name.startswith(codec) or codec in stream.codec_context.codec.name
        assert frame.format.name == "yuv420p"
        assert (frame.colorspace, frame.color_range) == (1, 1), "BT.709 matrix, limited range"
        assert (frame.color_primaries, frame.color_trc) == (1, 1)


def test_an_mp4_starts_with_its_index_so_that_a_page_can_play_it_while_loading(tmp_path):
    write_clip(tmp_path / "a.mp4", panning(), fps=8, metadata={})
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_larger_crf_gives_a_smaller_file(tmp_path, name):
    sizes = []
    for crf in (4, 20, 45):
        write_clip(tmp_path / name, panning(), fps=8, metadata={}, crf=crf)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_animations_loop_for_ever_and_keep_time(tmp_path, name):
    write_clip(tmp_path / name, panning(8, 32, 64), fps=8, metadata={})
    with Image.open(tmp_path / name) as image:
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            durations.append(image.info["duration"])
        assert image.info["loop"] == 0
        assert sum(durations) == 1000
        assert set(durations) <= ({120, 130} if name == "a.gif" else {125})


def test_a_gif_keeps_smooth_colours_without_bands(tmp_path):
    write_clip(tmp_path / "a.gif", gradient(), fps=8, metadata={})
    frames = read_clip(tmp_path / "a.gif")[0].astype(float)
    assert psnr(frames, gradient()) > 27
    blocks = (frames - gradient()).reshape(2, 12, 8, 16, 8, 3).mean((2, 4))
    assert np.abs(blocks).mean() < 1, "seen from afar, error diffusion gives the exact colour"


@given(num_frames=st.integers(1, 200), fps=st.fractions(Fraction(1, 10), 50, max_denominator=1001))
def test_durations_in_ticks_never_drift(num_frames, fps):
    durations = frame_durations(num_frames, fps=fps, tick=10)
    assert min(durations) >= 10
    assert all(duration % 10 == 0 for duration in durations)
    for count, end in enumerate(np.cumsum(durations), start=1):
        assert abs(end - 1000 * count / fps) <= 5


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a", "a.npy"])
def test_odd_sizes_are_kept_where_the_format_can(tmp_path, name):
    write_clip(tmp_path / name, panning(2, 33, 65), fps=8, metadata={})
    assert read_clip(tmp_path / name)[0].shape == (2, 33, 65, 3)
    write_clip(tmp_path / name, panning(1, 1, 1), fps=8, metadata={})
    assert read_clip(tmp_path / name)[0].shape == (1, 1, 1, 3)


@pytest.mark.parametrize("name", ["mp4", "mov", "webm"])
@pytest.mark.parametrize(("height", "width"), [(33, 64), (32, 65)])
def test_odd_sizes_are_refused_where_it_cannot(tmp_path, name, height, width):
    with pytest.raises(InputError, match=f"height and width must be even for {name}, got {height}×{width}; crop or"):
        write_clip(tmp_path / f"a.{name}", panning(2, height, width), fps=8, metadata={})
    assert not list(tmp_path.iterdir())


def test_frames_need_not_lie_in_one_piece(tmp_path):
    clip = panning(4)[::-2, ::2, ::-2]
    for name in ("a", "a.npy"):
        write_clip(tmp_path / name, clip, fps=8, metadata={})
        assert np.array_equal(read_clip(tmp_path / name)[0], clip)
    write_clip(tmp_path / "a.mp4", clip, fps=8, metadata={}, crf=1)
    assert psnr(read_clip(tmp_path / "a.mp4")[0], clip) > 30


def test_a_folder_holds_numbered_frames_and_readable_options(tmp_path):
    write_clip(tmp_path / "clip", panning(3), fps=8, metadata=OPTIONS)
    assert sorted(entry.name for entry in (tmp_path / "clip").iterdir()) == [
        "0000.png",
        "0001.png",
        "0002.png",
        "clip.json",
    ]
    assert json.loads((tmp_path / "clip" / "clip.json").read_text())["dynamicrafter"] == OPTIONS
    assert read_metadata(tmp_path / "clip" / "0000.png") == OPTIONS
    with pytest.raises(InputError, match="carries no dynamicrafter options"):
        read_metadata(tmp_path / "clip" / "0001.png")


def test_an_npy_is_what_numpy_loads(tmp_path):
    write_clip(tmp_path / "a.npy", panning(3), fps=8, metadata=OPTIONS)
    assert np.array_equal(np.load(tmp_path / "a.npy"), panning(3))


def test_format_decides_where_the_extension_does_not(tmp_path):
    write_clip(tmp_path / "clip", panning(2), fps=8, metadata={}, format="mp4")
    write_clip(tmp_path / "take.2", panning(2), fps=8, metadata={}, format="gif")
    write_clip(tmp_path / "take.3", panning(2), fps=8, metadata={}, format="png")
    write_clip(tmp_path / "LOUD.MP4", panning(2), fps=8, metadata={})
    assert (tmp_path / "clip").read_bytes()[4:8] == b"ftyp"
    assert (tmp_path / "LOUD.MP4").read_bytes()[4:8] == b"ftyp"
    assert (tmp_path / "take.2").read_bytes()[:4] == b"GIF8"
    assert (tmp_path / "take.3" / "0001.png").is_file()


@pytest.mark.parametrize(
    ("frames", "line"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), r"frames must be a uint8 array of shape \(f, h, w, 3\), got float32"),
        (np.zeros((32, 32, 3), np.uint8), r"frames must be a uint8 array .* got uint8 \(32, 32, 3\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"frames must be a uint8 array .* got uint8 \(2, 3, 32, 32\)"),
        (np.zeros((0, 32, 32, 3), np.uint8), r"frames must hold at least one frame of one pixel, got shape \(0,"),
        ([[0]], "frames must be a uint8 array .* got list"),
    ],
)
def test_what_is_no_clip_is_refused(tmp_path, frames, line):
    with pytest.raises(InputError, match=line):
        write_clip(tmp_path / "a.mp4", frames, fps=8, metadata={})


@pytest.mark.parametrize(
    ("name", "crf", "line"),
    [
        ("a.mp4", 52, r"crf must be a whole number from 0 \(best\) to 51 \(worst\) for mp4, got 52; try 16"),
        ("a.mp4", -1, "crf must be a whole number .* got -1"),
        ("a.mp4", 10.5, "crf must be a whole number .* got 10.5"),
        ("a.mp4", True, "crf must be a whole number .* got True"),
        ("a.webm", 64, r"crf must be a whole number from 0 \(best\) to 63 \(worst\) for webm, got 64; try 24"),
        ("a.gif", 10, "crf applies to mp4, mov and webm only, got crf 10 for gif; leave it out"),
        ("a", 10, "crf applies to mp4, mov and webm only, got crf 10 for png; leave it out"),
    ],
)
def test_a_crf_that_the_codec_does_not_know_is_refused(tmp_path, name, crf, line):
    with pytest.raises(InputError, match=line):
        write_clip(tmp_path / name, panning(1), fps=8, metadata={}, crf=crf)


def test_a_gif_faster_than_viewers_play_is_refused(tmp_path):
    with pytest.raises(InputError, match="fps must be at most 50 for gif, got 60; try mp4 or webm"):
        write_clip(tmp_path / "a.gif", panning(1), fps=60, metadata={})


def test_reading_and_writing_import_neither_torch_nor_av_before_they_are_needed():
    code = (
        "import sys, dynamicrafter.media.pictures, dynamicrafter.media.framing, dynamicrafter.media.video, "
        "dynamicrafter.media.contact_sheet; print([m for m in ('torch', 'av') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"
