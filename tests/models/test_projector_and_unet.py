"""Lengths other than 16 frames, gradients and refusals of the networks."""

import pytest
import torch

from dynamicrafter.errors import InputError
from goldens import load
from tiny import network, unet_inputs


@torch.no_grad()
def test_queries_are_resampled_along_time_from_first_to_last():
    projector = network("image_projector", "tiny512")
    by_frame = projector.queries[0].unflatten(0, (16, 16))
    assert projector._queries_for(16) is not None
    assert torch.equal(projector._queries_for(16), by_frame)
    for frames in range(2, 16):
        resampled = projector._queries_for(frames)
        assert resampled.shape == (frames, 16, 32)
        assert torch.allclose(resampled[0], by_frame[0])
        assert torch.allclose(resampled[-1], by_frame[-1], atol=1e-6)
    assert torch.allclose(projector._queries_for(6)[1], by_frame[3], atol=1e-6)  # 6 frames stand on every third of 16
    assert torch.equal(projector._queries_for(1)[0], by_frame[0])


@torch.no_grad()
def test_projector_refuses_lengths_it_was_not_taught():
    projector = network("image_projector", "tiny512")
    tokens = load("tiny512.conditioning")["image_tokens"]
    for frames in (0, 17):
        with pytest.raises(InputError, match=f"num_frames must be between 1 and 16, got {frames}"):
            projector(tokens, frames)


@torch.no_grad()
def test_every_frame_sees_its_own_image_tokens():
    want, unet = load("tiny512.unet"), network("unet", "tiny512")
    text, image = want["context"][:, :77], want["context"][:, 77:].unflatten(1, (16, 16))
    changed = image.clone()
    changed[:, 5] += 1
    spatial = unet.down[0].units[0].spatial.cross_attention
    tokens = torch.randn(16, 64, 32, generator=torch.Generator().manual_seed(0))
    before = spatial(tokens, spatial.project_context(text, image.flatten(0, 1)))
    after = spatial(tokens, spatial.project_context(text, changed.flatten(0, 1)))
    differs = (before != after).flatten(1).any(1)
    assert differs.nonzero().flatten().tolist() == [5]


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3, 16])
def test_unet_takes_any_number_of_frames_in_a_batch(frames):
    want, unet = load("tiny512.unet"), network("unet", "tiny512")
    text, image = want["context"][:, :77], want["context"][:, 77:].unflatten(1, (16, 16))[:, :frames]
    sample = want["x"][:, :, :frames]
    alone = unet(sample, want["t"], text, image, want["fs"])
    three = unet(*(tensor.repeat(3, *(1,) * (tensor.ndim - 1)) for tensor in (sample, want["t"], text, image)))
    assert three.shape == (3, 4, frames, 8, 8)
    assert torch.allclose(three[2:], alone, atol=1e-5)


def test_gradient_checkpointing_changes_no_gradient():
    want, unet = load("tiny512.unet"), network("unet", "tiny512")
    text, image = want["context"][:, :77], want["context"][:, 77:].unflatten(1, (16, 16))

    def gradients():
        unet.zero_grad(set_to_none=True)
        unet(want["x"], want["t"], text, image, want["fs"]).square().mean().backward()
        return {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}

    unet.requires_grad_(True)
    try:
        plain = gradients()
        unet.enable_gradient_checkpointing()
        checkpointed = gradients()
    finally:
        unet.disable_gradient_checkpointing()
        unet.zero_grad(set_to_none=True)
        unet.requires_grad_(False)
    assert plain.keys() == checkpointed.keys() == dict(unet.named_parameters()).keys()
    for name in plain:
        assert torch.allclose(plain[name], checkpointed[name], rtol=1e-4, atol=1e-9), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": torch.zeros(1, 8, 17, 8, 8)}, "num_frames must be between 1 and 16, got 17; try 16"),
        ({"sample": torch.zeros(1, 8, 16, 8, 9)}, "latent height and width must be multiples of 2"),
        ({"image_context": torch.zeros(1, 4, 16, 32)}, "image_context must be"),
        ({"image_context": None}, "takes text_context and image_context, or context"),
    ],
)
def test_unet_refuses_what_does_not_fit(change, message):
    want, unet = load("tiny512.unet"), network("unet", "tiny512")
    given = {
        "sample": want["x"],
        "timestep": want["t"],
        "text_context": want["context"][:, :77],
        "image_context": want["context"][:, 77:].unflatten(1, (16, 16)),
    }
    with pytest.raises(InputError, match=message):
        unet(**given | change)


@torch.no_grad()
@pytest.mark.parametrize("timestep", [601, torch.tensor(601), torch.tensor([601]), torch.tensor([601, 601])])
@pytest.mark.parametrize("motion", [24, torch.tensor(24), torch.tensor([24]), None])
def test_one_timestep_and_one_motion_number_stand_for_all_videos(timestep, motion):
    unet, given = network("unet", "tiny512"), unet_inputs(batch=2, frames=3)
    want = unet(**given | {"timestep": torch.tensor([601, 601]), "motion": torch.tensor([24, 24])})
    assert torch.equal(unet(**given | {"timestep": timestep, "motion": motion}), want)


def test_as_many_timesteps_as_there_are_neither_videos_nor_one_of_are_refused():
    unet, given = network("unet", "tiny512"), unet_inputs(batch=2, frames=3)
    with pytest.raises(InputError, match="timestep must be one number or 2, as many as videos, got 3"):
        unet(**given | {"timestep": torch.tensor([1, 2, 3])})


@torch.no_grad()
def test_the_prediction_comes_as_diffusers_users_ask_for_it():
    unet, given = network("unet", "tiny512"), unet_inputs(batch=1, frames=3)
    want = unet(**given)
    assert torch.equal(unet(**given, return_dict=True).sample, want)
    (alone,) = unet(**given, return_dict=False)
    assert torch.equal(alone, want)
