"""The Story tab's shots go through the story's own file and code."""

import numpy as np
import pytest
import yaml
from PIL import Image

from dynamicrafter import AnimateOptions, Animator
from dynamicrafter.errors import InputError
from dynamicrafter.ui.catalogue import AUTOMATIC, ModelChoice
from dynamicrafter.ui.engine import Engine
from dynamicrafter.ui.requests import ClipRequest, Upload, check_request
from dynamicrafter.ui.settings import ServerSettings
from dynamicrafter.ui.story import StoryShot, story_text
from tiny import pipeline

OPTIONS = AnimateOptions(steps=2, seed=5, size=(64, 64))
MODEL = ModelChoice(key="tiny", label="tiny", preset=None, load={"model": "seeded:tiny"})


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "upload.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(path)
    return Upload(path=path, name="photo.png")


def shot(picture=0, prompt="waves", seconds="0.5", transition="cut"):
    return StoryShot(picture=picture, prompt=prompt, seconds=seconds, transition=transition)


def asked(upload, *shots, options=OPTIONS):
    return ClipRequest(
        mode="story", pictures=(upload,), prompt="trip", shots=shots, options=options, model=MODEL, key=AUTOMATIC
    )


class Report:
    def __init__(self):
        self.steps = []

    def on_phase(self, text):
        pass

    def on_step(self, done, steps):
        self.steps.append((done, steps))

    def on_preview(self, address):
        pass


def test_the_file_says_what_the_rows_say(upload):
    request = asked(
        upload, shot(transition="crossfade"), shot(None, "on", "1.25", "interpolate"), shot(transition="crossfade")
    )
    assert yaml.safe_load(story_text(request, ["a"])) == {
        "defaults": {"steps": 2, "seed": 5, "size": "64x64"},
        "shots": [
            {"picture": "a", "prompt": "waves", "seconds": 0.5, "transition": {"kind": "crossfade", "seconds": 0.5}},
            {"picture": "previous", "prompt": "on", "seconds": 1.25, "transition": {"kind": "interpolate"}},
            {"picture": "a", "prompt": "waves", "seconds": 0.5},
        ],
    }


def test_a_film_begins_with_the_clip_that_animate_makes_and_goes_on_from_its_end(upload):
    animator = Animator(pipeline("tiny512"), model="seeded:tiny")
    report = Report()
    film = Engine(load=lambda **_: animator).make(asked(upload, shot(), shot(None, "more")), report)
    first = animator.animate(upload.path, "waves", options=OPTIONS, frames=4)
    np.testing.assert_array_equal(film.frames[:4], first.frames)
    second = animator.animate(Image.fromarray(first.frames[-1]), "more", options=OPTIONS, frames=4)
    np.testing.assert_array_equal(film.frames[4:], second.frames[1:])
    assert report.steps == [(done, 4) for done in range(1, 5)]
    assert film.metadata["options"]["frames"] == 7
    assert str(upload.path.parent) not in str(film.metadata)
    assert "dynamicrafter-story-" not in str(film.metadata)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (shot(seconds="long"), r"seconds must be a number, got 'long'; try 2\."),
        (shot(seconds="-1"), r"story\.yaml, line \d+: seconds must"),
        (shot(seconds="60"), r"the shots must be at most 16 seconds long together on this server, got 60"),
        (shot(prompt="x" * 2001), r"story\.yaml, line \d+: prompt must be at most 2000 characters"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_in_words(upload, row, message):
    with pytest.raises(InputError, match=f"^{message}"):
        check_request(asked(upload, row), ServerSettings())


def test_a_prompt_cannot_write_into_the_file(upload):
    evil = 'x\n    audio: /etc/passwd\n"}: ['
    read = yaml.safe_load(story_text(asked(upload, shot(prompt=evil)), ["a"]))
    assert read["shots"][0]["prompt"] == evil
    assert set(read) == {"defaults", "shots"}
