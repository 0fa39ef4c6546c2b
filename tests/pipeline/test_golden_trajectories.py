"""Whole sampling runs against the published implementation: seven kinds on three small models."""

import copy
from dataclasses import dataclass

import pytest
import torch

from dynamicrafter.guidance import plan_passes
from dynamicrafter.kernels import attention, products
from goldens import GOLDEN, TINY, TRAJECTORY_TOLERANCE, load, relative_error
from tiny import pipeline

PROMPT = "a sailboat sailing in rough seas with a dramatic sunset"


@dataclass(frozen=True)
class Kind:
    steps: int
    eta: float = 1.0
    guidance: float = 7.5
    image_guidance: float | None = None
    mode: str = "animate"


KINDS = {
    "i2v": Kind(steps=5),
    "i2v_eta0": Kind(steps=5, eta=0.0),
    "i2v_nocfg": Kind(steps=4, guidance=1.0),
    "i2v_6steps": Kind(steps=6, eta=0.5),
    "multicfg": Kind(steps=4, image_guidance=3.0),
    "loop": Kind(steps=4, mode="loop"),
    "interp": Kind(steps=4, mode="interpolate"),
}
RUNS = [(golden, kind) for golden in TINY for kind in KINDS if (GOLDEN / f"{golden}.{kind}.safetensors").exists()]


def test_every_golden_trajectory_is_run():
    assert {kind for _, kind in RUNS} == set(KINDS)
    assert [len([kind for golden, kind in RUNS if golden == name]) for name in TINY] == [4, 7, 3]


def follow(pipe, kind, want, given, *, batching):
    """Image latents and final latents of a run with a golden file's noise."""
    plan = plan_passes(kind.guidance, kind.image_guidance, rescale=pipe.preset.guidance_rescale)
    pipe.scheduler.set_timesteps(kind.steps)
    noise = want["posterior_noise"]
    first = pipe.encode_image_latents(given["image"], noise=noise[:, 0])
    last = None
    if kind.mode != "animate":
        ending = given["image"] if kind.mode == "loop" else given["image_end"]
        last = pipe.encode_image_latents(ending, noise=noise[:, 1])
    image_latents = pipe.place_image_latents(first, last, 16)
    contexts = pipe.prepare_contexts(
        plan.passes,
        text=pipe.encode_prompt([PROMPT]),
        negative_text=lambda: pipe.encode_prompt([""]),
        image=pipe.encode_image(given["image"], 16),
        batching=batching,
        latent_size=(8, 8),
    )
    latents = pipe.denoise(
        want["x_T"],
        image_latents,
        contexts,
        plan,
        motion=torch.tensor([pipe.preset.motion.default]),
        eta=kind.eta,
        step_noise=want["step_noise"],
    )
    return image_latents, latents


@torch.no_grad()
@pytest.mark.parametrize("batching", ["together", "separate"])
@pytest.mark.parametrize(("golden", "name"), RUNS)
def test_trajectory_follows_the_published_one(golden, name, batching, monkeypatch):
    want, pipe = load(f"{golden}.{name}"), pipeline(golden)
    predicted = []
    step = pipe.scheduler.step

    def remember(*args, **options):
        output = step(*args, **options)
        predicted.append(output[1])
        return output

    monkeypatch.setattr(pipe.scheduler, "step", remember)
    image_latents, latents = follow(pipe, KINDS[name], want, load(f"{golden}.conditioning"), batching=batching)
    assert relative_error(image_latents, want["image_latents"]) < TRAJECTORY_TOLERANCE
    for ours, theirs in zip(predicted, want["pred_x0"], strict=True):
        assert relative_error(ours, theirs) < TRAJECTORY_TOLERANCE
    assert relative_error(latents, want["latents"]) < TRAJECTORY_TOLERANCE
    frames = [8] if KINDS[name].mode == "animate" else [0, 12]
    video = pipe.decode_latents(latents, chunk_size=5)[:, :, frames]
    assert relative_error(video, want["video"]) < TRAJECTORY_TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("golden", TINY)
def test_in_bfloat16_a_trajectory_is_as_near_with_everything_fused_as_with_nothing(golden, monkeypatch):
    """Near means what rounding leaves of random weights guided by 7.5; docs/benchmarks.md has every trajectory's."""
    want, given = load(f"{golden}.i2v"), load(f"{golden}.conditioning")

    def error():
        pipe = pipeline(golden)
        pipe.unet = copy.deepcopy(pipe.unet).bfloat16()
        _, latents = follow(pipe, KINDS["i2v"], want, given, batching="separate")
        return relative_error(latents, want["latents"])

    fused = error()
    monkeypatch.setattr(products, "_has_onednn", lambda: False)
    monkeypatch.setattr(attention, "multiplies_bfloat16", lambda _: False)
    assert fused < 0.12
    assert fused < 1.3 * error()
