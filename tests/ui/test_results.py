"""Finished clips: kept exactly, for their owner alone, and not for ever."""

import zipfile
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from dynamicrafter import AnimateOptions, Clip
from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import ModelChoice
from dynamicrafter.media.video import read_clip, read_metadata
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.ui.requests import ClipRequest, Upload
from dynamicrafter.ui.results import ResultStore, sweep_files

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
MODEL = ModelChoice(key="bundled", label="bundled", preset=None, spec=ModelSpec(name="bundled"))


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def store(tmp_path, clock):
    return ResultStore(tmp_path / "results", most_each=2, keep=100, clock=lambda: clock[0])


@pytest.fixture
def add(store, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photo.png")
    picture = Upload(path=tmp_path / "photo.png", name="photo.png")

    def made(owner="me", prompt="Waves, rolling!"):
        spec = ClipSpec(pictures=(picture.path,), prompts=(prompt,), options=AnimateOptions(seed=5))
        request = ClipRequest(spec=spec, uploads=(picture,), model=MODEL, key="x")
        clip = Clip(FRAMES, Fraction(8), {"prompt": prompt})
        return store.add(clip, request, owner=owner, seconds=1.0, notes=[])

    return made


@pytest.mark.parametrize("form", ["npy", "png"])
def test_lossless_formats_hold_the_very_frames_and_the_options(add, tmp_path, form):
    path = add().file(form)
    if form == "png":
        with zipfile.ZipFile(path) as archive:
            assert sorted(archive.namelist())[0] == "waves-rolling-5/0000.png"
            archive.extractall(tmp_path / "out")
        path = tmp_path / "out" / "waves-rolling-5"
    np.testing.assert_array_equal(read_clip(path)[0], FRAMES)
    assert read_metadata(path)["prompt"] == "Waves, rolling!"


@pytest.mark.parametrize("form", ["mp4", "webm", "gif", "webp"])
def test_other_formats_are_written_when_asked_for_and_once(add, form):
    result = add()
    path = result.file(form)
    assert read_clip(path)[0].shape == FRAMES.shape
    written = path.stat().st_mtime_ns
    assert result.file(form).stat().st_mtime_ns == written


@pytest.mark.parametrize("form", ["exe", "../../secret", ""])
def test_no_other_format_and_no_path_is_taken(add, form):
    with pytest.raises(InputError, match=r"^format must be one of"):
        add().file(form)


def test_only_the_owner_finds_a_result_and_its_name_cannot_be_guessed(store, add):
    result = add("me")
    assert store.find(result.token, "me") is result
    assert store.find(result.token, "you") is None
    assert store.find(result.token[:-1], "me") is None
    store.remove(result.token, "you")
    assert store.find(result.token, "me") is result
    assert len(result.token) >= 32
    assert add("me").token != result.token


def test_the_oldest_makes_room_and_takes_its_files_along(store, add):
    first, second, third = add(), add(), add()
    other = add("you")
    assert store.of("me") == [third, second]
    assert store.of("you") == [other]
    assert not first.folder.exists()
    assert second.folder.exists()


def test_what_is_too_old_goes(store, add, clock):
    old = add()
    clock[0] = 60.0
    young = add()
    clock[0] = 101.0
    store.sweep()
    assert store.of("me") == [young]
    assert not old.folder.exists()


def test_a_result_has_its_own_copy_of_the_picture(store, add, tmp_path):
    result = add()
    (tmp_path / "photo.png").unlink()
    assert Image.open(result.request.uploads[0].path).size == (8, 8)


def test_a_clip_that_cannot_be_written_leaves_nothing(store, add, monkeypatch):
    monkeypatch.setattr(Clip, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        add()
    assert list(store.folder.iterdir()) == []
    assert len(store) == 0


def test_old_files_are_swept_and_the_pages_own_are_not(tmp_path):
    for name in ("a/old.png", "b/own.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    now = (tmp_path / "a/old.png").stat().st_mtime
    sweep_files(tmp_path, older_than=10, keep={tmp_path / "b/own.png"}, now=now + 5)
    assert (tmp_path / "a/old.png").exists()
    sweep_files(tmp_path, older_than=10, keep={tmp_path / "b/own.png"}, now=now + 11)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "own.png"]
