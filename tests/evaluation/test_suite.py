import sys
import types
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import skimage.data

import tiny
from dynamicrafter.errors import InputError
from dynamicrafter.evaluation import suite
from dynamicrafter.evaluation.cases import Case, bundled_cases, motion_of, view
from dynamicrafter.evaluation.motion import KINDS, CameraMotion, NominalMotion, classify, measure_motion
from dynamicrafter.evaluation.suite import evaluate_model, summarise, summary_lines

NOMINAL = NominalMotion(pan=1, zoom=0.02, rotation=0.02)
PHOTO = skimage.data.chelsea()


def moved(kind, speed, *, frames=6):
    camera = motion_of(kind, NOMINAL)
    return np.stack(
        [
            view(PHOTO, (64, 64), CameraMotion(**{name: value * speed * i for name, value in asdict(camera).items()}))
            for i in range(frames)
        ]
    )


@dataclass
class Made:
    frames: np.ndarray


class Puppet:
    """Makes clips that move as their prompt says, at 24 / motion of nominal speed; records what it was asked."""

    def __init__(self, wrong=()):
        self.pipeline = tiny.pipeline("tiny512")
        self.asked = []
        self.wrong = wrong

    def animate(self, image, prompt="", **settings):
        self.asked.append(("animate", prompt, settings))
        return Made(moved("still" if prompt in self.wrong else prompt, 24 / settings["motion"]))

    def interpolate(self, first, last, prompt="", **settings):
        self.asked.append(("interpolate", prompt, settings))
        return Made(np.stack([first, first, last]))

    def loop(self, image, prompt="", **settings):
        self.asked.append(("loop", prompt, settings))
        frames = moved("pan left", 1)
        return Made(np.concatenate([frames, frames[-2:0:-1]]))


def case(kind, motion=24, **more):
    nominal = NominalMotion(**{name: value * 24 / motion for name, value in asdict(NOMINAL).items()})
    settled = {"name": f"{kind} {motion}", "picture": moved(kind, 0)[0], "prompt": kind, "nominal": nominal}
    return Case(kind=kind, motion=motion, **{**settled, **more})


def test_direction_and_speed_are_summed_up_by_kind():
    cases = [case(kind, motion) for kind in KINDS for motion in (16, 24)]
    done = evaluate_model(Puppet(wrong=("zoom in",)), cases)
    direction = done.summary["direction"]
    assert direction["pan (all)"] == direction["rotate (all)"] == direction["still"] == 1
    assert (direction["zoom (all)"], direction["zoom in"], direction["zoom out"]) == (0.5, 0, 1)
    speed = done.summary["speed"]
    assert set(speed) == set(KINDS) - {"still"}
    assert speed["pan up"]["ratio"] == {"16": pytest.approx(1, abs=0.1), "24": pytest.approx(1, abs=0.1)}
    assert speed["pan up"]["size"]["16"] == pytest.approx(1.5, abs=0.15)
    assert speed["pan up"]["monotone"]
    assert speed["zoom in"]["ratio"]["24"] == pytest.approx(0, abs=0.05)


def test_speeds_are_monotone_where_they_follow_the_motion_number_as_nominal_does():
    reports = evaluate_model(Puppet(), [case("pan left", motion) for motion in (12, 16, 24)]).reports
    assert summarise(reports)["speed"]["pan left"]["monotone"]
    against = [
        replace(report, camera=camera)
        for report, camera in zip(reports, [r.camera for r in reports[::-1]], strict=True)
    ]
    assert summarise(against)["speed"]["pan left"]["monotone"] is False
    assert summarise(reports[:1])["speed"]["pan left"]["monotone"] is None


def test_modes_are_made_by_their_own_methods_and_judged_by_their_own_measures():
    last = moved("pan left", 1)[-1]
    cases = [case("pan left"), case("snow", mode="loop"), case("zoom in", mode="interpolate", last_picture=last)]
    puppet, seen = Puppet(), []
    done = evaluate_model(puppet, cases, settings={"steps": 3}, on_clip=lambda *told: seen.append(told[0].name))
    assert [mode for mode, _, _ in puppet.asked] == ["animate", "loop", "interpolate"]
    assert puppet.asked[0][2] == {"steps": 3, "item": "pan left 24", "size": (64, 64), "motion": 24}
    assert seen == [case.name for case in cases]
    assert [report.group for report in done.reports] == ["pan left", "loop", "interpolate"]
    assert [report.right for report in done.reports] == [True, None, None]
    assert done.summary["loop_closure"] == pytest.approx(1, abs=0.3)
    # Both ends are the pictures themselves, which no autoencoder beats.
    assert done.summary["interpolation"]["first_loss"] < 0
    assert done.summary["interpolation"]["last_loss"] < 0
    assert done.summary["peak_bytes"] > 10**7
    assert done.summary["seconds"]["largest"] >= done.summary["seconds"]["mean"] > 0
    assert any(line.startswith("loop closure") for line in summary_lines(done.summary))


