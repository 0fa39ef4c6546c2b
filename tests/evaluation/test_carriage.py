import cv2
import numpy as np
import pytest

from dynamicrafter.data.synthetic.photos import photo
from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.carriage import gradient_energy, measure_carried
from dynamicrafter.evaluation.report import Question, evaluate_clip


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return cv2.resize(photo("skimage/astronaut.png"), (192, 192), interpolation=cv2.INTER_AREA)


def panned(photograph: np.ndarray, *, step: int = 1, num_frames: int = 16) -> np.ndarray:
    """The content moves left by whole pixels."""
    return np.stack([photograph[32:160, 32 + step * k : 160 + step * k] for k in range(num_frames)])


def test_a_perfect_pan_keeps_everything_and_its_shifts_are_found(photograph) -> None:
    frames = panned(photograph)
    found = measure_carried(frames, frames[0])
    assert [(each.frame, each.right, each.down) for each in found] == [(5, -5, 0), (10, -10, 0), (15, -15, 0)]
    assert all(each.psnr == 100 and each.energy == 1 for each in found)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (7, -3), (-20, 11), (0, 30)])
def test_shifts_are_found_in_every_direction(photograph, right, down) -> None:
    frame = photograph[32 - down : 160 - down, 32 - right : 160 - right]
    [found] = measure_carried(frame[None], photograph[32:160, 32:160], at=(0,))
    assert (found.right, found.down) == (right, down)


def test_figures_fall_with_the_width_of_a_known_blur(photograph) -> None:
    frames = panned(photograph)
    measured = [measure_carried(frames, frames[0])]
    for sigma in (0.5, 1.0, 2.0):
        blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])
        measured.append(measure_carried(blurred, frames[0]))
    for place in range(3):
        assert (np.diff([found[place].psnr for found in measured]) < -1).all()
        assert (np.diff([found[place].energy for found in measured]) < -0.05).all()


def test_the_energy_left_is_the_filters_own(photograph) -> None:
    frames = panned(photograph)
    blurred = np.stack([cv2.blur(frame, (2, 1)) for frame in frames])
    [found] = measure_carried(blurred, frames[0], at=(10,))
    shown, meant = blurred[10], frames[10]
    assert found.energy == pytest.approx(gradient_energy(shown[:, :118]) / gradient_energy(meant[:, :118]), rel=0.02)


def test_a_flat_picture_is_as_sharp_as_itself() -> None:
    grey = np.full((6, 40, 40, 3), 90, np.uint8)
    assert [each.energy for each in measure_carried(grey, grey[0])] == [1]


def test_pictures_of_another_size_are_refused(photograph) -> None:
    with pytest.raises(InputError, match="picture must have the frames' shape"):
        measure_carried(panned(photograph), photograph)


def test_reports_carry_it_for_pans_alone(photograph) -> None:
    frames = panned(photograph)
    pan = evaluate_clip(frames, Question(name="a", picture=frames[0], expected="pan right"))
    zoom = evaluate_clip(frames, Question(name="b", picture=frames[0], expected="zoom in"))
    assert [each.frame for each in pan.carried] == [5, 10, 15]
    assert zoom.carried == ()
