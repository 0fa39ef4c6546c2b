import io
from fractions import Fraction

import av
import numpy as np
import pytest

from dynamicrafter.data import reader
from dynamicrafter.data.reader import framed, opened_clip
from dynamicrafter.errors import InputError
from dynamicrafter.media.video import read_clip, write_clip
from numbered_clips import damage, number_of, numbered, rotate_by_header, write_numbered

CONTAINERS = [
    ("a.mp4", "libx264"),
    ("a.mkv", "libx264"),
    ("a.ts", "libx264"),
    ("a.flv", "libx264"),
    ("a.avi", "mpeg4"),
    ("a.webm", "libvpx"),
]


def numbers(clip, slots):
    return clip.pick(slots, number_of)


@pytest.fixture
def decoded(monkeypatch):
    """How many frames were decoded, as they are."""
    counted = []
    decode = reader._decoded

    def counting(*given):
        for frame in decode(*given):
            counted.append(frame.pts)
            yield frame

    monkeypatch.setattr(reader, "_decoded", counting)
    return counted


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_every_container_gives_the_frames_that_were_asked_for(tmp_path, name, codec):
    write_numbered(tmp_path / name, 60, codec=codec)
    with opened_clip(tmp_path / name) as clip:
        assert (clip.info.num_frames, clip.info.fps, clip.info.seconds) == (60, 30, 2.0)
        for slots in (range(16), range(0, 60, 1), range(44, 60), range(7, 53, 3), [59], [30, 31], [12], [0]):
            assert numbers(clip, slots) == list(slots)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("x264", ["open-gop=1:bframes=3", "intra-refresh=1"])
def test_streams_without_clean_key_frames_are_right_from_anywhere(tmp_path, name, x264):
    write_numbered(tmp_path / name, 90, x264=x264)
    with opened_clip(tmp_path / name) as clip:
        for start in range(0, 74, 5):
            assert numbers(clip, range(start, start + 16)) == list(range(start, start + 16))


def cut_without_encoding(source, target, *, after):
    """Copy a video's packets from a second on, wherever that falls."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None and packet.pts * packet.time_base >= after:
                packet.stream = stream
                made.mux(packet)


def test_a_beginning_that_cannot_be_decoded_is_not_shown_as_a_still(tmp_path):
    write_numbered(tmp_path / "a.mkv", 90, key_every=30)
    cut_without_encoding(tmp_path / "a.mkv", tmp_path / "b.mkv", after=1.3)  # 0.7 s before the next key frame
    with opened_clip(tmp_path / "b.mkv") as clip:
        with pytest.raises(InputError, match="cannot be decoded"):
            numbers(clip, range(16))
        last = clip.info.num_frames - 1
        assert numbers(clip, range(last - 15, last + 1)) == list(range(74, 90))


def test_a_clip_late_in_a_video_is_sought_not_read_up_to(tmp_path, decoded):
    write_numbered(tmp_path / "a.mp4", 600, key_every=24)
    with opened_clip(tmp_path / "a.mp4") as clip:
        assert clip.info.num_frames == 600
        assert not decoded
        assert numbers(clip, range(550, 550 + 31, 2)) == [number % 256 for number in range(550, 581, 2)]
    # At most what lies between two key frames, the clip itself, and what B-frames hold back.
    assert 31 <= len(decoded) <= 24 + 31 + 4


def test_where_seeking_comes_out_late_it_begins_a_little_earlier_not_at_the_start(tmp_path, decoded):
    write_numbered(tmp_path / "a.ts", 600, key_every=24)  # a transport stream has no index
    with opened_clip(tmp_path / "a.ts") as clip:
        assert numbers(clip, range(550, 566)) == [number % 256 for number in range(550, 566)]
    assert len(decoded) <= 60 + 2 * (24 + 16) + 8


def test_a_video_whose_rate_varies_shows_what_is_on_display_then(tmp_path):
    steps = [10, 40, 20, 50, 15, 15, 60, 5]
    stamps = np.cumsum([0] + [steps[i % len(steps)] for i in range(79)])
    write_numbered(tmp_path / "a.mp4", stamps.tolist())
    with opened_clip(tmp_path / "a.mp4") as clip:
        fps, count = clip.info.fps, clip.info.num_frames
        assert count == 80
        assert float(fps) == pytest.approx(600 * 79 / int(stamps[-1]), rel=0.02)
        middles = [(slot + Fraction(1, 2)) / fps for slot in range(count)]
        expected = [int(np.searchsorted(stamps, float(time * 600), side="right")) - 1 for time in middles]
        assert len(set(expected)) < count  # else the stamps would tell nothing
        assert numbers(clip, range(count)) == expected
        assert numbers(clip, range(37, 68, 2)) == expected[37:68:2]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25), Fraction(50)])
def test_rounded_time_stamps_of_a_steady_rate_lose_no_frame(tmp_path, rate):
    write_numbered(tmp_path / "a.mkv", 90, fps=rate)  # whose clock ticks milliseconds
    with opened_clip(tmp_path / "a.mkv") as clip:
        assert numbers(clip, range(90)) == list(range(90))


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["right", "upside down", "left"],
)
def test_a_phone_held_upright_gives_upright_frames_wherever_reading_begins(tmp_path, matrix, turns):
    path = write_numbered(tmp_path / "a.mp4", 60)
    with opened_clip(path) as clip:
        plain = clip.pick([0, 40, 41], np.array)
    rotate_by_header(path, matrix)
    with opened_clip(path) as clip:
        turned = clip.pick([40, 41], np.array)
    assert np.array_equal(np.stack(turned), np.rot90(np.stack(plain[1:]), turns, axes=(1, 2)))


def test_colours_are_those_of_reading_the_whole_clip(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    frames = np.concatenate([noise] * 10)
    write_clip(tmp_path / "a.mp4", frames, fps=8, metadata={}, crf=10)
    whole, fps = read_clip(tmp_path / "a.mp4")
    with opened_clip(tmp_path / "a.mp4") as clip:
        assert (clip.info.num_frames, clip.info.fps) == (30, fps)
        assert np.array_equal(np.stack(clip.pick(range(5, 30, 3), np.array)), whole[5:30:3])


def test_sound_that_outlasts_the_picture_makes_no_frames(tmp_path):
    write_numbered(tmp_path / "a.mkv", 30, sound=3.0)
    with opened_clip(tmp_path / "a.mkv") as clip:
        assert clip.info.num_frames == 30
        assert numbers(clip, [0, 29]) == [0, 29]


class Pipe(io.RawIOBase):
    """A file that can only be written on, as a browser records."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self):
        return True

    def write(self, content):
        self.content += content
        return len(content)


