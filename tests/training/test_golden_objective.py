"""Training loss and gradients against the published implementation."""

import pytest
import torch

from dynamicrafter.presets import get_preset
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.training.config import ObjectiveConfig
from dynamicrafter.training.objective import denoising_loss
from dynamicrafter.training.trainee import TrainingNetworks
from goldens import TINY, load
from tiny import network

LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 2e-6


def gradient_norm(module):
    norms = [p.grad.double().norm() for p in module.parameters() if p.grad is not None]
    return torch.stack(norms).norm().item()


@pytest.mark.parametrize("timestep", [20, 250, 750, 999])
@pytest.mark.parametrize("golden", TINY)
def test_loss_and_gradient_norms_equal_the_published_ones(golden, timestep):
    want, given = load(f"{golden}.training"), load(f"{golden}.conditioning")
    unet, projector = network("unet", golden), network("image_projector", golden)
    scheduler = DynamiCrafterScheduler.from_preset(get_preset(golden.removeprefix("tiny")))
    latents = want["z0"]
    for module in (unet, projector):
        module.requires_grad_(True)
    try:
        loss = denoising_loss(
            unet,
            scheduler,
            latents,
            noise=want[f"noise.t{timestep}"],
            timesteps=torch.tensor([timestep]),
            image_latents=latents[:, :, 2:3].expand_as(latents),
            text_context=given["text_embedding"],
            image_context=projector(given["image_tokens"]),
        )
        assert loss.shape == (1,)
        loss.mean().backward()
        assert loss.item() == pytest.approx(want[f"loss.t{timestep}"].item(), rel=LOSS_TOLERANCE)
        for name, module in (("unet", unet), ("resampler", projector)):
            expected = want[f"grad_norm.{name}.t{timestep}"].item()
            assert gradient_norm(module) == pytest.approx(expected, rel=GRADIENT_TOLERANCE), name
    finally:
        for module in (unet, projector):
            module.zero_grad(set_to_none=True)
            module.requires_grad_(False)


class _Answer(torch.nn.Module):
    """A network that answers what it was given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, *_):
        return self.answer


def test_frames_and_their_means_weigh_as_asked():
    scheduler = DynamiCrafterScheduler.from_preset(get_preset("bundled"))
    latents, error = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    shared = {
        "noise": torch.randn_like(latents),
        "timesteps": torch.tensor([999, 20]),
        "image_latents": latents,
        "text_context": torch.zeros(2, 1, 1),
        "image_context": torch.zeros(2, 3, 1, 1),
    }
    unet = _Answer(latents + error)  # of a scheduler that predicts x₀
    weights = torch.tensor([[4.0, 1.0, 1.0], [4.0, 1.0, 4.0]])
    found = denoising_loss(unet, scheduler, latents, frame_weights=weights, frame_mean_weight=10.0, **shared)
    for row in range(2):
        frames = [
            sum(error[row, c, f].square().mean() + 10 * error[row, c, f].mean() ** 2 for c in range(4)) / 4
            for f in range(3)
        ]
        want = sum(w * frame for w, frame in zip(weights[row], frames, strict=True)) / weights[row].sum()
        assert found[row].item() == pytest.approx(want.item(), rel=1e-5)
    alike = denoising_loss(unet, scheduler, latents, frame_weights=torch.full((2, 3), 7.0), **shared)
    assert torch.allclose(alike, denoising_loss(unet, scheduler, latents, **shared), rtol=1e-6)


class _NoTokens(torch.nn.Module):
    def forward(self, image, num_frames):
        return torch.zeros(len(image), num_frames, 1, 1)


def test_training_weighs_frames_and_means_as_its_settings_say():
    scheduler = DynamiCrafterScheduler.from_preset(get_preset("bundled"))
    latents, answer = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    shared = {"noise": torch.randn_like(latents), "timesteps": torch.tensor([999, 20]), "image_latents": latents}
    given = torch.tensor([[True, False, False], [True, False, True]])
    trainee = TrainingNetworks(
        _Answer(answer), _NoTokens(), scheduler, objective=ObjectiveConfig(given_frames=4.0, frame_means=2.0)
    )
    text, image = torch.zeros(2, 1, 1), torch.zeros(2, 1, 1)
    found = trainee(latents=latents, text=text, image=image, motion=torch.ones(2), given=given, **shared)
    want = denoising_loss(
        _Answer(answer),
        scheduler,
        latents,
        text_context=text,
        image_context=torch.zeros(2, 3, 1, 1),
        frame_weights=torch.where(given, 4.0, 1.0),
        frame_mean_weight=2.0,
        **shared,
    )
    assert torch.equal(found, want)
