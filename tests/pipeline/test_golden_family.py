"""Whole runs of the family's members against the published implementations."""

import pytest
import torch

from dynamicrafter.architectures import VAE_SCALING
from dynamicrafter.guidance import combine, plan_passes
from dynamicrafter.models.toon_autoencoder import ToonAutoencoder
from dynamicrafter.models.windows import TimeWindows
from dynamicrafter.pipeline.changing_prompts import Injection, injected, published_starts, text_by_frame
from dynamicrafter.pipeline.long_clips import _order
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.initial_noise import InitialNoise
from dynamicrafter.training.objective import denoising_loss
from family import PRESETS, close, golden, network, noise, preset, thinned
from goldens import TRAJECTORY_TOLERANCE
from models.test_golden_family import contexts

LONG = 24


@torch.no_grad()
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("steps", "eta"), [(5, 1.0), (4, 0.0)])
def test_a_run_of_videocrafter_follows_the_published_one(name, steps, eta):
    want, unet = golden(name), network("unet", name)
    scheduler = DynamiCrafterScheduler.from_preset(preset(name))
    scheduler.set_timesteps(steps)
    plan = plan_passes(12.0)
    passes = {"conditional": contexts(name), "unconditional": contexts(name, "uncond")}
    latents, clean = noise("a.x", 1, 4, 16, 8, 8), []
    for step, timestep in enumerate(scheduler.timesteps.tolist()):
        time, fps = torch.tensor([timestep]), torch.tensor([28])
        guided = combine({key: unet(latents, time, *pair, fps) for key, pair in passes.items()}, plan)
        fresh = noise(f"a.step{step}", 1, 4, 16, 8, 8)
        latents, x0 = scheduler.step(guided, timestep, latents, eta=eta, noise=fresh, return_dict=False)
        clean.append(x0 / scheduler._levels(timestep)[1].scale)
    assert close(torch.stack(clean), want[f"run{steps}.pred_x0"], TRAJECTORY_TOLERANCE)
    assert close(latents, want[f"run{steps}.latents"], TRAJECTORY_TOLERANCE)
    assert scheduler.final_scale == 1