def test_a_recording_that_does_not_say_its_length_is_measured(tmp_path):
    pipe = Pipe()
    write_numbered(None, 40, codec="libvpx", file=pipe, fps=20)
    (tmp_path / "a.webm").write_bytes(pipe.content)
    with opened_clip(tmp_path / "a.webm") as clip:
        assert (clip.info.num_frames, clip.info.fps) == (40, 20)
        assert numbers(clip, range(9, 40, 3)) == list(range(9, 40, 3))


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_a_clocks_ticks_are_not_taken_for_frames_per_second(tmp_path, name):
    write_numbered(tmp_path / name, list(range(0, 1200, 20)))  # 30 a second, of a clock with 600 ticks
    with opened_clip(tmp_path / name) as clip:
        assert clip.info.num_frames == 60
        assert float(clip.info.fps) == pytest.approx(30, abs=0.02)
        assert numbers(clip, range(33, 60)) == list(range(33, 60))


@pytest.mark.parametrize("name", ["a.npy", "a.gif", "a.webp"])
def test_our_own_other_formats_are_read_too(tmp_path, name):
    write_clip(tmp_path / name, np.stack([numbered(i) for i in range(20)]), fps=10, metadata={})
    with opened_clip(tmp_path / name) as clip:
        assert (clip.info.num_frames, clip.info.fps) == (20, 10)
        assert numbers(clip, [3, 7, 19]) == [3, 7, 19]


def test_a_frame_covers_its_size_and_is_cropped_at_the_centre():
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 40:60] = 255
    frame = framed((20, 20))(pixels)
    assert frame.shape == (20, 20, 3)
    assert (frame[:, 6:14] == 255).all()
    assert (frame[:, :4] == 0).all()


def test_a_damaged_part_is_refused_and_the_rest_is_read(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 60)
    damage(path)
    with opened_clip(path) as clip:
        assert numbers(clip, range(16)) == list(range(16))
        with pytest.raises(InputError, match=r"a\.mp4 is no clip that can be read here, or a damaged one"):
            numbers(clip, range(40, 56))


def test_a_fault_of_the_caller_is_not_taken_for_the_files(tmp_path):
    write_numbered(tmp_path / "a.mp4", 5)
    with pytest.raises(ZeroDivisionError), opened_clip(tmp_path / "a.mp4"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"no video at all", "no clip that can be read here, or a damaged one"),
        (None, "does not exist"),
        ("cut", "is cut short"),
    ],
)
def test_what_is_no_whole_video_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "a.mp4"
    if content == "cut":
        content = write_numbered(path, 30).read_bytes()[:2500]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught, opened_clip(path):
        pass
    assert "\n" not in str(caught.value)
