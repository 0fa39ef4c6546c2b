import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.media import decoders
from dynamicrafter.media.completeness import is_cut_short
from dynamicrafter.media.video import read_clip, read_metadata, write_clip

NAMES = ("clip.mp4", "clip.webm", "clip.gif", "clip.webp", "clip", "clip.npy")


def shades(num_frames: int = 3, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that grow brighter, each with a dark upper left quarter."""
    frames = np.stack([np.full((height, width, 3), 100 + 40 * i, np.uint8) for i in range(num_frames)])
    frames[:, : height // 2, : width // 2] = 20
    return frames


def encode(path, frames, codec, pixel_format, *, rate=8, **tags):
    with av.open(str(path), "w") as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mov", "libx264", "yuv444p"),
        ("a.mkv", "ffv1", "bgr0"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "libx264", "yuv420p10le"),
    ],
)
def test_videos_from_elsewhere_are_read(tmp_path, name, codec, pixel_format):
    encode(tmp_path / name, shades(), codec, pixel_format, rate=Fraction(30000, 1001))
    frames, fps = read_clip(tmp_path / name)
    assert fps == Fraction(30000, 1001)
    assert np.abs(frames.astype(int) - shades()).mean() < 3
    with pytest.raises(InputError, match="carries no dynamicrafter options; name a clip that dynamicrafter wrote"):
        read_metadata(tmp_path / name)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["right", "upside down", "left"],
)
def test_a_phone_held_upright_gives_upright_frames(tmp_path, matrix, turns):
    path = tmp_path / "a.mp4"
    write_clip(path, shades(), fps=8, metadata={}, crf=4)
    plain = read_clip(path)[0]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # the track header's matrix: a b u c d v x y w, 16.16 and 2.30 fixed point
    a, b, c, d = (65536 * entry for entry in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert np.array_equal(read_clip(path)[0], np.rot90(plain, turns, axes=(1, 2)))


def test_a_comment_of_someone_else_is_no_option(tmp_path):
    encode(tmp_path / "a.mp4", shades(), "libx264", "yuv420p", comment='{"seed": 7}')
    with pytest.raises(InputError, match="carries no dynamicrafter options"):
        read_metadata(tmp_path / "a.mp4")


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_from_elsewhere_gives_its_frames_at_their_mean_rate(tmp_path, kind):
    first, *rest = (Image.fromarray(pixels) for pixels in shades(4))
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=rest, duration=[100, 100, 100, 500])
    frames, fps = read_clip(tmp_path / f"a.{kind}")
    assert frames.shape == (4, 48, 64, 3)
    assert fps == 5
    with pytest.raises(InputError, match="carries no dynamicrafter options"):
        read_metadata(tmp_path / f"a.{kind}")


def test_an_animation_whose_timing_was_changed_since_is_read_as_it_plays_now(tmp_path):
    path = tmp_path / "a.gif"
    write_clip(path, shades(4), fps=8, metadata={"seed": 7})
    with Image.open(path) as image:
        image.save(tmp_path / "b.gif", save_all=True, duration=200, comment=image.info["comment"])
    frames, fps = read_clip(tmp_path / "b.gif")
    assert (len(frames), fps) == (4, 5)
    assert read_metadata(tmp_path / "b.gif") == {"seed": 7}


def test_a_still_animation_from_elsewhere_is_refused_as_a_picture(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp")
    with pytest.raises(InputError, match=r"a\.webp is one picture, where a clip is wanted"):
        read_clip(tmp_path / "a.webp")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "clip"])
@pytest.mark.parametrize("part", [0.97, 0.6, 0.1])
def test_a_clip_cut_short_is_refused_and_not_read_as_a_shorter_one(tmp_path, name, part):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    write_clip(path, noise, fps=8, metadata={})
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(InputError, match=r"is cut short; copy or download it again|or a damaged one"):
        read_clip(path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm"])
def test_a_whole_video_is_not_taken_for_a_cut_one(tmp_path, name):
    path = tmp_path / name
    write_clip(path, shades(), fps=8, metadata={})
    with path.open("rb") as file:
        assert not is_cut_short(file)
    with path.open("ab") as file:
        file.write(b"trailing bytes of another program")
    with path.open("rb") as file:
        assert not is_cut_short(file)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\xff\x18\x53\x80\x67", b"text" * 9]
)
def test_a_file_of_another_kind_is_left_to_its_reader(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with (tmp_path / "a").open("rb") as file:
        assert not is_cut_short(file)


def test_a_folder_with_a_frame_missing_is_refused(tmp_path):
    write_clip(tmp_path / "clip", shades(), fps=8, metadata={})
    (tmp_path / "clip" / "0002.png").unlink()
    with pytest.raises(InputError, match=r"clip must hold 3 frames, as its clip.json says, no more and no fewer"):
        read_clip(tmp_path / "clip")


def test_a_folder_with_a_frame_of_another_size_is_refused(tmp_path):
    write_clip(tmp_path / "clip", shades(), fps=8, metadata={})
    Image.new("RGB", (8, 8)).save(tmp_path / "clip" / "0001.png")
    with pytest.raises(InputError, match="clip changes its size at frame 1; cut or scale it first"):
        read_clip(tmp_path / "clip")


def test_a_folder_without_a_note_is_no_clip(tmp_path):
    with pytest.raises(InputError, match=r"is no clip: it has no clip\.json of ours"):
        read_clip(tmp_path)
    with pytest.raises(InputError, match="carries no dynamicrafter options"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch, name):
    write_clip(tmp_path / name, shades()[[0] * 9], fps=8, metadata={})
    monkeypatch.setattr(decoders, "MAX_CLIP_BYTES", 8 * 48 * 64 * 3)
    with pytest.raises(InputError, match=r"takes more than .* GiB"):
        read_clip(tmp_path / name)


def test_a_note_may_not_multiply_frames_without_end(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = '{"dynamicrafter": {}, "fps": "8", "frames": 999999999999}'
    Image.new("RGB", (64, 64)).save(tmp_path / "a.webp", exif=exif)
    with pytest.raises(InputError, match="takes more than 4 GiB when decoded; cut it first"):
        read_clip(tmp_path / "a.webp")


def test_an_array_that_is_no_clip_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", shades())
    with pytest.raises(InputError, match="is no clip: it does not say its frames per second"):
        read_clip(tmp_path / "a.npy")
    with (tmp_path / "b.npy").open("wb") as file:
        np.save(file, np.zeros((2, 3)))
        file.write(b'{"dynamicrafter": {}, "fps": "8", "frames": 2}')
    with pytest.raises(InputError, match=r"must hold uint8 frames \(f, h, w, 3\), got float64 \(2, 3\)"):
        read_clip(tmp_path / "b.npy")


def test_an_array_that_would_run_code_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"any": "object"}], dtype=object), allow_pickle=True)
    for attempt in (read_clip, read_metadata):
        with pytest.raises(InputError, match="is no clip that can be read here, or a damaged one"):
            attempt(tmp_path / "a.npy")


def test_a_list_that_names_another_file_is_not_followed(tmp_path):
    write_clip(tmp_path / "secret.mp4", shades(), fps=8, metadata={})
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\nfile 'secret.mp4'\n")
    with av.open(str(tmp_path / "a.ffconcat")) as container:
        assert container.streams.video, "libav left to itself does follow it"
    with pytest.raises(InputError, match="is no clip that can be read here, or a damaged one"):
        read_clip(tmp_path / "a.ffconcat")


def test_a_name_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:").mkdir()
    write_clip("http:/clip.mp4", shades(), fps=8, metadata={"seed": 7})
    assert read_metadata("http:/clip.mp4") == {"seed": 7}


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("missing.mp4", None, "does not exist; check the clip's name and folder"),
        ("empty.mp4", b"", "is empty; copy or download the clip again"),
        ("list.mp4", b"a shopping list", "is no clip that can be read here, or a damaged one"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_line(tmp_path, name, content, line):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for attempt in (read_clip, read_metadata):
        with pytest.raises(InputError, match=line) as caught:
            attempt(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_sound_without_pictures_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"a\.mp4 holds no video"):
        read_clip(tmp_path / "a.mp4")


def test_a_single_picture_is_not_a_clip(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is one picture, where a clip is wanted; name its folder"):
        read_clip(tmp_path / "a.png")


def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="is no regular file; copy the clip to one"):
        read_clip(tmp_path / "a.mp4")
