"""Every spelling of an option is right through every face with the same result, or wrong with the same words."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
import yaml

from dynamicrafter import Animator
from dynamicrafter.cli.commands import AnimateCommand
from dynamicrafter.cli.main import main
from dynamicrafter.cli.parsing import parse
from dynamicrafter.errors import InputError
from dynamicrafter.faces.controls import options_from
from dynamicrafter.jobs.job import Defaults
from dynamicrafter.jobs.lists import read_jobs
from dynamicrafter.specs import pictures
from dynamicrafter.specs.clip import clip_spec
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.story.format import read_story

ROCKET = str(Path(__file__).parents[1] / "examples/rocket.jpg")


def by_command_line(name, value, folder):
    words = [f"--{name.replace('_', '-')}={value}"]
    if isinstance(value, bool):
        words = [f"--{'' if value else 'no-'}{name.replace('_', '-')}"]
    return parse(AnimateCommand, ["photo.png", *words], prog="dynamicrafter animate").clip


def by_page(name, value, folder):
    return options_from({name: value})


def by_csv(name, value, folder):
    table, text = io.StringIO(), json.dumps(value) if isinstance(value, bool | list) else str(value)
    csv.writer(table).writerows([["image", name], ["photo.png", text]])
    (folder / "jobs.csv").write_text(table.getvalue())
    return read_jobs(folder / "jobs.csv", Defaults())[0].clip.options


def by_jsonl(name, value, folder):
    (folder / "jobs.jsonl").write_text(json.dumps({"image": "photo.png", name: value}))
    return read_jobs(folder / "jobs.jsonl", Defaults())[0].clip.options


def by_story(name, value, folder):
    where = "defaults" if name == "size" else "shot"
    shot = {"picture": ROCKET} | ({name: value} if where == "shot" else {})
    story = {"shots": [shot]} | ({"defaults": {name: value}} if where == "defaults" else {})
    (folder / "story.yaml").write_text(yaml.safe_dump(story))
    read = read_story(folder / "story.yaml")
    return AnimateOptions(size=read.size) if name == "size" else read.shots[0].clip.options


def by_python(name, value, folder):
    return clip_spec("animate", ["photo.png"], "", **{name: value}).options


def by_metadata(name, value, folder):
    return AnimateOptions.from_dict({name: value})


FACES = [by_command_line, by_page, by_csv, by_jsonl, by_story, by_python, by_metadata]

RIGHT = [
    ("steps", 12, 12),
    ("steps", 12.0, 12),
    ("steps", "12", 12),
    ("seed", 2**62, 2**62),
    ("seed", "-1", -1),
    ("guidance", 7.5, 7.5),
    ("guidance", "3", 3),
    ("image_guidance", 2, 2),
    ("guidance_rescale", 0.5, 0.5),
    ("eta", 0, 0),
    ("motion", "20", 20),
    ("frames", "32.0", 32),
    ("window", 8, 8),
    ("window_stride", 2, 2),
    ("size", "512x320", (320, 512)),
    ("size", "512 × 320", (320, 512)),
    ("size", [320, 512], (320, 512)),
    ("size", "auto", "auto"),
    ("fit", "contain", "contain"),
    ("negative", "blur, fog", "blur, fog"),
    ("deterministic", True, True),
    ("pin_first_frame", True, True),
    ("sampler", "dpm++", "dpm++"),
    ("guidance_interval", "200-800", (200, 800)),
    ("guidance_interval", [200, 800], (200, 800)),
    ("cache", "0.1", 0.1),
    ("quality", "fast", "fast"),
]
WRONG = [
    ("steps", "many", "must be a whole number, got 'many'."),
    ("steps", "12.5", "must be a whole number, got '12.5'."),
    ("steps", 0, "must be between 1 and 1000, got 0; try 1."),
    ("seed", "x", "must be a whole number, got 'x'."),
    ("guidance", "strong", "must be a number, got 'strong'."),
    ("guidance", 101, "must be between 0 and 100, got 101"),
    ("guidance_rescale", 2, "must be between 0 and 1, got 2"),
    ("eta", "1.5", "must be between 0 and 1, got 1.5; try 1."),
    ("frames", 513, "must be between 1 and 512, got 513; try 512."),
    ("window", 3, "must be between 4 and 16, got 3; try 4."),
    ("size", "512,320", "must be width x height in pixels, such as 1024x576, or auto, got '512,320'."),
    ("fit", "crop", "must be one of cover, contain, stretch, got 'crop'."),
    ("sampler", "euler", "must be one of ddim, dpm++, dpm++sde, unipc, got 'euler'."),
    (
        "guidance_interval",
        "800-200",
        "must be two timesteps from 0 to 999, the lower first, such as 200-800, got",
    ),
    ("cache", 7, "must be between 0 and 1, got 7"),
    ("quality", "best", "must be one of exact, high, fast, draft, got 'best'."),
    ("negative", "x" * 2001, "must be at most 2000 characters, got 2001"),
]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("name", "written", "value"), RIGHT)
def test_a_documented_spelling_means_the_same_through_every_face(face, name, written, value, tmp_path):
    assert getattr(face(name, written, tmp_path), name) == value


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("name", "written", "said"), WRONG)
def test_a_wrong_value_is_refused_in_the_same_words_through_every_face(face, name, written, said, tmp_path):
    with pytest.raises(InputError) as caught:
        face(name, written, tmp_path)
    line = re.sub(r"got (\d+)\.0\b", r"got \1", str(caught.value))  # text is read as a number with a point
    assert f"{name} {said}" in line.replace(f"--{name.replace('_', '-')}", name)
    assert "\n" not in line


@pytest.fixture
def counted(monkeypatch):
    """How often pictures are decoded and options resolved."""
    counts = {"decoded": 0, "resolved": 0}
    decode, resolve = pictures.read_picture, AnimateOptions.resolved

    def decoding(*arguments):
        counts["decoded"] += 1
        return decode(*arguments)

    def resolving(self, *arguments, **settings):
        counts["resolved"] += 1
        return resolve(self, *arguments, **settings)

    monkeypatch.setattr(pictures, "read_picture", decoding)
    monkeypatch.setattr(AnimateOptions, "resolved", resolving)
    return counts


def test_the_command_line_decodes_a_picture_and_resolves_options_once(counted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [ROCKET, "--model", "seeded:tiny", "--device", "cpu", "--steps", "1", "--frames", "1", "-o", "clip.npy"]
    assert main(["animate", *words]) == 0
    assert counted == {"decoded": 1, "resolved": 1}


def test_python_decodes_a_picture_and_resolves_options_once(counted):
    animator = Animator.from_pretrained("seeded:tiny", device="cpu")
    animator.animate(ROCKET, "waves", steps=1, frames=1)
    assert counted == {"decoded": 1, "resolved": 1}
