import numpy as np
import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.closure import joint_jerk, loop_closure, seam, window_seam
from dynamicrafter.evaluation.flicker import flicker, light_change


def levels(*values):
    """A clip whose frames are flat, of these grey levels."""
    return np.stack([np.full((8, 8, 3), value, np.uint8) for value in values])


def test_flicker_is_the_mean_second_difference_in_grey_levels():
    assert flicker(levels(100, 104, 100, 104, 100)) == 8
    assert flicker(levels(100, 100, 103, 100)) == pytest.approx((3 + 6) / 2)


def test_a_steady_change_of_light_is_no_flicker_and_content_does_not_matter():
    assert flicker(levels(10, 13, 16, 19)) == 0
    frames = np.random.default_rng(0).permuted(
        np.tile(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), (5, 1, 1, 3)).reshape(5, 64, 3), axis=1
    )
    assert flicker(frames.reshape(5, 8, 8, 3)) == 0


def test_light_that_changes_is_told_from_end_to_end():
    assert light_change(levels(100, 250, 60)).brightness == -40
    assert light_change(levels(0, 255)).brightness == 255  # no wrap-around of uint8
    red = levels(90, 90)
    red[0, ..., 0] = 200
    assert (light_change(red).colour, light_change(red[::-1]).colour) == (-110, 110)
    assert light_change(levels(3, 200)).colour == 0


def test_a_loop_that_closes_as_it_goes_on_has_a_closure_of_one():
    assert loop_closure(levels(0, 10, 20, 10)) == 1
    assert loop_closure(levels(0, 10, 20, 30)) == 3
    assert loop_closure(levels(250, 0, 250, 0)) == 1  # no wrap-around of uint8
    assert loop_closure(levels(7, 7, 7)) == 1


def test_a_joint_that_jumps_or_halts_stands_out():
    even = levels(*range(0, 90, 10))
    assert joint_jerk(even, [4]) == 1
    halting = levels(0, 10, 21, 31, 31, 41, 52, 62, 72)
    assert joint_jerk(halting, [3, 4]) > 10
    assert joint_jerk(levels(0, 0, 0, 9, 9, 9, 9), [2, 3]) == float("inf")


def test_a_seam_in_time_is_what_neighbours_differ_by_at_borders_over_what_they_do_elsewhere():
    assert window_seam(levels(0, 10, 20, 30, 40), [2]) == 1
    assert window_seam(levels(0, 10, 20, 50, 60), [3]) == 3
    assert window_seam(levels(0, 10, 20, 50, 60), [2]) == pytest.approx(10 / (50 / 3))
    assert window_seam(levels(0, 0, 240, 240), [2]) == float("inf")


def test_a_seam_stands_out_from_its_surroundings():
    plain = np.random.default_rng(0).integers(100, 120, (2, 32, 32, 3)).astype(np.uint8)
    assert seam(plain, rows=[16], columns=[16]) == pytest.approx(1, abs=0.2)
    torn = plain.copy()
    torn[:, :, 16:] += 60
    assert seam(torn, columns=[16]) > 5
    assert seam(torn, rows=[16]) == pytest.approx(1, abs=0.2)
    assert seam(torn, rows=[16], columns=[16]) == seam(torn, columns=[16])
    assert seam(torn, columns=[15]) < 1


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        (lambda: flicker(levels(1, 2)), "at least 3 frame"),
        (lambda: loop_closure(levels(1, 2)), "at least 3 frame"),
        (lambda: window_seam(levels(1, 2, 3), [3]), "borders must be some of the frames 1 to 2"),
        (lambda: window_seam(levels(1, 2, 3), []), "borders must be some of the frames 1 to 2"),
        (lambda: joint_jerk(levels(1, 2, 3, 4), [3]), "joints must be some of the frames 1 to 2"),
        (lambda: joint_jerk(levels(1, 2, 3, 4), [1, 2]), "and not all"),
        (lambda: seam(levels(1)), "at least one border"),
        (lambda: seam(levels(1), rows=[8]), "rows must be some of the pixels 1 to 7"),
    ],
)
def test_what_has_no_answer_is_refused(measure, says):
    with pytest.raises(InputError, match=says):
        measure()
