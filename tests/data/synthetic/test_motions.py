import numpy as np
import pytest

from dynamicrafter.data.synthetic.motions import CAMERA, KINDS, Kind, move, nominal_motion, source_size
from dynamicrafter.data.synthetic.photos import photo
from dynamicrafter.data.synthetic.pictures import resized
from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.motion import measure_motion

SIZE = 128


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return resized(photo("skimage/astronaut.png"), source_size(SIZE))


def clip(picture: np.ndarray, kind: Kind, **options: object) -> np.ndarray:
    settings = {"size": SIZE, "num_frames": 16, "motion": 12.0, "other": picture[::-1]}
    return move(picture, kind, **(settings | options))


@pytest.mark.parametrize("kind", CAMERA)
@pytest.mark.parametrize("motion", [8.0, 24.0])
def test_optical_flow_sees_the_nominal_motion(picture: np.ndarray, kind: Kind, motion: float) -> None:
    seen, _ = measure_motion(clip(picture, kind, motion=motion))
    nominal = nominal_motion(kind, motion)
    assert seen.x == pytest.approx(nominal.shift_x, abs=0.12)
    assert seen.y == pytest.approx(nominal.shift_y, abs=0.12)
    assert seen.log_zoom == pytest.approx(nominal.log_scale, abs=0.002)
    assert seen.rotation == pytest.approx(nominal.rotation, abs=0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_every_motion_begins_with_the_picture_itself(picture: np.ndarray, kind: Kind) -> None:
    middle = (source_size(SIZE) - SIZE) // 2
    unmoved = picture[middle : middle + SIZE, middle : middle + SIZE]
    first = clip(picture, kind)[0]
    assert np.abs(first.astype(int) - unmoved.astype(int)).max() <= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "still"])
def test_every_motion_but_still_changes_the_picture(picture: np.ndarray, kind: Kind) -> None:
    frames = clip(picture, kind).astype(int)
    assert np.abs(frames - frames[0]).mean((1, 2, 3)).max() > 1.5


def test_there_and_back_ends_where_it_began(picture: np.ndarray) -> None:
    for kind in ("pan left", "zoom in", "darken"):
        frames = clip(picture, kind, course="there and back").astype(int)
        assert np.abs(frames[-1] - frames[0]).max() <= 1
        assert np.abs(frames[8] - frames[0]).mean() > 1.5


def test_the_camera_and_the_content_move_against_each_other() -> None:
    assert nominal_motion("pan left", 12).shift_x > 0
    assert nominal_motion("pan up", 12).shift_y > 0
    assert nominal_motion("zoom in", 12).log_scale > 0


def test_a_dissolve_without_a_second_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="other must be given for a dissolve"):
        clip(picture, "dissolve", other=None)


def test_what_is_no_camera_motion_has_no_nominal_one() -> None:
    with pytest.raises(InputError, match="kind must be a camera motion"):
        nominal_motion("ripple", 12)
