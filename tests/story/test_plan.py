"""A plan says what is shown when and what must be made, and names pieces by all that decides their frames."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.presets import get_preset
from dynamicrafter.specs.adapters import Adapter
from dynamicrafter.story.format import read_story
from dynamicrafter.story.plan import Blend, described, plan_story
from stories import TINY, write_story

STORY = """\
defaults: {steps: 2, frames: 8, fps: 4, size: 64x64}
shots:
  - title: Begin
    seconds: 1
  - picture: red.png
    prompt: one
    transition: {kind: crossfade, frames: 3}
  - picture: blue.png
    prompt: two
  - picture: previous
    prompt: three
    transition: {kind: interpolate, frames: 5, prompt: over}
  - picture: red.png
    prompt: four
"""


def planned(folder, text=STORY, *, model=TINY, **options):
    return plan_story(read_story(write_story(folder, text)), model=model, **options)


def keys_of(plan):
    return {piece.name: piece.key for piece in plan.pieces}


def test_every_frame_has_its_place(tmp_path):
    plan = planned(tmp_path)
    shown = [
        ("blend" if isinstance(part, Blend) else (part.start, part.stop), part.num_frames) for part in plan.timeline
    ]
    assert shown == [
        ((0, 4), 4),  # the card
        ((0, 5), 5),
        ("blend", 3),
        ((3, 8), 5),
        ((1, 8), 7),  # its first frame repeats the last of the shot before
        ((1, 6), 5),  # so do the first and last of what comes between
        ((0, 8), 8),
    ]
    assert plan.num_frames == 37
    assert plan.seconds == 37 / 4
    assert [piece.name for piece in plan.pieces] == ["shot 2", "shot 3", "shot 4", "shot 5", "between shots 4 and 5"]
    assert [piece.num_frames for piece in plan.pieces] == [8, 8, 8, 8, 7]


def test_a_card_between_a_shot_and_its_continuation_keeps_all_frames(tmp_path):
    plan = planned(
        tmp_path,
        """\
        shots:
          - {picture: red.png, frames: 3}
          - {title: later, frames: 2}
          - {picture: previous, frames: 3}
        """,
    )
    assert [(part.start, part.stop) for part in plan.timeline] == [(0, 3), (0, 2), (0, 3)]
    assert plan.pieces[1].sources[0].piece is plan.pieces[0]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("prompt: one", "prompt: uno", ["shot 2"]),
        ("prompt: two", "prompt: dos", ["shot 3", "shot 4", "between shots 4 and 5"]),
        ("prompt: three", "prompt: tres", ["shot 4", "between shots 4 and 5"]),
        ("prompt: over", "prompt: across", ["between shots 4 and 5"]),
        ("prompt: four", "prompt: four\n    seed: 9", ["shot 5", "between shots 4 and 5"]),
        ("frames: 3", "frames: 2", []),
        ("title: Begin", "title: Start", []),
        ("fps: 4", "fps: 8", []),
        ("picture: blue.png", "picture: ./blue.png", []),
        ("steps: 2", "steps: 3", ["shot 2", "shot 3", "shot 4", "shot 5", "between shots 4 and 5"]),
        ("prompt: one", "prompt: one\n    guidance: 7.5", []),  # what the preset has anyway
    ],
)
def test_a_change_renames_what_it_changes_and_nothing_else(tmp_path, before, after, changed):
    assert STORY.count(before) == 1
    first, second = keys_of(planned(tmp_path)), keys_of(planned(tmp_path, STORY.replace(before, after)))
    assert [name for name in first if first[name] != second[name]] == changed


def test_a_shot_put_in_between_renames_no_other(tmp_path):
    more = STORY.replace(
        "  - picture: red.png\n    prompt: one", "  - picture: blue.png\n  - picture: red.png\n    prompt: one"
    )
    assert set(keys_of(planned(tmp_path)).values()) < set(keys_of(planned(tmp_path, more)).values())


def test_pixels_count_and_names_of_files_do_not(tmp_path):
    before = keys_of(planned(tmp_path))
    Image.open(tmp_path / "red.png").save(tmp_path / "same.bmp")
    assert keys_of(planned(tmp_path, STORY.replace("red.png", "same.bmp"))) == before
    pixels = np.array(Image.open(tmp_path / "red.png"))
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(tmp_path / "red.png")
    after = keys_of(planned(tmp_path))
    assert [name for name in before if before[name] != after[name]] == ["shot 2", "shot 5", "between shots 4 and 5"]


@pytest.mark.parametrize(
    "other",
    [
        replace(TINY, hash="0123456789abcdef"),
        replace(TINY, loras=(Adapter(path="a.safetensors", scale=0.5, hash="1"),)),
        replace(TINY, preset=replace(get_preset("512_interp"), height=64, width=64)),
    ],
)
def test_another_model_or_other_adapters_rename_all(tmp_path, other):
    assert not set(keys_of(planned(tmp_path)).values()) & set(keys_of(planned(tmp_path, model=other)).values())


def test_a_model_of_its_own_makes_the_transitions(tmp_path):
    plan = planned(tmp_path, transition_model=replace(TINY, name="other"))
    assert [piece.model.name for piece in plan.pieces] == ["seeded:tiny"] * 4 + ["other"]
    assert [model["name"] for model in described(plan)["models"]] == ["seeded:tiny", "other"]


def test_a_model_with_adapters_and_the_same_without_are_two_in_the_metadata(tmp_path):
    dressed = replace(TINY, loras=(Adapter(path="a.safetensors", hash="1"),))
    models = described(planned(tmp_path, model=dressed, transition_model=TINY))["models"]
    assert [[lora["hash"] for lora in model["lora"]] for model in models] == [["1"], []]


def test_without_a_size_all_frames_have_that_of_the_shots_preset(tmp_path):
    small = replace(TINY, preset=replace(TINY.preset, height=128, width=64))
    plan = planned(tmp_path, STORY.replace(", size: 64x64", ""), model=small, transition_model=TINY)
    assert plan.size == (128, 64)
    assert {piece.options.size for piece in plan.pieces} == {(128, 64)}


ERRORS = {
    "fades overlap": (
        """\
        shots:
          - {picture: red.png, frames: 6, transition: {kind: crossfade, frames: 4}}
          - picture: blue.png
            frames: 6
            transition: {kind: crossfade, frames: 3}
          - {picture: red.png, frames: 6}
        """,
        "line 5: crossfade of 3 frames must leave shot 2 what it shows by then: it has 6 frames, 4 of them",
    ),
    "a fade longer than what follows": (
        "shots:\n- {picture: red.png, frames: 6, transition: {kind: crossfade, frames: 4}}\n"
        "- {picture: blue.png, frames: 3}",
        "line 2: crossfade must be at most as long as the shot that it leads to, 3 frames, got 4.",
    ),
    "nothing left of a continuation": (
        "shots:\n- picture: red.png\n- {picture: previous, frames: 1}",
        "line 3: shot 2 must have 2 frames or more",
    ),
    "a title too long for its card": (
        f"defaults: {{size: 64x64}}\nshots:\n- seconds: 1\n  title: {'long ' * 60}",
        "line 4: title of 299 characters does not fit a card of 64×64; shorten it.",
    ),
    "too much for the metadata": (
        "shots:\n" + "- {picture: red.png, prompt: " + "w" * 1900 + "}\n" + "- {picture: blue.png}\n" * 400,
        "characters too long for its film's metadata, which hold it; make two of it.",
    ),
}


@pytest.mark.parametrize(("text", "said"), ERRORS.values(), ids=ERRORS)
def test_what_only_the_whole_shows_to_be_wrong_is_said_with_its_line(tmp_path, text, said):
    with pytest.raises(InputError) as caught:
        planned(tmp_path, text)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "story.yaml"))
