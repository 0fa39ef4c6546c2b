import logging
import os
import struct
import tempfile
import warnings
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageFile

from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import FORMATS, MAX_PIXELS, read_picture

LOSSLESS = ("png", "bmp", "tiff")
LOSSY = ("jpeg", "webp", "avif", "gif")


def colours(height: int = 40, width: int = 60) -> np.ndarray:
    """Red grows to the right, green downwards; blue stays."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round()
    pixels[..., 1] = np.linspace(0, 255, height).round()[:, None]
    return pixels


def pixels_of(source) -> np.ndarray:
    picture = read_picture(source)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def png(width: int, height: int, *, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand: Pillow neither writes 16-bit colour nor lies about sizes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@contextmanager
def unprivileged():
    """Root may read everything, so step down from it while a permission is tested."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_are_read_exactly(tmp_path, kind):
    Image.fromarray(colours()).save(tmp_path / f"a.{kind}")
    assert np.array_equal(pixels_of(tmp_path / f"a.{kind}"), colours())


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_formats_are_read_closely(tmp_path, kind):
    Image.fromarray(colours()).save(tmp_path / f"a.{kind}")
    assert np.abs(pixels_of(str(tmp_path / f"a.{kind}")).astype(int) - colours()).mean() < 6


def test_the_content_counts_and_not_the_name(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.dat", format="png")
    assert np.array_equal(pixels_of(tmp_path / "a.dat"), colours())


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_gives_its_first_frame(tmp_path, kind):
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    red.save(tmp_path / f"a.{kind}", save_all=True, append_images=[blue], lossless=True, duration=100)
    assert (pixels_of(tmp_path / f"a.{kind}") == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_come_out_upright(tmp_path, kind, orientation):
    turns = {  # how a camera that notes this orientation has stored the upright picture
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(turns[orientation](colours()))
    Image.fromarray(stored).save(tmp_path / f"a.{kind}", exif=exif, quality=95)
    found = pixels_of(tmp_path / f"a.{kind}").astype(int)
    assert found.shape == (40, 60, 3)
    assert np.abs(found - colours()).mean() < 6


def test_transparent_parts_lie_on_white_and_that_is_logged(tmp_path, caplog):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 128, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING):
        assert pixels_of(tmp_path / "a.png")[0, :, 0].tolist() == [255, 127, 0]
    assert f"{tmp_path / 'a.png'} has transparent parts; they are laid over white." in caplog.messages


def test_an_alpha_channel_that_hides_nothing_is_not_worth_a_word(tmp_path, caplog):
    Image.fromarray(colours()).convert("RGBA").save(tmp_path / "a.png")
    assert np.array_equal(pixels_of(tmp_path / "a.png"), colours())
    assert not caplog.messages


@pytest.mark.parametrize("mode", ["LA", "P", "L", "RGB"])
def test_every_way_to_say_transparent_is_understood(tmp_path, mode):
    picture = Image.new(mode, (2, 1), (10, 255) if mode == "LA" else 0)
    if mode == "LA":
        picture.putpixel((1, 0), (10, 0))
        expected = [10, 255]
    elif mode == "P":
        picture.putpalette([7, 7, 7, 9, 9, 9])
        picture.putpixel((1, 0), 1)
        picture.info["transparency"] = 1
        expected = [7, 255]
    else:
        picture.putpixel((1, 0), 50 if mode == "L" else (50, 50, 50))
        picture.info["transparency"] = 50 if mode == "L" else (50, 50, 50)
        expected = [0, 255]
    picture.save(tmp_path / "a.png")
    assert pixels_of(tmp_path / "a.png")[0, :, 1].tolist() == expected


def test_a_palette_with_many_alphas_is_understood(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 100, 100, 100])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=bytes([51, 255]))
    assert pixels_of(tmp_path / "a.png")[0, :, 0].tolist() == [204, 100]


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "CMYK"])
def test_other_colour_modes_become_rgb(mode):
    picture = Image.fromarray(colours()).convert(mode)
    assert np.array_equal(pixels_of(picture), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_cmyk_is_not_read_inverted(tmp_path, kind):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / f"a.{kind}")
    with Image.open(tmp_path / f"a.{kind}") as stored:
        assert stored.mode == "CMYK"
        assert kind == "tiff" or "adobe" in stored.info, "Pillow writes JPEG as Adobe does, inverted"
    assert np.abs(pixels_of(tmp_path / f"a.{kind}").astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_grey_of_16_bits_is_rounded_to_8(tmp_path, kind):
    levels = np.array([[0, 128, 129, 32767, 32896, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{kind}")
    expected = (levels / 257).round().astype(int)[0].tolist()
    assert pixels_of(tmp_path / f"a.{kind}")[0, :, 0].tolist() == expected


def test_big_endian_16_bit_grey_is_read_alike():
    levels = np.array([[0, 257 * 100, 65535]], ">u2")
    picture = Image.frombytes("I;16B", (3, 1), levels.tobytes())
    assert pixels_of(picture)[0, :, 0].tolist() == [0, 100, 255]


def test_a_transparent_level_of_16_bit_grey_lies_on_white(tmp_path):
    body = b"tRNS" + struct.pack(">H", 514)
    transparency = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    rows = b"\0" + struct.pack(">HHH", 514, 515, 0)
    (tmp_path / "a.png").write_bytes(png(3, 1, bits=16, colour=0, rows=rows, extra=transparency))
    assert pixels_of(tmp_path / "a.png")[0, :, 0].tolist() == [255, 2, 0]


def test_colour_of_16_bits_is_read_within_a_level(tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    levels[0, 0], levels[0, 1] = 0, 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    (tmp_path / "a.png").write_bytes(png(7, 5, bits=16, colour=2, rows=rows))
    found = pixels_of(tmp_path / "a.png").astype(int)
    assert np.abs(found - levels / 257).max() < 1
    assert found[0, :2, 0].tolist() == [0, 255]


def test_integer_grey_is_taken_for_16_bits_and_float_grey_for_0_to_1():
    integers = Image.fromarray(np.array([[0, 257, 65535]], np.int32))
    assert integers.mode == "I"
    assert pixels_of(integers)[0, :, 0].tolist() == [0, 1, 255]
    floats = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert floats.mode == "F"
    assert pixels_of(floats)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("levels", "rule"),
    [
        (np.array([[0, 70000]], np.int32), "grey levels from 0 to 65535, got 0 to 70000"),
        (np.array([[-1, 7]], np.int32), "grey levels from 0 to 65535, got -1 to 7"),
        (np.array([[0.0, 255.0]], np.float32), "grey levels from 0 to 1, got 0 to 255"),
        (np.array([[0.0, np.nan]], np.float32), "grey levels from 0 to 1, got nan"),
    ],
)
def test_grey_levels_out_of_range_are_refused(levels, rule):
    with pytest.raises(InputError, match=f"picture must have {rule}.*save it as 8 bits"):
        read_picture(Image.fromarray(levels))


def test_colours_that_pillow_cannot_turn_into_rgb_are_refused():
    with pytest.raises(InputError, match="has colours of a kind that is not read here"):
        read_picture(Image.new("La", (2, 2)))


def test_a_single_pixel_is_a_picture(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    assert pixels_of(tmp_path / "a.png").tolist() == [[[1, 2, 3]]]


def test_a_picture_of_100_megapixels_is_read_without_a_warning(tmp_path):
    Image.new("1", (11648, 8736), 1).save(tmp_path / "a.png")
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "a.png").size == (11648, 8736)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("side", [12_400, 200_000])
def test_a_bomb_is_refused_from_its_header(tmp_path, monkeypatch, side):
    assert side**2 > MAX_PIXELS
    (tmp_path / "a.png").write_bytes(png(side, side, bits=8, colour=2, rows=b""))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"a\.png has more than 150 megapixels; scale it down first"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_a_file_cut_short_is_refused(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    for part in (0.95, 0.5):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(InputError, match=r"damaged.*; copy or download it again|a damaged one"):
            read_picture(path)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([*LOSSLESS, *LOSSY]),
    damage=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6),
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_file_gives_a_picture_or_our_error_but_never_another(kind, damage):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}"
        Image.fromarray(colours()).save(path)
        content = bytearray(path.read_bytes())
        for place, value in damage:
            content[place % len(content)] = value
        path.write_bytes(content)
        with suppress(InputError):
            assert read_picture(path).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is empty; copy or download the picture again"),
        (b"this is a shopping list", "is no picture that can be read here, or a damaged one; save it as JPEG or PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing; export it as PNG"),
        (b"<?xml version='1.0'?>\n<svg/>", "is an SVG drawing; export it as PNG"),
        (b"%PDF-1.7\n", "is a PDF document; export its page as PNG"),
        (b"8BPS\0\1", "is a Photoshop document; export it as PNG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "is a video; take one frame of it"),
        (b"\x1a\x45\xdf\xa3\x01", "is a video; take one frame of it"),
        (b"RIFF\0\0\0\0AVI LIST", "is a video; take one frame of it"),
    ],
)
def test_what_is_no_picture_is_named_with_a_remedy(tmp_path, content, line):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_picture(tmp_path / "a.png")
    assert str(caught.value).startswith(f"{tmp_path / 'a.png'} {line}")
    assert "\n" not in str(caught.value)


def test_a_postscript_file_is_refused_without_starting_ghostscript(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("started Ghostscript"))
    assert "EPS" not in FORMATS
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    with pytest.raises(InputError, match="is a PostScript drawing; export it as PNG"):
        read_picture(tmp_path / "a.eps")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("", "is a folder, where a picture is wanted; name one of its files"),
        ("nowhere/a.png", "does not exist; check the picture's name and folder"),
        ("x" * 300, "cannot be read .File name too long.; check the picture's name"),
    ],
)
def test_a_path_that_holds_no_file_is_refused(tmp_path, source, line):
    with pytest.raises(InputError, match=line):
        read_picture(tmp_path / source)


