"""What containers and cameras say of a video or picture is heeded, in clips read whole and read for training."""

import io
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from dynamicrafter.data.reader import opened_clip
from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.media.video import read_clip

HEIGHT, WIDTH = 48, 64
UNIT, PERSPECTIVE = 1 << 16, 1 << 30


def encode(path, frames, *, codec="libx264", pixels="yuv420p", rate=24, aspect=None, flags=None, **tags):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=flags or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)))
        container.mux(stream.encode(None))
    return path


def corner(num_frames=12):
    """A white block at top left of dark frames."""
    frames = np.full((num_frames, HEIGHT, WIDTH, 3), 40, np.uint8)
    frames[:, :16, :16] = 255
    return frames


def both_ways(path):
    """The clip read whole, and its first, middle and last frame read for training; they are the same pictures."""
    frames, _ = read_clip(path)
    with opened_clip(path) as clip:
        assert clip.info.num_frames == len(frames)
        places = [0, len(frames) // 2, len(frames) - 1]
        picked = clip.pick(places, np.array)
        remarks = clip.remarks
    assert max(np.abs(a.astype(int) - frames[k]).max() for k, a in zip(places, picked, strict=True)) <= 2
    return frames, tuple(remarks)


def box(kind, content):
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize(
    ("matrix", "height", "white", "mirrored"),
    [
        ((-1, 0, 0, 1), HEIGHT, (0, 1), True),
        ((1, 0, 0, -1), HEIGHT, (1, 0), True),
        ((-1, 0, 0, -1), HEIGHT, (1, 1), False),
        ((0, 1, -1, 0), WIDTH, (0, 1), False),
        ((0, -1, 1, 0), WIDTH, (1, 0), False),
        ((0, 1, 1, 0), WIDTH, (0, 0), True),
        ((0, -1, -1, 0), WIDTH, (1, 1), True),
    ],
)
def test_a_display_matrix_turns_and_mirrors(tmp_path, matrix, height, white, mirrored):
    path = encode(tmp_path / "a.mp4", corner())
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (value * UNIT for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, PERSPECTIVE)
    path.write_bytes(content)
    frames, remarks = both_ways(path)
    assert frames.shape[1] == height
    corners = frames[0][[[0], [-1]], [[0, -1]]].mean(-1) > 200
    assert np.argwhere(corners).tolist() == [list(white)]
    assert ("mirrored" in remarks) == mirrored


@pytest.mark.parametrize(("aspect", "size"), [((2, 1), (48, 128)), ((8, 9), (54, 64)), ((1, 1), (48, 64))])
def test_pixels_that_are_not_square_become_so(tmp_path, aspect, size):
    frames, remarks = both_ways(encode(tmp_path / "a.mp4", corner(), aspect=Fraction(*aspect)))
    assert frames.shape[1:3] == size
    assert remarks == (() if aspect == (1, 1) else ("pixels that are not square",))
    bright = frames[0].mean(-1) > 150
    assert abs(bright.any(0).sum() - 16 * size[1] / WIDTH) <= 2
    assert abs(bright.any(1).sum() - 16 * size[0] / HEIGHT) <= 2


def test_pixels_of_an_absurd_shape_are_refused(tmp_path):
    path = encode(tmp_path / "a.mkv", corner(), aspect=Fraction(1, 50))
    with pytest.raises(InputError, match="says that its pixels are 1/50 times as wide as high"):
        read_clip(path)


def test_cover_art_before_the_track_is_no_video(tmp_path):
    path = encode(tmp_path / "a.mp4", corner())
    content = path.read_bytes()
    cover = io.BytesIO()
    Image.new("RGB", (32, 32), (0, 200, 0)).save(cover, "JPEG")
    image = box(b"ilst", box(b"covr", box(b"data", struct.pack(">II", 13, 0) + cover.getvalue())))
    handler = box(b"hdlr", struct.pack(">II", 0, 0) + b"mdir" + b"appl" + bytes(9))
    tags = box(b"udta", box(b"meta", bytes(4) + handler + image))
    begin = content.index(b"moov") - 4
    (length,) = struct.unpack(">I", content[begin : begin + 4])
    assert begin > content.index(b"mdat"), "the index stands behind the frames, so that none of them moves"
    moov = box(b"moov", tags + content[begin + 8 : begin + length])
    path.write_bytes(content[:begin] + moov)
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg", "h264"]
    frames, _ = both_ways(path)
    assert frames.shape == (12, HEIGHT, WIDTH, 3)


def moving_bar(num_fields=24):
    fields = np.full((num_fields, HEIGHT, WIDTH, 3), 30, np.uint8)
    for k, field in enumerate(fields):
        field[8:40, 4 + 2 * k : 12 + 2 * k] = 230
    return fields


def combing(frames):
    """How much neighbouring rows differ where the picture itself has no edge between them."""
    inside = frames[1:-1, 10:38].astype(float)
    return np.abs(np.diff(inside, axis=1)).max()


def test_fields_are_put_together_without_a_comb(tmp_path):
    fields = moving_bar()
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2, 1::2]
    assert combing(woven) == 200
    flags = {"flags": "+ilme+ildct", "x264-params": "tff=1:qp=4"}
    frames, remarks = both_ways(encode(tmp_path / "a.mp4", list(woven), rate=25, flags=flags))
    assert len(frames) == len(woven)
    assert remarks == ("interlaced",)
    assert combing(frames) < 60
    assert combing(read_clip(encode(tmp_path / "b.mp4", list(woven), rate=25))[0]) > 150, "unless nobody says so"


def test_a_program_stream_has_all_its_frames(tmp_path):
    frames, _ = both_ways(encode(tmp_path / "a.mpg", corner(20), codec="mpeg2video", rate=25))
    assert len(frames) == 20


