"""Frames held to pictures: exact to the end, with every scheduler, and the frames beside them in keeping."""

import pytest
import torch
from PIL import Image

from dynamicrafter.pipeline.pinning import PinnedFrames
from dynamicrafter.presets import PRESETS
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.prediction import predict, prediction_target
from tiny import pipeline

SCHEDULERS = {
    "epsilon": DynamiCrafterScheduler.from_preset(PRESETS["256"]),
    "v": DynamiCrafterScheduler.from_preset(PRESETS["1024"]),
    "sample": DynamiCrafterScheduler(prediction_type="sample", zero_terminal_snr=True, base_scale=None),
}
EVERY_PREDICTION = pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ends(num_frames=6):
    first, last = normal(1, 2, 4, 3, 3), normal(2, 2, 4, 3, 3)
    return PinnedFrames.at_ends(first, last, num_frames), first, last


@EVERY_PREDICTION
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_known_frames_are_their_picture_noised_to_every_level_and_clean_in_the_end(scheduler, eta, steps):
    pinned, first, last = ends()
    scheduler.set_timesteps(steps)
    noise = normal(3, 2, 4, 6, 3, 3)
    latents = pinned.begin(noise, scheduler)
    assert torch.equal(latents[:, :, 1:-1], noise[:, :, 1:-1])
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        level = scheduler.level(timestep)
        left = (latents[:, :, [0, -1]] - level.alpha * level.scale * torch.stack([first, last], 2)) / level.sigma
        if eta == 0:  # the noise that it began with, all the way
            torch.testing.assert_close(left, noise[:, :, [0, -1]], rtol=1e-6, atol=1e-6)
        assert 0.7 < left.std() < 1.3
        erring, fresh = normal(10 + index, *noise.shape), normal(200 + index, *noise.shape)
        answer = pinned.answer(erring, latents, timestep, scheduler)
        latents = scheduler.step(answer, timestep, latents, eta=eta, noise=fresh).prev_sample
    done = pinned.end(latents, scheduler)
    assert torch.equal(done[:, :, 0], first)
    assert torch.equal(done[:, :, -1], last)


@EVERY_PREDICTION
def test_what_the_network_gets_wrong_of_a_known_frame_is_mended_in_its_neighbours_less_with_distance(scheduler):
    scheduler.set_timesteps(10)
    timestep = int(scheduler.timesteps[4])
    level = scheduler.level(timestep)
    pinned = PinnedFrames.at_ends(normal(1, 1, 4, 3, 3), None, 12)
    latents = normal(5, 1, 4, 12, 3, 3)
    believed = normal(6, 1, 4, 12, 3, 3)  # clean latents that the network's answer stands for

    def clean_of(answer):
        return predict(answer, latents, level, prediction=scheduler.config["prediction_type"])[0] / level.scale

    noise = (latents - level.alpha * level.scale * believed) / level.sigma
    answer = prediction_target(believed, noise, level, prediction=scheduler.config["prediction_type"])
    found = clean_of(pinned.answer(answer, latents, timestep, scheduler))
    wrong = pinned.clean[:, :, 0] - believed[:, :, 0]
    for frame in range(1, 12):
        share = level.alpha**2 * max(0.0, 1 - frame / 8)
        torch.testing.assert_close(found[:, :, frame], believed[:, :, frame] + share * wrong)
    torch.testing.assert_close(found[:, :, 0], pinned.clean[:, :, 0])


@pytest.mark.parametrize("num_frames", [2, 3, 16])
def test_of_two_known_frames_neither_corrects_the_other(num_frames):
    scheduler = SCHEDULERS["v"]
    scheduler.set_timesteps(5)
    pinned, first, last = ends(num_frames)
    latents = pinned.begin(normal(5, 2, 4, num_frames, 3, 3), scheduler)
    timestep = int(scheduler.timesteps[-1])
    level = scheduler.level(timestep)
    answer = pinned.answer(normal(6, 2, 4, num_frames, 3, 3), latents, timestep, scheduler)
    found = predict(answer, latents, level, prediction="v_prediction")[0] / level.scale
    torch.testing.assert_close(found[:, :, 0], first)
    torch.testing.assert_close(found[:, :, -1], last)


def test_the_others_are_brought_from_the_last_steps_latent_scale_to_that_of_the_picture():
    scheduler = DynamiCrafterScheduler.from_preset(PRESETS["512"])
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[-1] == 19
    assert scheduler.final_scale == pytest.approx(1 - 0.3 * 19 / 399)
    pinned, *_ = ends()
    latents = normal(7, 2, 4, 6, 3, 3)
    torch.testing.assert_close(pinned.end(latents, scheduler)[:, :, 1:-1], latents[:, :, 1:-1] / (1 - 0.3 * 19 / 399))


@pytest.mark.parametrize("golden", ["tiny256", "tiny512"])
@pytest.mark.parametrize("last", [False, True])
def test_a_pipeline_holds_its_frames_to_what_the_autoencoder_keeps_of_the_pictures(golden, last):
    pipe = pipeline(golden)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    options = {"num_inference_steps": 3, "num_frames": 4, "deterministic_image_latents": True, "output_type": "latent"}
    if last:
        options["last_image"] = pixels[1]

    def run(**more):
        return pipe(pixels[0], "waves", generator=torch.Generator().manual_seed(1), **options, **more).frames

    held = run(pin_first_frame=True)
    first, ending = (pipe.encode_image_latents(each[None] * 2 - 1, deterministic=True)[0] for each in pixels)
    assert torch.equal(held[0, :, 0], first)
    assert torch.equal(held[0, :, -1], ending) == last
    free = run()
    assert torch.equal(free, run(pin_first_frame=False))  # which the golden trajectories hold to the published code
    assert not torch.equal(held[:, :, 1], free[:, :, 1])  # the others see the frame that is held


def test_a_video_is_pinned_alike_alone_and_in_a_batch():
    pipe = pipeline("tiny512")
    draw = torch.Generator().manual_seed(0)
    pictures = [Image.fromarray((torch.rand(64, 64, 3, generator=draw) * 255).byte().numpy()) for _ in range(2)]
    options = {"num_inference_steps": 2, "num_frames": 3, "pin_first_frame": True, "output_type": "latent"}

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (1, 2)]

    both = pipe(pictures, "waves", generator=generators(), **options).frames
    for index in range(2):
        alone = pipe(pictures[index], "waves", generator=[generators()[index]], **options).frames
        torch.testing.assert_close(both[index], alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "more", [{"sampler": "dpm++"}, {"sampler": "unipc"}, {"sampler": "dpm++sde"}, {"num_frames": 20, "window": 8}]
)
def test_other_samplers_and_clips_longer_than_a_window_hold_the_first_frame_too(more):
    pipe = pipeline("tiny512")
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    options = {"num_inference_steps": 3, "num_frames": 4, "guidance_scale": 1.0, "output_type": "latent"} | more
    held = pipe(pixels, "waves", deterministic_image_latents=True, pin_first_frame=True, **options).frames
    assert torch.equal(held[:, :, 0], pipe.encode_image_latents(pixels * 2 - 1, deterministic=True))
    assert held.isfinite().all()
