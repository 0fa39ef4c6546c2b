"""Clips longer than a window: their noise, their image context, and what the pipeline hands to the network."""

import pytest
import torch
from PIL import Image

from dynamicrafter import generator_for
from dynamicrafter.models.windows import TimeWindows
from dynamicrafter.pipeline.inputs import as_pixels
from dynamicrafter.pipeline.long_clips import ShuffledNoise, plan_windows, spread_context
from tiny import pipeline

WINDOWS = TimeWindows(16, 4)
LONG = {"num_frames": 23, "num_inference_steps": 2, "output_type": "latent", "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def picture():
    return Image.linear_gradient("L").convert("RGB").resize((80, 70))


@pytest.fixture
def pipe():
    return pipeline("tiny512")


@pytest.mark.parametrize(("frames", "size", "stride"), [(17, 16, 4), (128, 16, 4), (23, 16, 4), (30, 8, 3), (40, 8, 8)])
def test_every_window_holds_the_noise_of_the_first_one_in_another_order(frames, size, stride):
    windows = TimeWindows(size, stride)
    [sources] = ShuffledNoise.draw_order(1, frames, windows, generator_for(1)).sources
    assert sources[:size].tolist() == list(range(size))
    for window in windows.over(frames):
        assert sorted(sources[window.start : window.stop].tolist()) == list(range(size))
    for gained in range(size, frames, stride):
        lost = sources[gained - size : gained - size + stride]
        assert set(sources[gained : gained + stride].tolist()) <= set(lost.tolist())


def test_the_order_is_shuffled_by_each_videos_own_generator():
    def order(*seeds):
        return ShuffledNoise.draw_order(len(seeds), 64, WINDOWS, [generator_for(seed) for seed in seeds]).sources

    both = order(1, 2)
    assert torch.equal(both[0], order(1)[0])
    assert torch.equal(both[1], order(2)[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both[0], torch.arange(64) % 16)


def test_noise_is_drawn_for_one_window_and_comes_again():
    shuffled = ShuffledNoise.draw_order(2, 40, WINDOWS, [generator_for(seed) for seed in (1, 2)])
    noise = shuffled.draw((2, 3, 40, 5, 4), [generator_for(seed) for seed in (7, 8)])
    for row, seed in enumerate((7, 8)):
        first = torch.randn(3, 16, 5, 4, generator=generator_for(seed))
        assert torch.equal(noise[row, :, :16], first)
        for frame in range(40):
            assert torch.equal(noise[row, :, frame], first[:, shuffled.sources[row, frame]])


def test_any_window_of_an_animation_sees_all_image_tokens_once_and_in_order():
    image = torch.arange(16.0).reshape(1, 16, 1, 1).expand(2, 16, 3, 5)
    spread = spread_context(image, 61, WINDOWS)
    assert spread.shape == (2, 61, 3, 5)
    for start in range(61 - 16 + 1):
        groups = spread[1, start : start + 16, 2, 4]
        assert groups.tolist() == [(start + place) % 16 for place in range(16)]


def test_between_two_pictures_image_tokens_go_evenly_from_first_to_last():
    image = torch.arange(16.0, dtype=torch.float64).reshape(1, 16, 1, 1)
    spread = spread_context(image, 61, TimeWindows(16, 4, anchors=(0, 60))).flatten()
    torch.testing.assert_close(spread, torch.arange(61, dtype=torch.float64) / 4)


def test_a_clip_that_fits_into_a_window_has_none():
    assert plan_windows(16, window=16, stride=4, max_frames=16) is None
    assert plan_windows(8, window=16, stride=4, max_frames=8) is None
    assert plan_windows(17, window=16, stride=4, max_frames=16) == WINDOWS


def test_sixteen_frames_keep_their_bits_whatever_the_stride(pipe, picture):
    def made(**options):
        return pipe(picture, "waves", generator=generator_for(3), **LONG | {"num_frames": 16} | options).frames

    want = made()
    assert torch.equal(made(window=16, window_stride=1), want)
    assert not torch.equal(made(window=8), want)


def test_noise_of_the_start_and_of_every_step_is_shuffled_alike(pipe, picture, monkeypatch):
    noises = []
    prepare, step = pipe.prepare_latents, pipe.scheduler.step

    def prepared(*args, **options):
        noises.append(prepare(*args, **options))
        return noises[-1]

    def stepped(*args, noise, **options):
        noises.append(noise)
        return step(*args, noise=noise, **options)

    monkeypatch.setattr(pipe, "prepare_latents", prepared)
    monkeypatch.setattr(pipe.scheduler, "step", stepped)
    pipe(picture, "waves", generator=generator_for(3), eta=1.0, **LONG)
    sources = ShuffledNoise.draw_order(1, 23, WINDOWS, generator_for(3)).sources[0]
    assert len(noises) == 3
    for noise in noises:
        assert torch.equal(noise, noise[:, :, sources])
        assert len(noise[0].transpose(0, 1).unique(dim=0)) == 16
    assert not torch.equal(noises[1], noises[2])


def test_without_fresh_noise_nothing_is_drawn_for_the_steps(pipe, picture):
    after = []
    for steps in (1, 3):
        generator = generator_for(3)
        pipe(picture, "waves", generator=generator, eta=0.0, **LONG | {"num_inference_steps": steps})
        after.append(generator.get_state())
    assert torch.equal(*after)


def test_a_long_clip_is_the_same_alone_and_in_a_batch(pipe, picture):
    def made(*seeds):
        generators = [generator_for(seed) for seed in seeds]
        return pipe(picture, ["waves"] * len(seeds), generator=generators, **LONG).frames

    batch = made(1, 2)
    for row, seed in enumerate((1, 2)):
        torch.testing.assert_close(batch[row], made(seed)[0], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(batch[0], batch[1], atol=0.1)


@pytest.mark.parametrize("between", [False, True])
def test_the_network_gets_windows_that_see_both_pictures_where_there_are_two(pipe, picture, monkeypatch, between):
    seen = []
    forward = pipe.unet.forward

    def watched(*args, windows, **options):
        seen.append(windows)
        return forward(*args, windows=windows, **options)

    monkeypatch.setattr(pipe.unet, "forward", watched)
    pipe(picture, "waves", last_image=picture if between else None, **LONG)
    assert set(seen) == {TimeWindows(16, 4, anchors=(0, 22) if between else ())}


def test_passes_together_and_apart_agree_on_a_long_clip(pipe, picture):
    both = [
        pipe(picture, "waves", generator=generator_for(1), guidance_batching=way, **LONG | {"guidance_scale": 7.5})
        for way in ("together", "separate")
    ]
    torch.testing.assert_close(both[0].frames, both[1].frames, atol=1e-3, rtol=1e-3)


def test_pinned_ends_hold_in_a_long_clip(pipe, picture):
    frame = picture.resize((64, 64))
    options = {"pin_first_frame": True, "deterministic_image_latents": True, "generator": generator_for(1)}
    made = pipe(frame, "waves", last_image=frame, **LONG | options).frames
    want = pipe.encode_image_latents(as_pixels(frame, height=64, width=64, fit="cover"), deterministic=True)
    assert torch.equal(made[:, :, 0], want)
    assert torch.equal(made[:, :, -1], want)
    assert not torch.allclose(made[:, :, 11], want, atol=0.1)
