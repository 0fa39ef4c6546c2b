import numpy as np
import pytest
import skimage.data

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.cases import view
from dynamicrafter.evaluation.joints import colour_step, first_jump, joint_pace, measure_joints
from dynamicrafter.evaluation.motion import CameraMotion

COFFEE = skimage.data.coffee()


def at(*places):
    """A clip of a photo whose content stands at these places, in pixels to the right."""
    return np.stack([view(COFFEE, (96, 96), CameraMotion(x=x, y=0, log_zoom=0, rotation=0)) for x in places])


def levels(*values):
    return np.stack([np.full((40, 40, 3), value, np.uint8) for value in values])


EVEN = at(*range(13))
PAUSE = at(0, 1, 2, 3, 4, 5, 5.9, 6, 6.1, 7, 8, 9, 10)
JUMP = at(0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 14, 15, 16)


def test_the_pace_across_a_joint_is_one_where_it_is_even_less_in_a_pause_and_more_in_a_jump():
    assert joint_pace(EVEN, [6]) == pytest.approx(1, abs=0.05)
    assert joint_pace(PAUSE, [7]) == pytest.approx(0.1, abs=0.08)
    assert joint_pace(JUMP, [6]) == pytest.approx(3, abs=0.2)


def test_zooms_have_a_pace_too_and_what_stands_still_has_none():
    zooms = np.stack([view(COFFEE, (96, 96), CameraMotion(x=0, y=0, log_zoom=0.03 * i, rotation=0)) for i in range(9)])
    assert joint_pace(zooms, [4]) == pytest.approx(1, abs=0.1)
    assert joint_pace(np.repeat(EVEN[:1], 9, axis=0), [4]) is None


def test_a_step_of_colour_at_a_joint_is_told_in_grey_levels_and_a_steady_change_is_none():
    assert colour_step(levels(10, 13, 16, 19, 22), [2]) == 0
    assert colour_step(levels(10, 10, 10, 17, 17, 17), [3]) == 7
    assert colour_step(levels(10, 10, 14, 10, 10), [2]) == 8


def test_joints_are_measured_within_the_clip_and_across_the_end_of_a_closed_one():
    found = measure_joints(EVEN, [0, 6, 12])
    assert found.pace == pytest.approx(1, abs=0.05)
    assert found.jerk == pytest.approx(1, abs=0.3)
    assert found.colour < 1
    there_and_back = at(*range(7), *range(5, 0, -1))
    assert measure_joints(there_and_back, [0, 6], closed=True).pace == pytest.approx(0, abs=0.1)
    with pytest.raises(InputError, match="joints must be some of the frames 1 to 11"):
        measure_joints(EVEN, [0, 12])


def test_frames_too_small_to_trace_have_no_pace():
    assert measure_joints(EVEN[:, :16, :16], [6]).pace is None


def test_the_jump_from_the_first_frame_is_held_against_the_usual_difference():
    assert first_jump(levels(0, 10, 20, 30)) == 1
    assert first_jump(levels(0, 30, 40, 50, 60)) == 3
    assert first_jump(levels(250, 0, 250, 0)) == 1  # no wrap-around of uint8
    assert first_jump(levels(5, 5, 5, 5)) == 1
    assert first_jump(levels(0, 5, 5, 5)) == float("inf")


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        (lambda: joint_pace(EVEN[:4], [1, 2]), "and not all"),
        (lambda: joint_pace(EVEN, [12]), "joints must be some of the frames 1 to 11"),
        (lambda: colour_step(EVEN, [0]), "joints must be some of the frames 1 to 11"),
        (lambda: colour_step(EVEN, []), "joints must be some of the frames"),
        (lambda: first_jump(levels(1, 2, 3)), "at least 4 frame"),
        (lambda: measure_joints(levels(1, 2, 3, 4, 5), [2]), "at least 6 frame"),
    ],
)
def test_what_has_no_answer_is_refused(measure, says):
    with pytest.raises(InputError, match=says):
        measure()
