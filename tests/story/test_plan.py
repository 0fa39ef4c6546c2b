"""A plan says what is shown when and what must be made, and names pieces by all that decides their frames."""

from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.presets import get_preset
from dynamicrafter.specs.adapters import Adapter
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.story.format import read_story
from dynamicrafter.story.plan import Crossfade, plan_metadata, plan_story
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


def with_adapter(**settings):
    adapter = Adapter(path=Path("a.safetensors"), hash="1", **settings)
    spec = copy(TINY.spec)
    object.__setattr__(spec, "lora", (adapter,))  # which is not there, and need not be
    return replace(TINY, spec=spec)


def keys_of(plan):
    return {clip.name: clip.key for clip in plan.clips}


def test_every_frame_has_its_place(tmp_path):
    plan = planned(tmp_path)
    shown = [
        ("crossfade" if isinstance(part, Crossfade) else (part.start, part.stop), part.num_frames)
        for part in plan.timeline
    ]
    assert shown == [
        ((0, 4), 4),  # the card
        ((0, 5), 5),
        ("crossfade", 3),
        ((3, 8), 5),
        ((1, 8), 7),  # its first frame repeats the last of the shot before
        ((1, 6), 5),  # so do the first and last of what comes between
        ((0, 8), 8),
    ]
    assert plan.num_frames == 37
    assert plan.seconds == 37 / 4
    assert [clip.name for clip in plan.clips] == ["shot 2", "shot 3", "shot 4", "shot 5", "between shots 4 and 5"]
    assert [clip.num_frames for clip in plan.clips] == [8, 8, 8, 8, 7]


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
    assert plan.clips[1].sources[0].clip is plan.clips[0]


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
        with_adapter(scale=0.5),
        replace(TINY, preset=replace(get_preset("512_interp"), height=64, width=64)),
    ],
)
def test_another_model_or_other_adapters_rename_all(tmp_path, other):
    assert not set(keys_of(planned(tmp_path)).values()) & set(keys_of(planned(tmp_path, model=other)).values())


def test_a_model_of_its_own_makes_the_transitions(tmp_path):
    plan = planned(tmp_path, transition_model=replace(TINY, spec=replace(TINY.spec, name="other")))
    assert [clip.model.name for clip in plan.clips] == ["seeded:tiny"] * 4 + ["other"]
    assert [model["name"] for model in plan_metadata(plan)["models"]] == ["seeded:tiny", "other"]


def test_a_model_with_adapters_and_the_same_without_are_two_in_the_metadata(tmp_path):
    dressed = with_adapter()
    models = plan_metadata(planned(tmp_path, model=dressed, transition_model=TINY))["models"]
    assert [[lora["hash"] for lora in model["lora"]] for model in models] == [["1"], []]


def test_without_a_size_all_frames_have_that_of_the_shots_preset(tmp_path):
    small = replace(TINY, preset=replace(TINY.preset, height=128, width=64))
    plan = planned(tmp_path, STORY.replace(", size: 64x64", ""), model=small, transition_model=TINY)
    assert plan.size == (128, 64)
    assert {clip.options.size for clip in plan.clips} == {(128, 64)}


@pytest.mark.parametrize(
    "shots", ["- {picture: wide.png}\n- {picture: red.png}", "- {title: a, frames: 1}\n- picture: wide.png"]
)
def test_a_size_of_auto_is_the_shape_of_the_first_picture(tmp_path, shots):
    Image.new("RGB", (400, 100)).save(tmp_path / "wide.png")
    model = replace(TINY, preset=replace(TINY.preset, height=128, width=128))
    assert planned(tmp_path, f"defaults: {{size: auto}}\nshots:\n{shots}\n", model=model).size == (64, 256)


def test_a_story_of_cards_alone_has_the_presets_size_where_auto_is_asked_for(tmp_path):
    assert planned(tmp_path, "defaults: {size: auto}\nshots:\n- {title: a, frames: 1}\n").size == (64, 64)


def test_what_a_person_should_know_is_said_once_with_the_clip_that_it_is_about(tmp_path):
    plan = planned(
        tmp_path, STORY.replace("prompt: two", "prompt: two\n    motion: 3").replace(": four", ": four\n    motion: 3")
    )
    assert plan.notes == [
        "shot 3: motion 3 is outside the range that preset 512 was tuned for, 15 to 30 (frames per second); the clip "
        "may break up.",
        "between shots 4 and 5: preset 512 was not trained to interpolate between pictures; 512_interp was.",
    ]


def test_options_are_resolved_once_for_each_clip_and_once_for_the_defaults(tmp_path, monkeypatch):
    count, original = [], AnimateOptions.resolved
    monkeypatch.setattr(AnimateOptions, "resolved", lambda *args, **more: count.append(1) or original(*args, **more))
    assert len(planned(tmp_path).clips) + 1 == len(count) == 6


EARLIER = """\
defaults: {steps: 2, guidance: 1, frames: 4, size: 64x64, seed: 3}
shots:
  - picture: red.png
    prompt: one
    motion: 9
    guidance_interval: [200, 800]
    transition: {kind: crossfade, frames: 2}
  - picture: blue.png
    prompt: two
    guidance: 7.5
    image_guidance: 2
    quality: draft
    negative: blur
  - picture: previous
    prompt: three
    sampler: unipc
    fit: contain
    cache: 0.1
    transition: {kind: interpolate, frames: 2, prompt: over, pin_first_frame: true}
  - title: End
    frames: 3
    background: navy
"""
# As they were named before clips and options were described once for all faces.
EARLIER_KEYS = {
    "shot 1": ("9ec56de4eb417a6a", "5763a2ce1219060f"),
    "shot 2": ("53720da457c6e0f8", "c3e9e4034ecb12f4"),
    "shot 3": ("70dfe202a50487f3", "d13eba374e7bba0c"),
    "between shots 3 and 4": ("cc9fd53141a59152", "f5d66acd3b1538bc"),
}


def test_clips_are_named_as_before_so_that_a_story_half_made_by_an_earlier_version_goes_on(tmp_path):
    plain, adapted = (keys_of(planned(tmp_path, EARLIER, model=model)) for model in (TINY, with_adapter(scale=0.5)))
    assert {name: (plain[name], adapted[name]) for name in plain} == EARLIER_KEYS


ERRORS = {
    "two options that do not go together": (
        "shots:\n- picture: red.png\n  window: 6\n  window_stride: 7",
        "line 4: window_stride must be between 1 and 6, got 7; try 6.",
    ),
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
