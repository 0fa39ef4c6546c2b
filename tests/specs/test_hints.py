"""Where a model can't do what is asked, or a frame cuts its picture, a line says so, and otherwise none."""

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.data.synthetic.motions import KINDS
from dynamicrafter.data.synthetic.wordings import wordings
from dynamicrafter.pipeline.describing import describe
from dynamicrafter.presets import BUNDLED, get_preset
from dynamicrafter.specs.clip import ClipSpec, check_clip
from dynamicrafter.specs.hints import BUNDLED_MOTIONS, motion_hints
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.specs.options import AnimateOptions

KNOWN = [kind for kind in KINDS if kind.startswith(("pan", "zoom", "rotate", "still"))]  # as the model card has them


def picture(width, height):
    return Image.fromarray(np.zeros((height, width, 3), np.uint8))


@pytest.mark.parametrize("kind", KNOWN)
def test_no_wording_of_a_motion_that_the_model_was_taught_is_told_of(kind):
    for split in ("train", "held_out"):
        for words in wordings(kind, split):
            for prompt in (words, f"A castle, {words.upper()}", f"{words}, slowly,\na red boat"):
                assert not list(motion_hints([prompt], BUNDLED_MOTIONS)), prompt


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in KNOWN])
def test_every_wording_of_another_motion_is_told_of(kind):
    for words in wordings(kind, "train"):
        assert list(motion_hints([words], BUNDLED_MOTIONS)), words


@pytest.mark.parametrize("prompt", ["", "a robot is walking through a destroyed city", "a right-handed man writes"])
def test_a_prompt_without_a_motion_is_told_what_the_model_knows_and_what_is_for_the_rest(prompt):
    [said] = motion_hints([prompt], BUNDLED_MOTIONS)
    assert "(in, out), turns (clockwise, counterclockwise) and standing still; the clip may stand still." in said
    assert "dynamicrafter download 512" in said
    assert list(motion_hints(["the camera pans left", prompt], BUNDLED_MOTIONS))
    assert not list(motion_hints([prompt], ()))


def test_only_the_packages_own_weights_without_adapters_are_said_to_know_so_little():
    assert describe(ModelSpec(name="bundled")).motions == BUNDLED_MOTIONS
    assert describe(ModelSpec(name="seeded:tiny")).motions == ()


@pytest.mark.parametrize(
    ("options", "shape", "cut"),
    [
        ({}, (640, 427), "33%"),
        ({}, (427, 640), "33%"),
        ({}, (500, 427), None),
        ({"size": "auto"}, (640, 427), None),
        ({"size": "128x128"}, (640, 427), None),
        ({"fit": "contain"}, (640, 427), None),
    ],
)
def test_a_picture_that_is_cut_unasked_is_told_of_size_auto(options, shape, cut):
    spec = ClipSpec(pictures=(picture(*shape),), options=AnimateOptions(**options))
    notes = check_clip(spec, BUNDLED).notes
    assert [f"cuts {cut} off the picture of {shape[0]}x{shape[1]}; size auto" in note for note in notes] == [
        True
    ] * bool(cut)


def test_a_photo_in_the_frame_of_its_own_shape_is_not_told_of_anything():
    assert check_clip(ClipSpec(pictures=(picture(512, 320),)), get_preset("512")).notes == ()
