"""Previews show the clip as it forms, cost little, and change nothing."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from dynamicrafter import AnimateOptions, Animator
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.ui.previews import FRAME_HEIGHT, LEAST_PAUSE, MOST_SHARE, Previewer
from tiny import pipeline

OPTIONS = AnimateOptions(steps=3, frames=5)


@pytest.fixture(scope="module")
def animator():
    return Animator(pipeline("tiny512"), model="seeded:tiny")


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))


class Clock:
    """Every look at it takes a second."""

    def __init__(self, tick=1.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def opened(address):
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_clip_is_the_same_with_and_without_previews(animator, picture):
    spec = ClipSpec(pictures=(picture,), options=OPTIONS)
    [plain] = animator.run([spec])
    shown = []
    [watched] = animator.run([spec], on_denoised=Previewer(animator.pipeline, shown.append, clock=Clock(5.0)))
    assert shown
    np.testing.assert_array_equal(watched.frames, plain.frames)


def test_a_strip_shows_four_frames_of_what_the_step_took_for_the_clean_clip(animator, picture):
    shown, latents = [], []
    preview = Previewer(animator.pipeline, shown.append, clock=Clock(5.0))
    animator.run(
        [ClipSpec(pictures=(picture,), options=OPTIONS)], on_denoised=lambda each: (latents.append(each), preview(each))
    )
    strip = opened(shown[0])
    assert strip.size == (4 * FRAME_HEIGHT + 3 * 4, FRAME_HEIGHT)
    frame = animator.pipeline.decode_latents(latents[0][:, :, :1])[0, :, 0]
    wanted = Image.fromarray(((frame.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    wanted = np.asarray(wanted.resize((FRAME_HEIGHT,) * 2, Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(np.asarray(strip, dtype=float)[:, :FRAME_HEIGHT] - wanted).mean() < 12  # JPEG


def test_large_latents_are_made_small_before_they_are_decoded(animator):
    seen = []
    original = animator.pipeline.decode_latents
    animator.pipeline.decode_latents = lambda latents: seen.append(latents.shape) or original(latents)
    try:
        Previewer(animator.pipeline, lambda _: None, clock=Clock(5.0))(torch.zeros(1, 4, 16, 72, 128))
    finally:
        del animator.pipeline.decode_latents
    assert seen == [(1, 4, 4, 18, 32)]


def test_previews_take_no_more_than_their_share_of_the_time(animator):
    shown = []
    preview = Previewer(animator.pipeline, shown.append, clock=Clock(1.0))  # each strip seems to take one second
    latents = torch.zeros(1, 4, 3, 8, 8)
    for _ in range(int(1 / MOST_SHARE) - 1):
        preview(latents)
    assert len(shown) == 1
    for _ in range(3):
        preview(latents)
    assert len(shown) == 2
    assert LEAST_PAUSE < 1


def test_networks_that_come_and_go_are_not_moved_for_a_preview(animator):
    shown = []
    animator.pipeline._all_hooks = [object()]
    try:
        Previewer(animator.pipeline, shown.append, clock=Clock(5.0))(torch.zeros(1, 4, 3, 8, 8))
    finally:
        animator.pipeline._all_hooks = []
    assert shown == []
