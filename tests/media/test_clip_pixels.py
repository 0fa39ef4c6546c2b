import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicrafter.errors import InputError
from dynamicrafter.media.clip_pixels import CLIP_MEAN, CLIP_STD, clip_pixels
from goldens import MODULE_TOLERANCE, load, relative_error

PREPROCESS = load("preprocess")
SIZES = [name.removeprefix("image.") for name in PREPROCESS if name.startswith("image.")]


def normalised(grey: float) -> torch.Tensor:
    return ((grey + 1) / 2 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)


@pytest.mark.parametrize("size", SIZES)
def test_clip_pixels_equal_the_golden_ones_in_half_precision(size):
    image = PREPROCESS[f"image.{size}"].float() / 255 * 2 - 1
    assert torch.equal(clip_pixels(image[None])[0].half(), PREPROCESS[f"clip_pixels.{size}"])


def test_an_enlarged_picture_equals_the_golden_one_at_every_other_pixel():
    golden = load("tiny512.conditioning")
    assert relative_error(clip_pixels(golden["image"])[:, :, ::2, ::2], golden["clip_pixels"]) < MODULE_TOLERANCE


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.integers(1, 24),
    grey=st.floats(-1, 1, width=32),
)
def test_a_flat_picture_of_any_shape_stays_flat(height, width, size, grey):
    pixels = clip_pixels(torch.full((1, 3, height, width), grey), size=size)
    expected = normalised(grey).view(1, 3, 1, 1).expand(1, 3, size, size)
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


def test_a_strip_of_2_by_3000_pixels_is_read_without_a_border_too_short_to_reflect():
    strip = torch.rand(1, 3, 2, 3000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = clip_pixels(strip)
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels.isfinite().all()
    torch.testing.assert_close(clip_pixels(strip.transpose(2, 3)).transpose(2, 3), pixels, atol=1e-3, rtol=0)


def test_mirroring_the_picture_mirrors_its_pixels():
    picture = torch.rand(1, 3, 300, 500, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.testing.assert_close(clip_pixels(picture.flip(3)), clip_pixels(picture).flip(3), atol=1e-3, rtol=0)


def test_fine_stripes_are_blurred_to_grey_rather_than_aliased():
    stripes = torch.ones(1, 3, 64, 2240)
    stripes[..., ::2] = -1
    grey = normalised(0.0).view(1, 3, 1, 1)
    assert (clip_pixels(stripes) - grey).abs().max() < 0.05


def test_pictures_in_a_batch_do_not_touch_each_other():
    pair = torch.rand(2, 3, 250, 230, generator=torch.Generator().manual_seed(2)) * 2 - 1
    torch.testing.assert_close(clip_pixels(pair)[1:], clip_pixels(pair[1:]), atol=1e-6, rtol=0)


def test_a_half_precision_picture_is_computed_in_float32():
    picture = torch.rand(1, 3, 300, 260, generator=torch.Generator().manual_seed(3)).half()
    pixels = clip_pixels(picture)
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, clip_pixels(picture.float()))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8), (0, 3, 8, 8)])
def test_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"image must have shape \(b, 3, h, w\)"):
        clip_pixels(torch.zeros(shape))


def test_a_size_of_zero_is_refused():
    with pytest.raises(InputError, match="size must be a positive number of pixels, got 0"):
        clip_pixels(torch.zeros(1, 3, 8, 8), size=0)
