"""The memory table against what the small networks really allocate."""

from dataclasses import replace

import pytest
import torch

from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.training import loop
from dynamicrafter.training.config import OptimizerConfig
from dynamicrafter.training.estimate import advice, estimate, table
from dynamicrafter.training.loop import train
from dynamicrafter.training.recipes import recipes
from training_runs import FakeClips, small


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("trains", ["all", "temporal", "lora"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_can_be_counted_is_what_training_allocates(tmp_path, precision, trains, name, monkeypatch):
    config = small(tmp_path, trains=trains, precision=precision, ema=0.9, steps=1, optimizer=OptimizerConfig(name=name))
    model = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    seen, save = {}, loop._Run.save

    def look(run):
        seen.update(parameters=run.parameters, state=run.optimizer.optimizer.state, average=run.average.values)
        save(run)

    monkeypatch.setattr(loop._Run, "save", look)
    train(config, stream=FakeClips(), pipeline=model)
    found = estimate(config)

    def size(tensors):
        return sum(tensor.nbytes for tensor in tensors)

    assert found.trained == size(seen["parameters"].values())
    assert found.gradients == found.trained
    assert found.average == size(seen["average"].values())
    state = [v for row in seen["state"].values() for v in row.values() if isinstance(v, torch.Tensor) and v.ndim > 0]
    assert found.optimizer == size(state)
    under = size(model.unet.parameters()) + size(model.image_projector.parameters())
    assert found.trained + found.resting == under
    frozen = [network.parameters() for network in (model.vae, model.text_encoder, model.image_encoder)]
    assert found.frozen == size(tensor for parameters in frozen for tensor in parameters)


def saved_bytes(config):
    """What autograd really keeps of a forward pass on the CPU, each piece of memory once."""
    from dynamicrafter.training.trainee import build_trainee

    trainee = build_trainee(DynamiCrafterPipeline.from_pretrained("seeded:tiny"), config)
    own = {parameter.untyped_storage().data_ptr() for parameter in trainee.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    clip = torch.randn(config.batch_size, 4, 2, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = trainee(
            latents=clip,
            noise=clip,
            timesteps=torch.full((config.batch_size,), 5),
            image_latents=clip,
            text=torch.randn(config.batch_size, 77, 32),
            image=torch.randn(config.batch_size, 50, 48),
            motion=torch.ones(config.batch_size),
            given=torch.zeros(config.batch_size, 2, dtype=torch.bool),
        )
    assert loss.shape == (config.batch_size,)
    return sum(kept.values())


def test_activations_are_about_what_autograd_keeps(tmp_path):
    config = small(tmp_path, batch_size=2)
    found, real = estimate(config).activations, saved_bytes(config)
    # Plain attention on the CPU keeps its matrices, which the estimate's fused one doesn't; both count the rest.
    assert 0.6 * real < found < 1.4 * real


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing(tmp_path):
    config = small(tmp_path)
    one, four = (estimate(replace(config, batch_size=size)).activations for size in (1, 4))
    assert 3 * one < four < 4.2 * one
    assert estimate(replace(config, batch_size=4, gradient_checkpointing=True)).activations < 0.6 * four


def test_advice_leads_to_a_training_that_fits(tmp_path):
    config = small(tmp_path, batch_size=4, ema=0.9)
    found = estimate(config)
    assert advice(found, config, 2 * found.total) == ["It fits."]
    lines = advice(found, config, int(0.5 * found.total))
    assert lines[0].startswith("It doesn't fit")
    assert float(lines[-1].split()[-4]) * 1e9 <= 0.5 * found.total
    least = replace(config, precision="bfloat16", gradient_checkpointing=True, batch_size=1, trains="lora", ema=None)
    assert advice(estimate(least), least, 1000)[-1].startswith("and it still doesn't")
    assert "running average" in table(found, config, 24 * 10**9)


def test_a_sharded_training_divides_what_trains():
    config = replace(recipes()["finetune-512"].make(), model="seeded:tiny", sharding="fsdp2")
    alone, shared = estimate(config), estimate(config, world=4)
    assert shared.optimizer == alone.optimizer // 4
    assert shared.frozen == alone.frozen
