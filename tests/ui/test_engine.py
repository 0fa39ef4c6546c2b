"""A request becomes the clip that the animator makes of it."""

import numpy as np
import pytest
from PIL import Image

from dynamicrafter import AnimateOptions, Animator
from dynamicrafter.faces.catalogue import AUTOMATIC, ModelChoice
from dynamicrafter.pipeline.describing import describe
from dynamicrafter.specs import pictures as loading
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.ui.checks import checked
from dynamicrafter.ui.engine import Engine
from dynamicrafter.ui.requests import ClipRequest, Upload
from dynamicrafter.ui.settings import ServerSettings
from tiny import pipeline

OPTIONS = AnimateOptions(steps=2, frames=4, seed=5)


class Progress:
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


def asked(mode, uploads, name="a"):
    model = ModelChoice(key=name, label=name, preset=None, spec=ModelSpec(name=name))
    spec = ClipSpec(pictures=tuple(each.path for each in uploads), prompts=("waves",), mode=mode, options=OPTIONS)
    request = ClipRequest(spec=spec, uploads=tuple(uploads), model=model, key=AUTOMATIC)
    return checked(request, describe(ModelSpec(name="seeded:tiny")), ServerSettings())


def test_each_mode_makes_the_animators_own_clip(animator, uploads):
    engine, first, last = Engine(load=lambda _: animator), *uploads[:2]
    made = engine.make(asked("animate", [first]), Progress())
    np.testing.assert_array_equal(made.frames, animator.animate(first.path, "waves", options=OPTIONS).frames)
    made = engine.make(asked("interpolate", [first, last]), Progress())
    wanted = animator.interpolate(first.path, last.path, "waves", options=OPTIONS)
    np.testing.assert_array_equal(made.frames, wanted.frames)
    made = engine.make(asked("loop", [first]), Progress())
    np.testing.assert_array_equal(made.frames, animator.loop(first.path, "waves", options=OPTIONS).frames)


def test_more_than_two_pictures_are_gone_through_one_after_the_other(animator, uploads):
    progress = Progress()
    made = Engine(load=lambda _: animator).make(asked("interpolate", uploads), progress)
    wanted = animator.interpolate_through([each.path for each in uploads], "waves", options=OPTIONS)
    np.testing.assert_array_equal(made.frames, wanted.frames)
    assert progress.steps == [(done, 4) for done in range(1, 5)]
    assert [picture["path"] for picture in made.metadata["pictures"]] == [each.name for each in uploads]


def test_metadata_tell_no_folder_of_the_server(animator, uploads):
    made = Engine(load=lambda _: animator).make(asked("animate", uploads[:1]), Progress())
    assert made.metadata["model"]["name"] == "mine.ckpt"
    assert made.metadata["pictures"][0]["path"] == "photo 0.png"
    assert str(uploads[0].path.parent) not in str(made.metadata)


def test_a_model_is_loaded_once_and_let_go_for_another(animator, uploads):
    loaded = []
    engine = Engine("cpu", "float32", load=lambda spec: loaded.append(spec) or animator)
    for name in ("a", "a", "b"):
        engine.make(asked("animate", uploads[:1], name), Progress())
    assert loaded == [ModelSpec(name=name, device="cpu", dtype="float32") for name in ("a", "b")]


def test_a_picture_is_decoded_once_and_options_are_resolved_once_from_request_to_clip(animator, uploads, monkeypatch):
    decoded, resolved = [], []
    read, resolve = loading.read_picture, AnimateOptions.resolved
    monkeypatch.setattr(loading, "read_picture", lambda source: decoded.append(source) or read(source))
    monkeypatch.setattr(AnimateOptions, "resolved", lambda *args, **more: resolved.append(1) or resolve(*args, **more))
    Engine(load=lambda _: animator).make(asked("interpolate", uploads[:2]), Progress())
    assert decoded == [upload.path for upload in uploads[:2]]
    assert len(resolved) == 1


def test_notes_come_with_the_clip(animator, uploads):
    request = asked("interpolate", uploads[:2])
    assert request.notes == Engine(load=lambda _: animator).make(request, Progress()).notes != ()
