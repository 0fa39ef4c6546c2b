"""The Story tab's rows go through the story's own checks and code."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dynamicrafter import AnimateOptions, Animator
from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import AUTOMATIC, ModelChoice
from dynamicrafter.pipeline.describing import describe
from dynamicrafter.specs import pictures as loading
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.ui.checks import checked
from dynamicrafter.ui.engine import Engine
from dynamicrafter.ui.requests import ClipRequest, StoryRow, StorySpec, Upload
from dynamicrafter.ui.settings import ServerSettings
from tiny import pipeline

OPTIONS = AnimateOptions(steps=2, seed=5, size=(64, 64))
TINY = ModelSpec(name="seeded:tiny")
MODEL = ModelChoice(key="tiny", label="tiny", preset=None, spec=TINY)


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "upload.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(path)
    return Upload(path=path, name="photo.png")


def row(picture=0, prompt="waves", seconds="0.5", transition="cut"):
    return StoryRow(picture=picture, prompt=prompt, seconds=seconds, transition=transition)


def asked(upload, *rows, options=OPTIONS, name="seeded:tiny"):
    """A request, checked."""
    spec = StorySpec(pictures=(upload.path,), prompts=("trip",), rows=rows, options=options)
    request = ClipRequest(spec=spec, uploads=(upload,), model=MODEL, key=AUTOMATIC)
    return checked(request, replace(describe(TINY), spec=ModelSpec(name=name)), ServerSettings())


class Progress:
    def __init__(self):
        self.steps = []

    def on_phase(self, text):
        pass

    def on_step(self, done, steps):
        self.steps.append((done, steps))

    def on_preview(self, address):
        pass


def test_the_story_says_what_the_rows_say(upload):
    rows = row(transition="crossfade"), row(None, "on", "1.25", "interpolate"), row(transition="crossfade")
    options = replace(OPTIONS, guidance_interval=(200, 800))
    story = asked(upload, *rows, options=options).work.story
    assert story.source == {
        "defaults": {"steps": 2, "seed": 5, "size": "64x64", "guidance_interval": "200-800"},
        "shots": [
            {
                "picture": "photo.png",
                "prompt": "waves",
                "seconds": "0.5",
                "transition": {"kind": "crossfade", "seconds": 0.5},
            },
            {"picture": "previous", "prompt": "on", "seconds": "1.25", "transition": {"kind": "interpolate"}},
            {"picture": "photo.png", "prompt": "waves", "seconds": "0.5"},
        ],
    }
    assert story.defaults.options == options


def test_a_film_begins_with_the_clip_that_animate_makes_and_goes_on_from_its_end(upload):
    animator = Animator(pipeline("tiny512"), model="seeded:tiny")
    progress = Progress()
    film = Engine(load=lambda _: animator).make(asked(upload, row(), row(None, "more")), progress)
    first = animator.animate(upload.path, "waves", options=OPTIONS, frames=4)
    np.testing.assert_array_equal(film.frames[:4], first.frames)
    second = animator.animate(Image.fromarray(first.frames[-1]), "more", options=OPTIONS, frames=4)
    np.testing.assert_array_equal(film.frames[4:], second.frames[1:])
    assert progress.steps == [(done, 4) for done in range(1, 5)]
    assert film.metadata["options"]["frames"] == 7
    assert str(upload.path.parent) not in str(film.metadata)
    assert "dynamicrafter-story-" not in str(film.metadata)


def test_the_folders_of_models_and_adapters_are_not_told(upload):
    animator = Animator(pipeline("tiny512"), model="seeded:tiny")
    request = asked(upload, row(), name="/srv/secret/mine.ckpt")
    film = Engine(load=lambda _: animator).make(request, Progress())
    assert "secret" not in str(film.metadata)
    assert [each["name"] for each in (film.metadata["model"], *film.metadata["models"])] == ["mine.ckpt"] * 2


def test_a_picture_is_decoded_once_and_options_are_resolved_once_for_each_shot(upload, monkeypatch):
    animator = Animator(pipeline("tiny512"), model="seeded:tiny")
    decoded, resolved = [], []
    read, resolve = loading.read_picture, AnimateOptions.resolved
    monkeypatch.setattr(loading, "read_picture", lambda source: decoded.append(source) or read(source))
    monkeypatch.setattr(AnimateOptions, "resolved", lambda *args, **more: resolved.append(1) or resolve(*args, **more))
    Engine(load=lambda _: animator).make(asked(upload, row(), row()), Progress())
    assert decoded.count(upload.path) == 1
    assert len(resolved) == 2 + 1  # and what the film's options say


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row(seconds="long"), r"shot 1: seconds must be a number above 0 and up to 3600, got 'long'\."),
        (row(seconds="-1"), r"shot 1: seconds must be a number above 0"),
        (row(seconds="60"), r"the shots must be at most 16 seconds long together on this server, got 60"),
        (row(prompt="x" * 2001), r"shot 1: prompt must be at most 2000 characters"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_in_words(upload, wrong, message):
    with pytest.raises(InputError, match=f"^{message}"):
        asked(upload, wrong)


def test_options_that_do_not_go_together_are_refused_in_words(upload):
    with pytest.raises(InputError, match=r"^the options: window_stride must be between 1 and 6, got 7; try 6\.$"):
        asked(upload, row(), options=replace(OPTIONS, window=6, window_stride=7))
