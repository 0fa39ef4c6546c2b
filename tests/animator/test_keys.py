"""Clips through key pictures: which gaps there are, how they are joined, and what an animator makes of them."""

import numpy as np
import pytest
from PIL import Image

from dynamicrafter import AnimateOptions, Animator
from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.fidelity import reconstruct
from dynamicrafter.media.framing import frame_picture
from dynamicrafter.presets import auto_size
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.gaps import join_gaps, key_frames, match_colours, plan_gaps
from tiny import pipeline

QUICK = AnimateOptions(steps=1, frames=5, guidance=1.0)


@pytest.fixture(scope="module")
def animator():
    return Animator(pipeline("tiny512"), model="seeded:tiny")


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 255, (70, 90, 3), dtype=np.uint8)) for _ in range(3)]


def levels(*values):
    """A clip whose frames are flat, of these grey levels."""
    return np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])


def test_gaps_lead_from_each_picture_to_the_next_and_closed_ones_back_to_the_first():
    assert [(gap.first, gap.last) for gap in plan_gaps(3, ["walk"], closed=False)] == [(0, 1), (1, 2)]
    closed = plan_gaps(3, ["out", "on", "home"], closed=True)
    assert [(gap.first, gap.last, gap.prompt) for gap in closed] == [(0, 1, "out"), (1, 2, "on"), (2, 0, "home")]


def test_the_first_gap_draws_from_the_clips_own_stream_and_no_two_gaps_from_one():
    for item in ("", "job 7"):
        gaps = plan_gaps(4, [""], closed=True, item=item)
        assert gaps[0].item == item
        assert len({gap.item for gap in gaps}) == 4


@pytest.mark.parametrize(
    ("count", "prompts", "closed", "says"),
    [
        (1, ["x"], False, "pictures must be at least two to interpolate through, got 1; animate takes a single one."),
        (1, ["x"], True, "got 1; loop takes a single one."),
        (3, ["x", "y", "z"], False, "one for each of the 2 gaps between 3 pictures, got 3."),
        (3, ["x", "y"], True, "one for each of the 3 gaps between 3 pictures, got 2."),
        (3, [], False, "got 0."),
    ],
)
def test_pictures_and_prompts_that_don_t_match_are_refused(count, prompts, closed, says):
    with pytest.raises(InputError) as raised:
        plan_gaps(count, prompts, closed=closed)
    assert str(raised.value).endswith(says)


def test_every_key_picture_stands_in_the_joined_clip_once():
    gaps = [levels(0, 1, 2, 10), levels(10, 11, 12, 20), levels(20, 21, 22, 0)]
    whole = join_gaps(gaps[:2], closed=False)
    assert whole[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12, 20]
    assert [whole[frame, 0, 0, 0] for frame in key_frames(3, 4)] == [0, 10, 20]
    assert join_gaps(gaps, closed=True)[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_colours_that_drifted_between_key_pictures_are_drawn_to_them():
    true = np.arange(100, 180, 5)  # light that grows evenly is no drift
    drifted = true + np.concatenate([[0], np.linspace(9, -7, len(true) - 2).round().astype(int), [0]])
    matched = match_colours(levels(*drifted))[:, 0, 0, 0].astype(int)
    assert matched[0] == true[0]
    assert matched[-1] == true[-1]
    assert np.abs(matched - true).max() <= 2
    assert np.abs(drifted - true).max() == 9
    steps = np.diff(matched)
    assert np.abs(np.diff(steps)).max() <= 2


def test_colours_that_go_straight_stay_and_none_leaves_its_range():
    straight = levels(*range(20, 140, 10))
    assert np.array_equal(match_colours(straight), straight)
    assert match_colours(levels(255, 250, 250, 250, 250, 255)).max() == 255
    assert match_colours(levels(0, 9, 9, 0)).min() == 0
    short = levels(9, 200, 9)
    assert np.array_equal(match_colours(short), short)


@pytest.mark.parametrize("closed", [False, True])
def test_a_clip_goes_through_what_the_autoencoder_keeps_of_its_pictures(animator, pictures, closed):
    clip = animator.interpolate_through(pictures, "a walk", closed=closed, options=QUICK)
    assert len(clip.frames) == (3 * 4 if closed else 2 * 4 + 1)
    for frame, picture in zip((0, 4, 8), pictures, strict=True):
        assert np.array_equal(clip.frames[frame], reconstruct(animator.pipeline, frame_picture(picture, (64, 64))))
    assert clip.metadata["keys"] == {"prompts": ["a walk"], "closed": closed, "frames": [0, 4, 8]}
    assert len(clip.metadata["pictures"]) == 3
    assert clip.metadata["options"]["pin_first_frame"] is clip.metadata["options"]["deterministic"] is True


def test_each_gap_is_the_interpolation_that_its_pictures_prompt_and_stream_make_alone(animator, pictures):
    clip = animator.interpolate_through(pictures, ["out", "on"], options=QUICK, item="job", sample=2)
    pinned = {"options": QUICK, "pin_first_frame": True, "deterministic": True, "sample": 2}
    first = animator.interpolate(*pictures[:2], "out", item="job", **pinned)
    second = animator.interpolate(*pictures[1:], "on", item="job\ngap 2", **pinned)
    assert np.array_equal(clip.frames[:5], match_colours(first.frames))
    assert np.array_equal(clip.frames[4:], match_colours(second.frames))
    assert (clip.metadata["prompt"], clip.metadata["item"], clip.metadata["sample"]) == ("out; on", "job", 2)


def test_progress_counts_the_steps_of_all_gaps(animator, pictures):
    seen = []
    options = AnimateOptions(steps=2, frames=2, guidance=1.0)
    clip = ClipSpec(pictures=tuple(pictures), mode="interpolate", closed=True, options=options)
    animator.run([clip], on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(step, 6) for step in range(1, 7)]


def test_a_size_that_goes_by_the_picture_goes_by_the_first(animator, pictures):
    wide = Image.fromarray(np.zeros((50, 200, 3), np.uint8))
    clip = animator.interpolate_through([wide, *pictures[:2]], options=QUICK, size="auto", frames=2)
    assert clip.frames.shape == (3, *auto_size(animator.preset, (50, 200)), 3)
