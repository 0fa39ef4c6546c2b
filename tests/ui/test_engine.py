"""A request becomes the clip that the animator makes of it."""

import numpy as np
import pytest
from PIL import Image

from dynamicrafter import AnimateOptions, Animator
from dynamicrafter.specs.gaps import KeyShot
from dynamicrafter.ui.catalogue import AUTOMATIC, ModelChoice
from dynamicrafter.ui.engine import Engine
from dynamicrafter.ui.requests import ClipRequest, Upload
from tiny import pipeline

OPTIONS = AnimateOptions(steps=2, frames=4, seed=5)


class Report:
    def __init__(self):
        self.phases, self.steps = [], []

    def on_phase(self, text):
        self.phases.append(text)

    def on_step(self, done, steps):
        self.steps.append((done, steps))

    def on_preview(self, address):
        pass


@pytest.fixture(scope="module")
def animator():
    return Animator(pipeline("tiny512"), model="/srv/models/secret/mine.ckpt")


@pytest.fixture
def uploads(tmp_path):
    draw = np.random.default_rng(0)
    kept = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        Image.fromarray(draw.integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(path)
        kept.append(Upload(path=path, name=f"photo {number}.png"))
    return kept


def asked(mode, pictures, key="a"):
    model = ModelChoice(key=key, label=key, preset=None, load={"model": key})
    return ClipRequest(mode=mode, pictures=tuple(pictures), prompt="waves", options=OPTIONS, model=model, key=AUTOMATIC)


def test_each_mode_makes_the_animators_own_clip(animator, uploads):
    engine, first, last = Engine(load=lambda **_: animator), *uploads[:2]
    made = engine.make(asked("animate", [first]), Report())
    np.testing.assert_array_equal(made.frames, animator.animate(first.path, "waves", options=OPTIONS).frames)
    made = engine.make(asked("interpolate", [first, last]), Report())
    wanted = animator.interpolate(first.path, last.path, "waves", options=OPTIONS)
    np.testing.assert_array_equal(made.frames, wanted.frames)
    made = engine.make(asked("loop", [first]), Report())
    np.testing.assert_array_equal(made.frames, animator.loop(first.path, "waves", options=OPTIONS).frames)


def test_more_than_two_pictures_are_gone_through_one_after_the_other(animator, uploads):
    report = Report()
    made = Engine(load=lambda **_: animator).make(asked("interpolate", uploads), report)
    shot = KeyShot(pictures=tuple(each.path for each in uploads), prompts=("waves",), options=OPTIONS)
    np.testing.assert_array_equal(made.frames, animator.run_through(shot).frames)
    assert report.steps == [(done, 4) for done in range(1, 5)]
    assert [picture["path"] for picture in made.metadata["pictures"]] == [each.name for each in uploads]


def test_metadata_tell_no_folder_of_the_server(animator, uploads):
    made = Engine(load=lambda **_: animator).make(asked("animate", uploads[:1]), Report())
    assert made.metadata["model"]["name"] == "mine.ckpt"
    assert made.metadata["pictures"][0]["path"] == "photo 0.png"
    assert str(uploads[0].path.parent) not in str(made.metadata)


def test_a_model_is_loaded_once_and_let_go_for_another(animator, uploads):
    loaded = []
    engine = Engine("cpu", "float32", load=lambda **settings: loaded.append(settings) or animator)
    for key in ("a", "a", "b"):
        engine.make(asked("animate", uploads[:1], key), Report())
    assert loaded == [{"device": "cpu", "dtype": "float32", "model": key} for key in ("a", "b")]
