"""A picture is decoded once, and again only where memory for many was let go."""

import gc

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import picture_hash
from dynamicrafter.specs import pictures as module
from dynamicrafter.specs.pictures import load_picture


@pytest.fixture(autouse=True)
def _none_held(monkeypatch):
    """Pictures of other tests, which may go at any moment, are not counted here."""
    monkeypatch.setattr(module, "_held", module._HeldPictures())


@pytest.fixture
def decoded(monkeypatch):
    """What is read, in order."""
    paths, original = [], module.read_picture
    monkeypatch.setattr(module, "read_picture", lambda source: paths.append(source) or original(source))
    return paths


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(draw.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return paths


def test_a_file_is_read_once_and_knows_its_shape_and_hash(files, decoded):
    picture = load_picture(files[0])
    assert (picture.shape, picture.path) == ((20, 30), str(files[0]))
    assert picture.sha256 == picture_hash(Image.open(files[0]))
    assert picture.image is picture.image
    assert load_picture(picture) is picture
    assert len(decoded) == 1


def test_pictures_used_longest_ago_make_room_and_are_read_again(files, decoded, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", module._held._total + 2 * 20 * 30 * 3)
    first, second, third = map(load_picture, files)
    assert len(decoded) == 3
    assert first._image is None
    np.testing.assert_array_equal(np.asarray(first.image), np.asarray(Image.open(files[0])))
    assert second._image is None
    assert third._image is not None
    assert len(decoded) == 4


def test_a_picture_that_changed_meanwhile_is_not_taken_for_the_one_that_was_looked_at(files):
    picture = load_picture(files[0], name="photo.png")
    picture.let_go()
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(InputError, match=r"^photo\.png changed or went away since it was looked at; run again\.$"):
        _ = picture.image
    files[0].unlink()
    with pytest.raises(InputError, match=r"^photo\.png changed or went away"):
        _ = picture.image


def test_pixels_without_a_file_stay(files):
    picture = load_picture(Image.open(files[0]))
    picture.let_go()
    assert picture.image.size == (30, 20)
    assert picture.path is None


def test_a_picture_that_nobody_needs_is_not_counted_any_more(files):
    before = module._held._total
    picture = load_picture(files[0])
    assert module._held._total == before + 20 * 30 * 3
    del picture
    gc.collect()
    assert module._held._total == before
