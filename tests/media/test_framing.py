import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.media.framing import BAR_LEVEL, frame_picture, to_tensor, to_uint8
from goldens import load

PREPROCESS = load("preprocess")
CROPS = [name.removeprefix("crop_source.") for name in PREPROCESS if name.startswith("crop_source.")]


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right and green downwards, both from 0 to 255."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round()
    pixels[..., 1] = np.linspace(0, 255, height).round()[:, None]
    return pixels


@pytest.mark.parametrize("crop", CROPS)
def test_cover_equals_the_published_crop_bit_for_bit(crop):
    height, width = map(int, crop.split(".to.")[1].split("x"))
    source = Image.fromarray(PREPROCESS[f"crop_source.{crop}"].permute(1, 2, 0).numpy())
    golden = PREPROCESS[f"crop_result.{crop}"].permute(1, 2, 0).numpy()
    assert np.array_equal(frame_picture(source, (height, width)), golden)


@pytest.mark.parametrize("crop", CROPS)
def test_a_tall_picture_is_covered_as_the_wide_one_lying_on_its_side(crop):
    height, width = map(int, crop.split(".to.")[1].split("x"))
    source = Image.fromarray(PREPROCESS[f"crop_source.{crop}"].permute(2, 1, 0).contiguous().numpy())
    golden = PREPROCESS[f"crop_result.{crop}"].permute(2, 1, 0).numpy().astype(int)
    # Pillow rounds to 8 bits between its horizontal and its vertical pass, hence the one level.
    assert np.abs(frame_picture(source, (width, height)).astype(int) - golden).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    fit=st.sampled_from(["cover", "contain", "stretch"]),
)
def test_every_picture_gets_the_wanted_size(height, width, size, fit):
    frame = frame_picture(Image.new("RGB", (width, height), (10, 20, 30)), size, fit=fit)
    assert frame.shape == (*size, 3)
    assert frame.dtype == np.uint8
    if fit != "contain":
        assert (frame == (10, 20, 30)).all(), "cover and stretch leave no bars"


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_a_strip_of_1_by_5000_is_framed_without_computing_gigabytes(shape, fit):
    strip = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    start = time.perf_counter()
    frame = frame_picture(Image.fromarray(strip), (576, 1024), fit=fit)
    assert time.perf_counter() - start < 3
    assert frame.shape == (576, 1024, 3)
    if fit == "cover":
        middle = strip.reshape(-1, 3)[2498:2502].astype(int)
        assert frame.min() >= middle.min()
        assert frame.max() <= middle.max()
    if fit == "contain":
        inside = (frame != BAR_LEVEL).any(axis=2)
        assert inside.sum() <= 1024
        assert inside.any()


def test_the_direct_crop_of_a_huge_scaled_picture_is_the_plain_one_within_a_level(monkeypatch):
    picture = noise(37, 401)
    plain = frame_picture(picture, (128, 64)).astype(int)
    monkeypatch.setattr("dynamicrafter.media.framing._LARGEST_SCALED", 0)
    assert np.abs(frame_picture(picture, (128, 64)).astype(int) - plain).max() <= 1


def test_cover_keeps_the_centre_and_the_proportions():
    frame = frame_picture(Image.fromarray(ramp(100, 400)), (100, 100)).astype(int)
    assert np.array_equal(frame, ramp(100, 400)[:, 150:250].astype(int))


def test_contain_shows_the_whole_picture_between_mid_grey_bars():
    frame = frame_picture(Image.fromarray(ramp(100, 200)), (100, 100), fit="contain")
    assert (frame[:25] == BAR_LEVEL).all()
    assert (frame[75:] == BAR_LEVEL).all()
    inner = frame[25:75].astype(int)
    assert inner[0, 0, 0] < 5
    assert inner[-1, -1, 0] > 250


def test_bars_are_what_an_absent_picture_is_to_the_networks():
    assert to_tensor(np.full((1, 1, 3), BAR_LEVEL, np.uint8)).abs().max() < 1 / 255 + 1e-6


def test_stretch_keeps_every_corner():
    frame = frame_picture(Image.fromarray(ramp(64, 256)), (64, 64), fit="stretch").astype(int)
    assert np.abs(frame - ramp(64, 64)).max() <= 4


def test_a_picture_of_the_right_size_passes_unchanged_through_every_fit():
    picture = noise(64, 128)
    for fit in ("cover", "contain", "stretch"):
        assert np.array_equal(frame_picture(picture, (64, 128), fit=fit), np.asarray(picture))


@pytest.mark.parametrize("size", [(0, 64), (64, -1)])
def test_a_size_that_is_not_positive_is_refused(size):
    with pytest.raises(InputError, match=r"size must be a positive \(height, width\)"):
        frame_picture(noise(8, 8), size)


def test_an_unknown_fit_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="fit must be one of cover, contain, stretch, got 'fill'"):
        frame_picture(noise(8, 8), (64, 64), fit="fill")


def test_a_picture_that_is_not_rgb_is_refused():
    with pytest.raises(InputError, match="picture must have mode RGB, got L; pass it through read_picture"):
        frame_picture(Image.new("L", (8, 8)), (64, 64))


def test_all_256_levels_survive_the_way_there_and_back():
    levels = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(3, axis=3).repeat(2, axis=0)
    tensor = to_tensor(levels)
    assert tensor.shape == (3, 2, 1, 256)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert np.array_equal(to_uint8(tensor), levels)
    assert np.array_equal(to_uint8(tensor[None]), levels[None])


def test_a_single_picture_becomes_channels_height_width():
    pixels = ramp(4, 6)
    tensor = to_tensor(pixels)
    assert tensor.shape == (3, 4, 6)
    assert tensor[0, 0, -1] == 1
    assert tensor[1, 0, -1] == -1


@given(value=st.floats(-2, 2))
def test_levels_are_clamped_and_rounded_not_truncated(value):
    level = to_uint8(torch.full((3, 1, 1, 1), value, dtype=torch.float64))[0, 0, 0, 0]
    exact = (min(max(value, -1), 1) + 1) * 127.5
    assert abs(int(level) - exact) <= 0.5 + 1e-4


def test_low_precision_video_is_rounded_in_float32():
    video = torch.linspace(-1, 1, 300).bfloat16().expand(3, 1, 1, 300)
    assert np.array_equal(to_uint8(video), to_uint8(video.float()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_video_that_is_not_finite_is_an_error_instead_of_a_black_frame(bad):
    video = torch.zeros(3, 2, 4, 4)
    video[1, 1, 2, 3] = bad
    with pytest.raises(InputError, match=r"video must hold finite numbers.*run it in bfloat16 or float32"):
        to_uint8(video)


@pytest.mark.parametrize("frames", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_frames_of_another_type_or_shape_are_refused(frames):
    with pytest.raises(InputError, match="frames must be uint8 of shape"):
        to_tensor(frames)


def test_video_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"video must have shape \(3, f, h, w\)"):
        to_uint8(torch.zeros(2, 4, 4, 3))