@torch.no_grad()
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("timestep", [20, 250, 750, 999])
def test_the_training_loss_of_videocrafter_is_the_published_one(name, timestep):
    text, image = contexts(name)
    loss = denoising_loss(
        network("unet", name),
        DynamiCrafterScheduler.from_preset(preset(name)),
        0.8 * noise("a.z0", 1, 4, 16, 8, 8),
        noise=noise("a.eps", 1, 4, 16, 8, 8),
        timesteps=torch.tensor([timestep]),
        image_latents=None,
        text_context=text,
        image_context=image,
        motion=torch.tensor([28]),
    )
    assert loss.item() == pytest.approx(golden(name)[f"train.loss_t{timestep}"].item(), rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("start", [940, 1000])
def test_a_run_that_starts_later_follows_the_published_one(start):
    unet, made_for = network("unet", "512"), preset("512")
    scheduler = DynamiCrafterScheduler.from_preset(made_for)
    scheduler.set_timesteps(4, start_step=start)
    first = scheduler.level(int(scheduler.timesteps[0]))
    expected = InitialNoise(0.3 * noise("b.expectation", 1, 4, 16, 8, 8), 0.7)
    latents = expected.start(noise("b.eps", 1, 4, 16, 8, 8), first)
    picture = noise("b.image_latents", 1, 4, 1, 8, 8).expand(-1, -1, 16, -1, -1)
    passes = {}
    for name, which in (("conditional", "context"), ("unconditional", "uncond")):
        tokens = noise(f"b.{which}", 1, 333, 32)
        passes[name] = unet.project_context(tokens[:, :77], tokens[:, 77:].unflatten(1, (16, 16)))
    plan = plan_passes(7.5, rescale=0.7)
    for step, timestep in enumerate(scheduler.timesteps.tolist()):
        sample, time = torch.cat([latents, picture], dim=1), torch.tensor([timestep])
        answers = {
            name: unet(sample, time, motion=torch.tensor([24]), context=context) for name, context in passes.items()
        }
        guided = combine(answers, plan)
        fresh = noise(f"b.step{step}", 1, 4, 16, 8, 8)
        latents = scheduler.step(guided, timestep, latents, eta=1.0, noise=fresh).prev_sample
    assert close(latents, golden("cil")[f"run.M{start}.latents"], TRAJECTORY_TOLERANCE)


class PublishedWindows(TimeWindows):
    """Windows as LongerCrafter lays them: frames after the last one that fits are in none."""

    def over(self, num_frames):
        fitting = 1 + (num_frames - self.size) // self.stride
        inside = super().over(self.size + (fitting - 1) * self.stride)
        return tuple(inside)


PUBLISHED = PublishedWindows(16, 4, edge=1.0)


def long_call(name, text, frames=LONG, windows=PUBLISHED):
    unet = network("unet", name)
    sample = noise("d.long", 1, 4, LONG, 8, 8)[:, :, :frames]
    return unet(sample, torch.tensor([601]), text, motion=torch.tensor([8]), windows=windows)


@torch.no_grad()
def test_windows_weigh_frames_as_published():
    want, text = golden("longercrafter"), noise("d.prompts", 2, 77, 32)[:1]
    assert close(long_call("vc2_t2v_512", text), want["windows.out"])
    assert close(long_call("vc1_t2v_1024", text), want["windows.out_relative"])
    ours = TimeWindows(16, 4, edge=1.0)
    assert torch.equal(long_call("vc2_t2v_512", text, windows=ours), long_call("vc2_t2v_512", text))


@torch.no_grad()
def test_where_published_windows_leave_frames_out_ours_have_one_more():
    want, text = golden("longercrafter"), noise("d.prompts", 2, 77, 32)[:1]
    published = long_call("vc2_t2v_512", text, frames=22)
    assert close(published, want["windows.out_22frames"])
    assert [(window.start, window.stop) for window in TimeWindows(16, 4, edge=1.0).over(22)][-1] == (6, 22)


def test_noise_comes_again_in_the_published_way():
    want = golden("longercrafter")
    permutations = [sources - (start - 16) for start, sources in zip((16, 20, 24), want["noise.order"], strict=True)]
    order = _order(28, TimeWindows(16, 4), lambda number: permutations.pop(0)[:number])
    shuffled = noise("d.noise", 1, 1, 4, 28, 4, 4)[0][:, :, order]
    assert torch.equal(thinned(shuffled, want["noise.shuffled"]), want["noise.shuffled"])


def text_contexts():
    prompts, empty = noise("d.prompts", 2, 77, 32), noise("d.empty", 1, 77, 32)
    unet = network("unet", "vc2_t2v_512")
    by_frame = text_by_frame(prompts, published_starts(LONG), LONG)
    plain, last = unet.project_context(by_frame), unet.project_context(prompts[1:])
    return by_frame, plain, injected(unet, plain, last), unet.project_context(empty)


@torch.no_grad()
def test_two_prompts_take_turns_as_published():
    want, unet = golden("longercrafter"), network("unet", "vc2_t2v_512")
    by_frame, plain, injecting, empty = text_contexts()
    assert close(by_frame[:, ::16], want["two_prompts.context_by_frame"], 1e-6)

    def answer(latents, timestep, context):
        return unet(latents, torch.tensor([timestep]), motion=torch.tensor([8]), context=context, windows=PUBLISHED)

    latents = noise("d.long", 1, 4, LONG, 8, 8)
    assert close(answer(latents, 601, injecting), want["two_prompts.unet_injected"])
    assert close(answer(latents, 601, plain), want["two_prompts.unet_not_injected"])
    scheduler = DynamiCrafterScheduler.from_preset(preset("vc2_t2v_512"))
    scheduler.set_timesteps(20)
    plan, rule = plan_passes(12.0), Injection()
    for step, timestep in enumerate(scheduler.timesteps.tolist()):
        passes = {"conditional": injecting if rule.at(step) else plain, "unconditional": empty}
        answers = {name: answer(latents, timestep, context) for name, context in passes.items()}
        latents = scheduler.step(combine(answers, plan), timestep, latents, eta=0.0).prev_sample
    assert close(latents, want["two_prompts.latents"], TRAJECTORY_TOLERANCE)


@torch.no_grad()
def test_a_run_of_tooncrafter_and_both_decodings_follow_the_published_ones():
    want, unet, vae = golden("tooncrafter.run"), network("unet", "512_interp"), network("vae", "toon")
    assert isinstance(vae, ToonAutoencoder)
    pictures = torch.cat([torch.tanh(noise(f"c.{which}", 1, 3, 64, 64)) for which in ("first", "last")])
    posterior, references = vae.encode_with_references(pictures)
    found = VAE_SCALING * (posterior.mean + posterior.std * noise("c.posterior", 2, 4, 8, 8))
    picture = torch.zeros(1, 4, 16, 8, 8)
    picture[0, :, 0], picture[0, :, 15] = found
    assert close(picture[:, :, [0, 15]], want["image_latents"])
    scheduler = DynamiCrafterScheduler.from_preset(preset("toon"))
    scheduler.set_timesteps(4)
    passes = {}
    for name, which in (("conditional", "context"), ("unconditional", "uncond")):
        tokens = noise(f"c.{which}", 1, 333, 32)
        passes[name] = unet.project_context(tokens[:, :77], tokens[:, 77:].unflatten(1, (16, 16)))
    plan = plan_passes(3.0, rescale=0.7)
    latents = noise("c.x", 1, 4, 16, 8, 8)
    for step, timestep in enumerate(scheduler.timesteps.tolist()):
        sample, time = torch.cat([latents, picture], dim=1), torch.tensor([timestep])
        answers = {
            name: unet(sample, time, motion=torch.tensor([10]), context=context) for name, context in passes.items()
        }
        fresh = noise(f"c.step{step}", 1, 4, 16, 8, 8)
        latents = scheduler.step(combine(answers, plan), timestep, latents, eta=1.0, noise=fresh).prev_sample
    assert close(latents, want["latents"], TRAJECTORY_TOLERANCE)
    frames = vae.decode_twice(latents[0].transpose(0, 1) / VAE_SCALING, references)
    assert close(frames[[0, 7, 8, 15]].transpose(0, 1)[None], want["video"], TRAJECTORY_TOLERANCE)
