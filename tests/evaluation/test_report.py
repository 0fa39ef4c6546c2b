import json

import numpy as np
import pytest
import skimage.data

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.cases import view
from dynamicrafter.evaluation.frames import extra
from dynamicrafter.evaluation.motion import CameraMotion, NominalMotion
from dynamicrafter.evaluation.report import Question, as_json, by_group, clip_table, evaluate_clip, group_table, means

NOMINAL = NominalMotion(pan=1, zoom=0.02, rotation=0.02)
PANNING = np.stack(
    [view(skimage.data.coffee(), (64, 64), CameraMotion(x=i, y=0, log_zoom=0, rotation=0)) for i in range(6)]
)


def judged(**asked):
    return evaluate_clip(PANNING, Question(name="clip", **{"nominal": NOMINAL, **asked}))


def test_a_clip_is_right_where_it_moves_as_expected():
    right, wrong, open_ended = (judged(expected=kind) for kind in ("pan left", "pan right", None))
    assert (right.right, wrong.right, open_ended.right) == (True, False, None)
    assert right.speed == -wrong.speed == open_ended.speed == pytest.approx(1, abs=0.06)
    assert right.found == wrong.found == open_ended.found == "pan left"


def test_both_ends_are_held_against_their_pictures():
    report = evaluate_clip(
        PANNING,
        Question(name="clip", mode="interpolate", picture=PANNING[0], last_picture=PANNING[0]),
        reconstruct=lambda picture: picture,
    )
    assert (report.first.psnr, report.first.loss) == (100, 0)
    assert report.last.psnr < 30
    assert report.last.loss == 100 - report.last.psnr


def test_only_loops_have_a_closure():
    assert judged().closure is None
    assert judged(mode="loop").closure > 1.5


def test_a_clip_too_short_or_small_is_measured_in_what_it_has():
    still = evaluate_clip(PANNING[:1], Question(name="still", expected="still"))
    assert (still.found, still.right, still.flicker) == (None, None, None)
    small = evaluate_clip(PANNING[:, :16, :16], Question(name="small"))
    assert small.camera is None
    assert small.flicker is not None


def test_means_leave_out_what_no_clip_has():
    reports = [judged(expected=kind) for kind in ("pan left", "pan right", None)]
    found = means(reports)
    assert found["clips"] == 3
    assert found["right"] == 0.5
    assert "closure" not in found
    assert "first_psnr" not in found


def test_groups_have_their_own_means_in_json():
    reports = [judged(group="a", expected="pan left"), judged(group="b"), judged(group="a", expected="zoom in")]
    value = json.loads(json.dumps(as_json(reports, more=1), allow_nan=False))
    assert [len(value["clips"]), value["more"]] == [3, 1]
    assert list(by_group(reports)) == list(value["groups"]) == ["a", "b"]
    assert value["groups"]["a"]["right"] == 0.5
    assert value["clips"][0]["camera"]["x"] == pytest.approx(1, abs=0.06)


def test_tables_have_a_line_for_each_clip_and_group():
    reports = [judged(group="a", expected="pan left"), judged(group="b", picture=PANNING[0])]
    lines = clip_table(reports).splitlines()
    assert lines[0].split()[:4] == ["clip", "expected", "found", "right"]
    assert len(lines) == 3
    assert "100.0" in lines[2]
    assert len({line.rstrip().rfind(" ") for line in lines}) <= 3
    assert [line.split()[:2] for line in group_table(reports).splitlines()[1:]] == [
        ["a", "1"],
        ["b", "1"],
        ["all", "2"],
    ]


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"first picture of clip must be 64x64, got \(32, 64, 3\)"):
        judged(picture=PANNING[0][:32])


def test_a_missing_package_names_its_extra():
    with pytest.raises(InputError, match=r'needs no_such_package.*pip install "dynamicrafter\[evaluate\]"'):
        extra("no_such_package")
