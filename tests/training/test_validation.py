"""Clips before and after training, and the motion numbers that go on with a model."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from dynamicrafter import Animator
from dynamicrafter.media.video import read_clip
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.pipeline.describing import describe
from dynamicrafter.pipeline.trained_motion import as_json, motion_counts, with_trained_motion
from dynamicrafter.presets import BUNDLED, PRESETS
from dynamicrafter.randomness import generator_for
from dynamicrafter.specs.model import model_spec
from dynamicrafter.training.config import LoraConfig, OptimizerConfig, Stage, ValidationConfig
from dynamicrafter.training.export import export, read_motions
from dynamicrafter.training.loop import train
from dynamicrafter.training.validation import can_compare, compare
from training_runs import FakeClips, small

QUICK = ValidationConfig(steps=2)


def trained(tmp_path, **changes):
    config = small(tmp_path / "run", validation=QUICK, optimizer=OptimizerConfig(lr=0.05), **changes)
    return config, train(config, stream=FakeClips()).checkpoint


@pytest.mark.parametrize("changes", [{}, {"trains": "lora", "lora": LoraConfig(rank=2)}, {"ema": 0.5}])
def test_the_sheet_shows_the_clip_and_the_model_before_and_after(tmp_path, changes):
    config, checkpoint = trained(tmp_path, **changes)
    sheet = compare(config, checkpoint, stream=FakeClips())
    assert sheet == tmp_path / "run" / "validation" / "before-after.png"
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape == (3 * 64 + 2 * 4, 2 * 64 + 4, 3)
    rows = [pixels[top : top + 64] for top in (0, 68, 136)]
    first = FakeClips().draw(0).pixels.permute(1, 2, 3, 0).numpy()
    np.testing.assert_array_equal(rows[0][:, :64], first[0])
    np.testing.assert_array_equal(rows[0][:, 68:], first[-1])
    assert (rows[1] != rows[2]).any()
    for name, row in (("before", rows[1]), ("after", rows[2])):
        frames, _ = read_clip(sheet.parent / f"{name}.mp4")
        assert np.abs(frames[-1].astype(int) - row[:, 68:]).mean() < 20  # as far as mp4 keeps noise

    untrained = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    clip = FakeClips().draw(0)
    assert clip.motion == 4
    generator = generator_for(config.seed, item="validation")
    untrained.set_progress_bar_config(disable=True)
    before = untrained(
        image=np.ascontiguousarray(first[0]), prompt=clip.caption, motion=4, num_inference_steps=2, height=64,
        width=64, num_frames=2, generator=generator, output_type="uint8",
    ).frames[0]  # fmt: skip
    np.testing.assert_array_equal(rows[1][:, 68:], np.asarray(before)[-1])


def test_a_picture_of_ones_own_is_the_subject_instead(tmp_path):
    Image.new("RGB", (80, 80), "red").save(tmp_path / "red.png")
    config, checkpoint = trained(tmp_path)
    config = replace(config, validation=ValidationConfig(steps=1, image=tmp_path / "red.png", prompt="a wave"))
    sheet = Image.open(compare(config, checkpoint, stream=FakeClips()))
    assert sheet.size == (2 * 64 + 4, 2 * 64 + 4)


def test_there_is_nothing_to_compare_without_pixels_or_where_it_is_not_wanted(tmp_path):
    config = small(tmp_path)
    assert can_compare(config)
    assert not can_compare(replace(config, cache=tmp_path))
    assert can_compare(replace(config, cache=tmp_path, validation=ValidationConfig(image=tmp_path / "a.png")))
    assert not can_compare(replace(config, stages=(Stage(clips=1),)))
    assert not can_compare(replace(config, validation=ValidationConfig(sheet=False)))


def test_motion_numbers_seen_are_counted_through_a_resumed_run(tmp_path):
    config = small(tmp_path / "run", steps=2)
    train(config, stream=FakeClips())
    assert read_motions(config) == {4: 1, 5: 1}
    train(replace(config, steps=5), stream=FakeClips())
    assert read_motions(config) == Counter({4: 2, 5: 2, 6: 1})
    assert read_motions(replace(config, stages=(Stage(clips=1),))) == Counter()


def test_a_models_clips_begin_from_the_motion_numbers_that_it_was_trained_under(tmp_path):
    config, checkpoint = trained(tmp_path)
    folder = export(config, checkpoint)
    preset = DynamiCrafterPipeline.from_pretrained(folder).preset
    assert PRESETS["512"].motion.default == 24
    assert preset.motion.default == 6  # of 4, 5 and 6 the nearest
    assert (preset.motion.low, preset.motion.high) == (4, 30)


def test_adapters_bring_their_motion_numbers_along(tmp_path):
    config, checkpoint = trained(tmp_path, trains="lora", lora=LoraConfig(rank=2))
    file = export(config, checkpoint)
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["motion_numbers"]) == {"4": 1, "5": 1, "6": 1}
    animator = Animator.from_pretrained("seeded:tiny", device="cpu")
    picture = np.zeros((64, 64, 3), np.uint8)
    quick = {"steps": 1, "frames": 2, "size": (64, 64)}
    assert animator.animate(picture, **quick).metadata["options"]["motion"] == 24
    animator.load_lora(file)
    assert animator.animate(picture, **quick).metadata["options"]["motion"] == 6
    assert animator.animate(picture, motion=9, **quick).metadata["options"]["motion"] == 9
    assert animator.pipeline.preset.motion.default == 24
    assert describe(model_spec("seeded:tiny", lora=[str(file)])).preset.motion.default == 6
    assert describe(model_spec("seeded:tiny")).preset.motion.default == 24


def test_a_presets_own_number_stays_where_it_was_trained_on():
    assert with_trained_motion(BUNDLED, {8: 1, 24: 3}) == BUNDLED
    assert with_trained_motion(BUNDLED, {}) == BUNDLED
    assert with_trained_motion(BUNDLED, {24: 1}).motion.default == 24
    assert with_trained_motion(BUNDLED, {30: 1, 60: 1}).motion.calm == 60
    strides = with_trained_motion(PRESETS["256"], {7: 1, 9: 4}).motion
    assert (strides.default, strides.calm, strides.lively) == (7, 1, 9)


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{", "3", '{"a": 1}', '{"5000": 1}', '{"0": 1}', '{"12": -1}', '{"12": "x"}', "[" * 9999]
)
def test_a_header_that_holds_something_else_counts_for_nothing(text):
    assert motion_counts(text) == Counter()


def test_counts_are_written_as_they_are_read():
    assert motion_counts(as_json({24: 3, 12: 1})) == {12: 1, 24: 3}
    assert as_json({24: 3, 12: 1}) == '{"12": 1, "24": 3}'
