import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.asked import asked_motion, parse_kind
from dynamicrafter.evaluation.motion import KINDS


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("the camera pans left", "pan left"),
        ("a castle by the sea, slowly panning to the right", "pan right"),
        ("Slow pan upwards", "pan up"),
        ("the camera tilts down over the valley", "pan down"),
        ("tracking shot to the left", "pan left"),
        ("slide to the left", "pan left"),
        ("the scene slides to the left", "pan right"),
        ("everything drifts down", "pan up"),
        ("zooming slowly in", "zoom in"),
        ("the camera moves closer", "zoom in"),
        ("camera pushes in on her face", "zoom in"),
        ("zoom out", "zoom out"),
        ("the camera pulls back", "zoom out"),
        ("the picture turns clockwise", "rotate clockwise"),
        ("rotating counter-clockwise", "rotate counterclockwise"),
        ("it spins anticlockwise", "rotate counterclockwise"),
        ("nothing moves", "still"),
        ("a static shot of a boat", "still"),
        ("a man stands still while the camera pans right", "pan right"),
    ],
)
def test_the_camera_motion_that_a_prompt_names_is_found(prompt, kind):
    assert asked_motion(prompt) == kind


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a boat on a stormy sea",
        "a ball rolls to the left",
        "a man is looking up",
        "the lights go out",
        "snow falls",
        "the camera pans left then right",
        "zoom in, pan left",
        "an upright clock",
    ],
)
def test_a_prompt_that_names_none_or_several_gives_none(prompt):
    assert asked_motion(prompt) is None


def test_kinds_are_parsed_by_name():
    assert [parse_kind(kind) for kind in KINDS] == list(KINDS)
    assert parse_kind("  Pan   LEFT ") == "pan left"
    with pytest.raises(InputError, match="expect must be one of still, pan left"):
        parse_kind("left")
