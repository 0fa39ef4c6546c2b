"""What is asked for is checked before it waits."""

from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from dynamicrafter import AnimateOptions, hub
from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import AUTOMATIC, Catalogue
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.ui.checks import checked, read_upload
from dynamicrafter.ui.requests import ClipRequest, Upload
from dynamicrafter.ui.settings import ServerSettings

LIMITS = ServerSettings(max_steps=30, max_size=128 * 192, max_megapixels=1, max_upload=1, max_frames=16)


@pytest.fixture(autouse=True)
def _no_models(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv(hub.MODELS_VARIABLE, raising=False)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "hidden" / "photo.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 30), "red").save(path)
    return Upload(path=path, name="holiday.png")


def asked(photo, settings, **options):
    """A request, checked."""
    spec = ClipSpec(
        pictures=(photo.path,), prompts=(options.pop("prompt", ""),), options=AnimateOptions.from_dict(options)
    )
    model = Catalogue().find(AUTOMATIC, "animate")
    request = ClipRequest(spec=spec, uploads=(photo,), model=model, key=AUTOMATIC)
    return checked(request, Catalogue().describe(AUTOMATIC, "animate"), settings)


def test_a_request_within_the_limits_passes(photo):
    assert asked(photo, LIMITS, steps=30, size=(128, 192)).work.options.steps == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 31}, "steps must be at most 30 on this server, got 31; try 30."),
        ({"size": (192, 192)}, "size must be at most 24576 pixels in all on this server, got 192×192"),
        ({"size": (100, 100)}, "height must be a positive multiple of 64 pixels, got 100"),
        ({"prompt": "a" * 2001}, "prompt must be at most 2000 characters, got 2001"),
        ({"negative": "a" * 2001}, "negative must be at most 2000 characters, got 2001"),
    ],
)
def test_a_request_beyond_a_limit_is_refused_in_words(photo, options, message):
    with pytest.raises(InputError, match=r"^" + message.replace(".", r"\.")):
        asked(photo, LIMITS, **options)


def test_a_size_that_follows_the_picture_is_held_to_the_limit_too(photo):
    Image.new("RGB", (640, 64), "red").save(photo.path)
    with pytest.raises(InputError, match=r"^size must be at most 9000 pixels in all on this server"):
        asked(photo, replace(LIMITS, max_size=9000), size="auto")


def test_pictures_are_refused_by_their_owners_name_for_them(photo):
    photo.path.write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"^holiday\.png is no picture that can be read here") as error:
        read_upload(photo, LIMITS)
    assert "hidden" not in str(error.value)
    photo.path.unlink()
    with pytest.raises(InputError, match=r"^holiday\.png is no longer on the server; choose it again"):
        read_upload(photo, LIMITS)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(photo, monkeypatch):
    Image.new("1", (1200, 900)).save(photo.path)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"^holiday\.png has more than 1 megapixels; scale it down first"):
        read_upload(photo, LIMITS)


def test_a_picture_of_too_many_bytes_is_refused(photo):
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo.path)
    with pytest.raises(InputError, match=r"^holiday\.png has more than 1 megabytes"):
        read_upload(photo, LIMITS)
