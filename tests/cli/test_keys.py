"""`interpolate` through several pictures: which words are pictures, and clips that repeat and measure themselves."""

import json

import numpy as np
import pytest
from PIL import Image

from dynamicrafter import Animator
from dynamicrafter.cli.commands import InterpolateCommand
from dynamicrafter.cli.parsing import parse
from dynamicrafter.errors import InputError
from dynamicrafter.media.video import read_metadata

QUICK = ("--model", "seeded:tiny", "--steps", "1", "--frames", "4", "--guidance", "1", "--dtype", "float32")
load = Animator.from_pretrained


def typed(*words):
    command = parse(InterpolateCommand, words, prog="dynamicrafter interpolate")
    return [str(picture) for picture in command.pictures], list(command.prompts)


@pytest.fixture
def third_photo(photo):
    path = photo.parent / "third.png"
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(path)
    return path


@pytest.mark.parametrize(
    ("words", "pictures", "prompts"),
    [
        (["a", "b", "dusk"], ["a", "b"], ["dusk"]),
        (["a.png", "b.png"], ["a.png", "b.png"], [""]),
        (["a", "b", "--steps", "3", "the day goes by"], ["a", "b"], ["the day goes by"]),
        (["a.png", "b.png", "c.JPG", "d.tiff", "a walk"], ["a.png", "b.png", "c.JPG", "d.tiff"], ["a walk"]),
        (["a.png", "b.png", "c.png"], ["a.png", "b.png", "c.png"], [""]),
        (["a", "b", "c", "--prompt", "out", "--prompt", "on"], ["a", "b", "c"], ["out", "on"]),
        (["a", "b", "--prompt", "as in photo.jpg"], ["a", "b"], ["as in photo.jpg"]),
    ],
)
def test_pictures_are_told_from_the_prompt_by_their_names(words, pictures, prompts):
    assert typed(*words) == (pictures, prompts)


def test_a_prompt_is_one_whatever_files_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dusk").touch()
    assert typed("a.png", "b.png", "dusk") == (["a.png", "b.png"], ["dusk"])


def test_words_that_are_neither_are_refused_in_one_line():
    with pytest.raises(
        InputError, match=r"'the' is not named like a picture .* put a prompt of several words into quotes"
    ):
        typed("a.png", "b.png", "the", "day")
    with pytest.raises(InputError, match="unexpected argument 'dusk'; let pictures and prompt follow one another"):
        typed("a.png", "b.png", "c.png", "--steps", "3", "dusk")


def test_key_pictures_reach_the_animator_and_the_clip_repeats_itself(cli, photo, other_photo, third_photo):
    words = ["photo.png", "other.png", "third.png", "--prompt", "out", "--prompt", "on", "--prompt", "home", "--closed"]
    done = cli("interpolate", *words, "-o", "clip.npy", *QUICK, "--seed", "5")
    assert (done.code, done.out) == (0, "clip.npy\n")
    expected = load("seeded:tiny", dtype="float32").interpolate_through(
        [photo, other_photo, third_photo], ["out", "on", "home"], closed=True, steps=1, frames=4, guidance=1.0, seed=5
    )
    np.testing.assert_array_equal(np.load("clip.npy"), expected.frames)
    assert done.err.splitlines()[-1].startswith("3 steps in ")  # of all gaps

    again = cli("interpolate", "--like", "clip.npy", "-o", "again.npy")
    assert again.code == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load("clip.npy"))
    assert read_metadata("again.npy") == read_metadata("clip.npy")

    changed = cli("interpolate", "other.png", "--like", "clip.npy", "-o", "open.npy", "--no-closed", "--prompt", "away")
    assert changed.code == 0
    now, then = read_metadata("open.npy"), read_metadata("clip.npy")
    assert now["keys"] == {"prompts": ["away"], "closed": False, "frames": [0, 3, 6]}
    assert [picture["path"] for picture in now["pictures"]] == ["other.png", "other.png", "third.png"]
    assert now["options"] == then["options"]

    measured = cli("evaluate", "clip.npy", "open.npy", "--json", "report.json", "-q")
    assert measured.code == 0
    with open("report.json", encoding="utf-8") as file:  # noqa: PTH123
        closed, opened = json.load(file)["clips"]
    assert closed["joints"]["colour"] >= 0
    assert closed["closure"] > 0
    assert closed["last"] is None
    assert opened["closure"] is None
    assert opened["last"]["psnr"] > 0


def test_two_pictures_that_are_not_closed_are_interpolated_as_ever(cli, photo, other_photo):
    assert cli("interpolate", photo, other_photo, "--prompt", "dusk", "-o", "flag.npy", *QUICK).code == 0
    assert cli("interpolate", photo, other_photo, "dusk", "-o", "word.npy", *QUICK).code == 0
    np.testing.assert_array_equal(np.load("flag.npy"), np.load("word.npy"))
    assert "keys" not in read_metadata("word.npy")
    assert read_metadata("word.npy")["options"]["pin_first_frame"] is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photo.png", "other.png", "gone.png"], "gone.png does not exist"),
        (["photo.png", "other.png", "third.png", "--prompt", "a", "--prompt", "b", "--prompt", "c"], "got 3."),
        (["photo.png", "--closed"], "last is missing; name it: dynamicrafter interpolate FIRST LAST"),
        (["photo.png", "other.png", "third.png", "word " * 500], "prompt must be at most 2000 characters"),
    ],
)
def test_what_can_be_seen_to_be_wrong_ends_in_one_line(cli, photo, other_photo, third_photo, words, says):
    done = cli("interpolate", *words)
    assert (done.code, done.out, len(done.errors)) == (2, "", 1)
    assert says in done.errors[0]
