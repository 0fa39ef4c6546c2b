"""What is asked for is checked before it waits, and models are chosen from a list."""

from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from dynamicrafter import AnimateOptions, hub
from dynamicrafter.errors import InputError
from dynamicrafter.presets import BUNDLED
from dynamicrafter.ui.catalogue import AUTOMATIC, Catalogue
from dynamicrafter.ui.requests import ClipRequest, Upload, check_picture, check_request
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


def asked(photo, **options):
    model = Catalogue().find(AUTOMATIC, "animate")
    prompt = options.pop("prompt", "")
    return ClipRequest(
        mode="animate",
        pictures=(photo,),
        prompt=prompt,
        options=AnimateOptions(**options),
        model=model,
        key=AUTOMATIC,
    )


def test_a_request_within_the_limits_passes(photo):
    check_request(asked(photo, steps=30, size=(128, 192)), LIMITS)


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
        check_request(asked(photo, **options), LIMITS)


def test_a_size_that_follows_the_picture_is_held_to_the_limit_too(photo):
    Image.new("RGB", (640, 64), "red").save(photo.path)
    with pytest.raises(InputError, match=r"^size must be at most 9000 pixels in all on this server"):
        check_request(asked(photo, size="auto"), replace(LIMITS, max_size=9000))


def test_pictures_are_refused_by_their_owners_name_for_them(photo):
    photo.path.write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"^holiday\.png is no picture that can be read here") as error:
        check_picture(photo, LIMITS)
    assert "hidden" not in str(error.value)
    photo.path.unlink()
    with pytest.raises(InputError, match=r"^holiday\.png is no longer on the server; choose it again"):
        check_picture(photo, LIMITS)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(photo, monkeypatch):
    Image.new("1", (1200, 900)).save(photo.path)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"^holiday\.png has more than 1 megapixels; scale it down first"):
        check_picture(photo, LIMITS)


def test_a_picture_of_too_many_bytes_is_refused(photo):
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo.path)
    with pytest.raises(InputError, match=r"^holiday\.png has more than 1 megabytes"):
        check_picture(photo, LIMITS)


def test_the_list_shows_what_is_here_first_and_what_could_be_fetched_last():
    rows = Catalogue().choices()
    assert [row.key for row in rows] == [AUTOMATIC, "bundled", "256", "512", "1024", "512_interp"]
    assert [row.here for row in rows] == [True, True, False, False, False, False]
    assert "not here yet, 10.4 GB" in rows[-1].label
    assert [row.key for row in Catalogue(downloads=False).choices()] == [AUTOMATIC, "bundled"]


def test_the_best_model_for_a_task_is_the_one_that_the_command_line_takes():
    found = Catalogue().find(AUTOMATIC, "loop")
    assert found.load == {"model": str(hub.best_local("loop").preset)}
    assert found.preset == BUNDLED


def test_files_in_the_folder_of_models_can_be_chosen_and_no_other_path(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "mine.safetensors").write_bytes(b"x")
    monkeypatch.setenv(hub.MODELS_VARIABLE, str(folder))
    catalogue = Catalogue()
    [row] = [row for row in catalogue.choices() if "mine" in row.label]
    assert catalogue.find(row.key, "animate").load == {"model": str(folder / "mine.safetensors")}
    for key in (str(folder / "mine.safetensors"), "../mine.safetensors", "seeded:tiny", ""):
        with pytest.raises(InputError, match=r"^model must be one of those in the list"):
            catalogue.find(key, "animate")


def test_a_model_that_is_not_here_is_not_fetched_unasked():
    with pytest.raises(InputError, match=r"^model 512 is not on this machine; press Download first"):
        Catalogue().find("512", "animate")


def test_the_model_of_the_start_is_the_default_with_all_that_belongs_to_it():
    start = {"model": "seeded:tiny", "lora": ()}
    catalogue = Catalogue(start)
    assert catalogue.find(AUTOMATIC, "loop").load == start
    assert "tiny" in catalogue.choices()[0].label
