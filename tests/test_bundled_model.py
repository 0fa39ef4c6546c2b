"""The small trained model that comes with the package: whole, small, and what its first user types works."""

import importlib.util
import json
import re
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from dynamicrafter import Animator, DynamiCrafterPipeline, hub
from dynamicrafter.cli.main import main
from dynamicrafter.hub.folders import BUNDLED_FOLDER
from dynamicrafter.media.video import read_clip, read_metadata
from dynamicrafter.pipeline.folders import check_folder
from dynamicrafter.presets import BUNDLED

ROOT = Path(__file__).parent.parent
ROCKET = ROOT / "examples" / "rocket.jpg"
SMALL = ("--steps", "2", "--frames", "4", "--size", "64x64", "--device", "cpu", "--dtype", "float32")

load = cache(lambda: Animator.from_pretrained("bundled", device="cpu", dtype="float32"))


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """An empty folder to work in, and no other model on the machine."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv(hub.MODELS_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_readmes_first_command_makes_a_clip_of_the_presets_size(tmp_path, capsys):
    [line] = re.findall(
        r"^pip install \. && dynamicrafter (animate .*)$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    words = shlex.split(line)
    assert "--model" not in words
    (tmp_path / "examples").symlink_to(ROCKET.parent)
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err.startswith("No --model given; using bundled (the small model of the package)\n")
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert warnings == ["warning: the frame of 128x128 cuts 33% off the picture of 640x427; size auto keeps its shape."]
    frames, _ = read_clip(said.out.strip())
    assert frames.shape == (16, BUNDLED.height, BUNDLED.width, 3)
    assert frames.std() > 20  # a picture
    assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).mean() > 2  # that moves


@pytest.mark.parametrize(
    ("words", "num_frames"),
    [(["interpolate", str(ROCKET), str(ROCKET), "snow falls"], 4), (["loop", str(ROCKET), "the water ripples"], 3)],
)
def test_interpolation_and_loops_make_clips_and_say_what_was_never_taught(words, num_frames, capsys):
    assert main([*words, *SMALL, "-o", "clip.npy"]) == 0
    [warning] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "names no motion that the model bundled was taught" in warning
    assert np.load("clip.npy").shape == (num_frames, 64, 64, 3)


def test_frames_need_not_be_square():
    assert load().animate(ROCKET, "the camera zooms in", steps=1, size=(128, 192)).frames.shape == (16, 128, 192, 3)


def test_the_same_seed_gives_the_same_frames_by_command_and_from_python(capsys):
    assert main(["animate", str(ROCKET), "the camera pans left", *SMALL, "--seed", "5", "-o", "clip.npy"]) == 0
    clip = load().animate(ROCKET, "the camera pans left", steps=2, frames=4, size=(64, 64), seed=5)
    np.testing.assert_array_equal(np.load("clip.npy"), clip.frames)
    another = load().animate(ROCKET, "the camera pans left", steps=2, frames=4, size=(64, 64), seed=6)
    assert (another.frames != clip.frames).any()


def test_python_without_a_name_takes_it_where_no_other_model_is():
    assert Animator.from_pretrained(device="cpu").preset == BUNDLED


def test_its_files_are_all_there_and_no_larger_than_forty_megabytes():
    check_folder(BUNDLED_FOLDER)
    files = [path for path in BUNDLED_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert DynamiCrafterPipeline.from_pretrained("bundled").preset == BUNDLED


def test_its_settings_know_no_path_of_the_machine_that_made_it():
    for path in BUNDLED_FOLDER.rglob("*.json"):
        assert not json.loads(path.read_text()).get("_name_or_path"), path


def test_the_example_of_key_pictures_makes_a_closed_clip(tmp_path):
    spec = importlib.util.spec_from_file_location("key_pictures", ROOT / "examples" / "key_pictures.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(tmp_path / "keys.npy", steps=1, frames=4)
    assert np.load("keys.npy").shape == (9, BUNDLED.height, BUNDLED.width, 3)
    assert read_metadata(tmp_path / "keys.npy")["keys"]["frames"] == [0, 3, 6]
