"""Facts about the released checkpoints, and frame sizes that follow from them."""

import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.presets import auto_size, get_preset


@pytest.mark.parametrize(
    ("preset", "picture", "size"),
    [
        ("1024", (576, 1024), (576, 1024)),
        ("1024", (1080, 1920), (576, 1024)),
        ("512", (1000, 1000), (384, 384)),  # √(320·512) = 404.8, nearer to 384 than to 448
        ("512", (3000, 2000), (512, 320)),  # 495.7×330.5
        ("256", (100, 400), (128, 512)),
        ("bundled", (10, 1000), (64, 1280)),  # 12.8 pixels high, were it not for the least of 64
    ],
)
def test_size_auto_has_the_presets_pixels_in_the_pictures_shape(preset, picture, size):
    assert auto_size(get_preset(preset), picture) == size
    assert auto_size(get_preset(preset), picture[::-1]) in (size[::-1], size)


def test_a_picture_too_long_for_any_frame_is_told_to_name_a_size():
    with pytest.raises(InputError, match="at most 4096 pixels long, got 54336x64 for a picture of 5000x1; name a size"):
        auto_size(get_preset("1024"), (1, 5000))