def test_the_autoencoders_own_loss_is_told_apart_from_the_clips(monkeypatch):
    flat = np.full((64, 64, 3), 100, np.uint8)
    monkeypatch.setattr(suite, "reconstruct", lambda pipeline, picture: picture + np.uint8(4))
    monkeypatch.setattr(
        Puppet, "animate", lambda self, image, prompt, **settings: Made(np.stack([flat + np.uint8(8)] * 4))
    )
    done = evaluate_model(Puppet(), [case("still", picture=flat)])
    assert done.summary["autoencoder_psnr"] == pytest.approx(36.09, abs=0.01)
    assert done.summary["first_loss"] == pytest.approx(20 * np.log10(2))


def test_a_suite_without_cases_is_refused():
    with pytest.raises(InputError, match="at least one case"):
        evaluate_model(Puppet(), [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_view_shows_its_kind(kind):
    camera, _ = measure_motion(moved(kind, 1))
    assert classify(camera, NOMINAL).kind == kind


@dataclass
class Moved:
    shift_x: float = 0.0
    log_scale: float = 0.0
    rotation: float = 0.0


@pytest.fixture
def synthetic(monkeypatch):
    """The synthetic data's held-out part, small."""
    fake = types.ModuleType("dynamicrafter.data.synthetic")
    fake.held_out_pictures = lambda: [
        ("cat", PHOTO),
        ("rocket", skimage.data.rocket()),
        ("man", skimage.data.camera()[..., None].repeat(3, 2)),
    ]
    fake.held_out_wordings = lambda: {
        kind: [f"{kind} {i}" for i in range(4)] for kind in ("pan left", "zoom out", "snow")
    }
    fake.nominal_motion = lambda kind, motion, size: Moved(-16 / motion, 0.2 / motion, 0.1 / motion)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)


@pytest.mark.usefixtures("synthetic")
def test_bundled_cases_go_through_kinds_pictures_and_motion_numbers():
    cases = bundled_cases(100, size=(64, 96), motions=(8, 12, 24))
    assert len({case.name for case in cases}) == 100
    assert [sum(case.mode == mode for case in cases) for mode in ("animate", "loop", "interpolate")] == [80, 10, 10]
    animated = [case for case in cases if case.mode == "animate"]
    for kind in ("pan left", "zoom out", "snow"):
        mine = [case for case in animated if case.kind == kind]
        assert len(mine) in (26, 27)
        assert {case.motion for case in mine} == {8, 12, 24}
        assert {case.prompt for case in mine} == {f"{kind} {i}" for i in range(4)}
        assert len({case.name.split()[2] for case in mine}) == 3
    assert {case.kind for case in cases if case.mode == "loop"} == {"snow"}
    assert all(case.picture.shape == (64, 96, 3) for case in cases)
    assert animated[0].nominal == NominalMotion(pan=2, zoom=0.025, rotation=0.0125)
    assert [case.expected for case in animated[:3]] == ["pan left", "zoom out", None]


@pytest.mark.usefixtures("synthetic")
def test_interpolation_ends_where_its_motion_would_be():
    case = next(
        case for case in bundled_cases(10, size=(64, 64), motions=(24,), num_frames=4) if case.mode == "interpolate"
    )
    camera, _ = measure_motion(np.stack([case.picture, case.last_picture]))
    assert case.kind == "pan left"
    assert camera.x == pytest.approx(3 * 16 / 24, abs=0.15)


@pytest.mark.usefixtures("synthetic")
def test_a_model_that_only_animates_is_asked_for_nothing_else():
    cases = bundled_cases(20, size=(64, 64), motions=(24,), modes=("animate",))
    assert {case.mode for case in cases} == {"animate"}
    with pytest.raises(InputError, match="clips must be at least 1"):
        bundled_cases(0, size=(64, 64), motions=(24,))


@pytest.mark.usefixtures("synthetic")
def test_a_suite_asks_for_the_kinds_it_is_told_and_knows_no_others():
    cases = bundled_cases(20, size=(64, 64), motions=(24,), kinds=["zoom out"])
    assert {case.kind for case in cases} == {"zoom out"}
    with pytest.raises(InputError, match="kinds must be of pan left, zoom out, snow, got 'moonwalk'"):
        bundled_cases(20, size=(64, 64), motions=(24,), kinds=["zoom out", "moonwalk"])