@pytest.mark.parametrize(("delay", "fps"), [(0, 10), (40, 25)])
def test_a_gif_that_says_no_delay_plays_as_in_a_browser(tmp_path, delay, fps):
    first, *rest = (Image.fromarray(frame) for frame in moving_bar(6))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=delay)
    frames, found = read_clip(tmp_path / "a.gif")
    assert (len(frames), found) == (6, fps)


def test_a_gif_of_one_frame_is_told_to_be_a_picture(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif")
    with pytest.raises(InputError, match="is one picture, where a clip is wanted"):
        read_clip(tmp_path / "a.gif")


# HDR: linear light of BT.709 with 1 for the white of SDR, to the signals of ITU-R BT.2100, and the sRGB it should be.


def srgb_of(light):
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def pq(light):
    power = np.clip(203 * light / 10_000, 0, 1) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light):
    scene = np.clip(0.265 * light, 0, 1)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def encode_hdr(path, light, signal_of, transfer):
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    signal = signal_of(np.clip(light @ to_2020.T, 0, None))
    luma = signal @ np.array([0.2627, 0.6780, 0.0593])
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    planes = [64 + 876 * luma, 512 + 896 * blue[::2, ::2], 512 + 896 * red[::2, ::2]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = *light.shape[:2], "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1
        for _ in range(4):
            frame = av.VideoFrame(stream.width, stream.height, "yuv420p10le")
            for plane, levels in zip(frame.planes, planes, strict=True):
                rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
                rows[:, : levels.shape[1]] = np.clip(levels.round(), 0, 1023)
                plane.update(rows.tobytes())
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = 9, transfer, 9, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("signal_of", "transfer"), [(pq, 16), (hlg, 18)])
def test_hdr_becomes_what_it_was_made_from(tmp_path, signal_of, transfer):
    light = np.repeat(np.linspace(0, 1, WIDTH)[None, :, None] ** 2, HEIGHT, axis=0).repeat(3, axis=2)
    light[:16] = 1.0  # white
    light[32:, 32:] = (0.6, 0.05, 0.05)
    light[32:, :32] = (0.05, 0.3, 0.7)
    frames, remarks = both_ways(encode_hdr(tmp_path / "a.mkv", light, signal_of, transfer))
    assert remarks == ("HDR",)
    assert np.abs(frames[0, :14] - 255.0).max() == 0
    wanted = srgb_of(light)
    for part in (np.s_[18:30, :], np.s_[36:, 36:], np.s_[36:, :28]):
        assert np.abs(frames[0][part] - wanted[part]).max() <= 2.5


@pytest.mark.parametrize(("signal_of", "transfer"), [(pq, 16), (hlg, 18)])
def test_what_is_brighter_than_white_is_white(tmp_path, signal_of, transfer):
    light = np.full((HEIGHT, WIDTH, 3), 3.0)
    frames, _ = both_ways(encode_hdr(tmp_path / "a.mkv", light, signal_of, transfer))
    assert frames.min() == 255


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\xff\x0a" + bytes(50), "is a JPEG XL picture; export"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "is a JPEG XL picture; export"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "is a JPEG 2000 picture; export"),
        (b"\xff\x4f\xff\x51" + bytes(50), "is a JPEG 2000 picture; export"),
        (b"\0\0\0\x18ftypmsf1" + bytes(50), "is a burst of HEIC photos; export one"),
        (b"\0\0\0\x18ftyphevc" + bytes(50), "is a burst of HEIC photos; export one"),
        (b"\0\0\0\x18ftypcrx " + bytes(50), "is a camera raw file; develop it"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(50), "is a camera raw file; develop it"),
        (b"IIU\0" + bytes(50), "is a camera raw file; develop it"),
        (b"IIRO" + bytes(50), "is a camera raw file; develop it"),
    ],
)
def test_pictures_of_other_kinds_are_named(tmp_path, head, said):
    (tmp_path / "a.jpg").write_bytes(head)
    with pytest.raises(InputError, match=said):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("a.dng", {50706: bytes([1, 4, 0, 0])}),
        ("a.tif", {254: 1}),
        ("a.NEF", {}),
        ("a.tif", {50706: bytes([1, 4, 0, 0])}),
    ],
)
def test_a_camera_raw_file_s_thumbnail_is_not_taken_for_the_picture(tmp_path, name, tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
        info.tagtype[tag] = 4 if tag == 254 else 1
    Image.new("RGB", (32, 24)).save(tmp_path / name, "TIFF", tiffinfo=info)
    with pytest.raises(InputError, match="is a camera raw file; develop it"):
        read_picture(tmp_path / name)
    Image.new("RGB", (32, 24)).save(tmp_path / "plain.tif")
    assert read_picture(tmp_path / "plain.tif").size == (32, 24)


def test_heic_is_read_by_pillow_heif(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = Image.new("RGB", (64, 48), (200, 30, 30))
    pixels.paste((30, 30, 200), (0, 0, 32, 48))
    pillow_heif.from_pillow(pixels).save(tmp_path / "a.heic", quality=90)
    picture = read_picture(tmp_path / "a.heic")
    assert (picture.mode, picture.size) == ("RGB", (64, 48))
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(pixels)).mean() < 4
    content = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "cut.heic").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is damaged or cut short"):
        read_picture(tmp_path / "cut.heic")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_without_pillow_heif_says_how_to_get_it(tmp_path, monkeypatch, brand):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(50))
    with pytest.raises(InputError, match=r'is a HEIC photo; run pip install "dynamicrafter\[heif\]"'):
        read_picture(tmp_path / "a.heic")
