"""Deep features used again: what is kept, for whom, and when it is given up."""

import pytest
import torch

from dynamicrafter.models.deep_features import DeepFeatures
from tiny import network

FRAMES = 2


@pytest.fixture(scope="module")
def unet():
    return network("unet", "tiny512")


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def call(unet, samples, memory=None, timestep=500):
    width = unet.config.cross_attention_dim
    text, image = (torch.cat([normal(place, *shape)] * len(samples)) for place, shape in enumerate(
        ((1, 77, width), (1, FRAMES, 16, width))))  # fmt: skip
    with torch.no_grad():
        context = unet.project_context(text, image)
        timesteps = torch.full((len(samples),), timestep)
        return unet(torch.cat(samples), timesteps, context=context, memory=memory)


def test_a_first_call_with_a_memory_is_one_without_to_the_bit(unet):
    samples = [normal(1, 1, 8, FRAMES, 8, 8), normal(2, 1, 8, FRAMES, 8, 8)]
    assert torch.equal(call(unet, samples, DeepFeatures(tolerance=0.5)), call(unet, samples))


def test_what_changed_little_is_used_again_and_what_changed_much_is_not(unet):
    before = normal(1, 1, 8, FRAMES, 8, 8)
    near, far = before + 0.01 * normal(3, *before.shape), before + normal(4, *before.shape)
    memory = DeepFeatures(tolerance=0.1)
    call(unet, [before], memory)
    kept = call(unet, [near], memory)
    assert (memory.computed, memory.reused) == (1, 1)
    assert not torch.equal(kept, call(unet, [near]))
    assert torch.allclose(kept, call(unet, [near]), atol=0.1)
    assert torch.equal(call(unet, [far], memory), call(unet, [far]))
    assert (memory.computed, memory.reused) == (2, 1)


def test_change_is_measured_since_the_features_were_computed_and_adds_up(unet):
    before = normal(1, 1, 8, FRAMES, 8, 8)
    drift = normal(3, *before.shape)
    memory = DeepFeatures(tolerance=0.1)
    for step in range(12):
        call(unet, [before + 0.03 * step * drift], memory)
    assert 1 < memory.computed < 12


def test_each_video_of_a_batch_is_judged_by_itself(unet):
    before = [normal(seed, 1, 8, FRAMES, 8, 8) for seed in (1, 2, 3)]
    after = [before[0] + 0.01 * normal(5, *before[0].shape), normal(6, *before[0].shape), normal(7, *before[0].shape)]

    def alone(index):
        memory = DeepFeatures(tolerance=0.1)
        call(unet, [before[index]], memory)
        return call(unet, [after[index]], memory)

    memory = DeepFeatures(tolerance=0.1)
    call(unet, before, memory)
    together = call(unet, after, memory)
    assert (memory.computed, memory.reused) == (5, 1)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], alone(index), rtol=1e-4, atol=1e-5)
    again = call(unet, after, memory)  # what was replaced for some is kept for all
    assert (memory.computed, memory.reused) == (5, 4)
    torch.testing.assert_close(again[1:], call(unet, after)[1:], rtol=1e-4, atol=1e-5)
