"""Clips are judged for a recipe before anything is trained on them."""

import json
from fractions import Fraction

import pytest

from dynamicrafter.data.check import check_data
from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.suitability import RecipeReport, judge
from dynamicrafter.presets import BUNDLED, PRESETS
from numbered_clips import write_numbered

SMALL = DataConfig(size=(128, 128), max_stride=1)


def judged(config=SMALL, motion=BUNDLED.motion, *, num_frames=16, fps=12, size=(128, 128)):
    return judge(config, motion, num_frames=num_frames, fps=Fraction(fps), size=size)


def test_a_clip_of_a_samples_length_rate_and_shape_has_nothing_wrong():
    found = judged()
    assert found.remarks == {}
    assert found.motions == (12, 12)
    assert found.seconds == (1.25, 1.25)
    assert (found.shown, found.cropped, found.enlarged) == (1, 0, 1)


def test_a_long_clip_shows_a_part_that_may_begin_anywhere():
    found = judged(num_frames=72, fps=24)
    assert found.motions == (24, 24)
    assert found.seconds == (0.625, 0.625)
    assert found.shown == pytest.approx(16 / 72)
    assert found.remarks == {"phase": "a sample shows 22% of it and may begin anywhere in it"}
    assert judged(DataConfig(size=(128, 128), min_stride=4, max_stride=4), num_frames=72, fps=48).remarks == {}


def test_a_rate_that_the_model_does_not_know_is_named():
    assert judged(fps=60).remarks == {"rate": "its motion number, 60, is outside the 8 to 24 that are known"}
    assert "rate" not in judged(DataConfig(size=(128, 128), max_stride=6), num_frames=91, fps=60).remarks
    strides = PRESETS["256"].motion
    assert judged(DataConfig(size=(256, 256), min_stride=8, max_stride=9), strides, num_frames=200).motions == (8, 9)


@pytest.mark.parametrize(
    ("size", "cropped", "enlarged"),
    [((180, 320), 1 - 180 / 320, 128 / 180), ((320, 180), 1 - 180 / 320, 128 / 180), ((64, 64), 0, 2)],
)
def test_what_is_cut_off_and_enlarged_is_measured(size, cropped, enlarged):
    found = judged(size=size)
    assert found.cropped == pytest.approx(cropped)
    assert found.enlarged == pytest.approx(enlarged)
    assert list(found.remarks) == (["shape"] if cropped else ["pixels"])


def report_of(config=SMALL, motion=BUNDLED.motion, **clip):
    report = RecipeReport(config=config, motion=motion)
    report.add("a.mp4", **{"num_frames": 16, "fps": Fraction(12), "size": (128, 128), **clip})
    return report


def test_advice_names_the_stride_that_comes_nearest_to_the_usual_rate():
    advice = report_of(num_frames=72, fps=Fraction(24)).advice()
    assert "--set data.min_stride=2 --set data.max_stride=2" in advice[0]
    assert "(1.2 s)" in advice[1]
    set_so = DataConfig(size=(128, 128), min_stride=2, max_stride=2)
    assert not any("min_stride" in line for line in report_of(set_so, num_frames=72, fps=Fraction(24)).advice())
    assert report_of().advice() == []


def test_a_source_is_judged_as_a_whole_and_as_json(tmp_path):
    write_numbered(tmp_path / "a.mp4", 60)
    write_numbered(tmp_path / "b.mp4", 16, fps=12)
    write_numbered(tmp_path / "short.mp4", 5)
    for name in ("a", "b", "short"):
        (tmp_path / f"{name}.txt").write_text("a clip")
    config = DataConfig(path=tmp_path, size=(48, 64), max_stride=1)
    report = check_data(config, motion=BUNDLED.motion)
    assert report.recipe.good == 1
    assert dict(report.recipe.kinds) == {"rate": 1, "phase": 1}
    told = json.loads(json.dumps(report.as_json()))["recipe"]
    assert told["clips"]["b.mp4"]["motion_numbers"] == [12, 12]
    assert told["clips"]["a.mp4"]["remarks"] == [
        "its motion number, 30, is outside the 8 to 24 that are known",
        "a sample shows 27% of it and may begin anywhere in it",
    ]
    assert "recipe" not in check_data(config).as_json()