def test_a_web_address_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"https://example.org/a.png is a web address.*; download the picture first"):
        read_picture("https://example.org/a.png")


def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="is no regular file"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_without_permission_is_refused(closed):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        inner = folder / "inner"
        inner.mkdir()
        Image.fromarray(colours()).save(inner / "a.png")
        (inner / "a.png" if closed == "file" else inner).chmod(0)
        with unprivileged(), pytest.raises(InputError, match="may not be read by this user; change its permissions"):
            read_picture(inner / "a.png")
        inner.chmod(0o755)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_pixels_are_rounded_to_8_bits(dtype):
    pixels = np.array([[[0, 0.5, 1]]], dtype)
    assert pixels_of(pixels).tolist() == [[[0, 128, 255]]]


def test_uint8_pixels_are_copied_whatever_their_strides():
    pixels = colours()[::-1, ::2]
    picture = read_picture(pixels)
    assert np.array_equal(np.asarray(picture), pixels)
    pixels[:] = 0
    assert np.asarray(picture).any()


def test_a_pil_picture_is_copied():
    source = Image.fromarray(colours())
    read_picture(source).putpixel((0, 0), (255, 255, 255))
    assert np.array_equal(np.asarray(source), colours())


@pytest.mark.parametrize(
    ("pixels", "line"),
    [
        (np.zeros((4, 4), np.uint8), r"picture must have shape \(h, w, 3\), RGB, or \(h, w, 4\), RGBA, got \(4, 4\)"),
        (np.zeros((4, 4, 2), np.uint8), r"picture must have shape .* got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"picture must have shape .* got \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), r"picture must be uint8, or floats in \[0, 1\], got int64"),
        (np.full((4, 4, 3), 1.5), r"picture must hold floats in \[0, 1\], got 1.5 to 1.5"),
        (np.full((4, 4, 3), -0.1), r"picture must hold floats in \[0, 1\], got -0.1"),
        (np.full((4, 4, 3), np.nan), r"picture must hold floats in \[0, 1\], got nan"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(pixels, line):
    with pytest.raises(InputError, match=line):
        read_picture(pixels)


def test_another_type_is_refused():
    with pytest.raises(InputError, match="picture must be a path, a PIL image or a numpy array, got bytes"):
        read_picture(b"\x89PNG")
