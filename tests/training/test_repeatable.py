"""What lies outside a run, such as the global generator and a launcher's variables, changes nothing in it."""

from types import SimpleNamespace

import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.training.config import LoraConfig
from dynamicrafter.training.parallel import build_accelerator, forget_processes
from dynamicrafter.training.trainee import add_lora
from tiny import network


def adapters(*, seed, outside):
    torch.manual_seed(outside)
    unet = network("unet", "tiny512")
    unet = type(unet).from_config(unet.config)
    add_lora(unet, LoraConfig(rank=4), seed=seed)
    return {name: p.detach().clone() for name, p in unet.named_parameters() if "lora_" in name}


def test_adapters_follow_from_the_run_s_seed_alone():
    first, again, other = adapters(seed=1, outside=1), adapters(seed=1, outside=2), adapters(seed=2, outside=1)
    downs = [name for name in first if "lora_A" in name]
    assert downs
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in downs)
    assert all(not first[name].any() for name in first if "lora_B" in name)
    name = downs[0]
    assert first[name].abs().max() <= first[name].shape[1] ** -0.5, "as nn.Linear draws its own"


def config(**changes):
    return SimpleNamespace(**(vars(SimpleNamespace(precision="float32", accumulation=3, device="cpu", tracker=None, output=".", sharding="none")) | changes))  # fmt: skip  # noqa: E501


def test_a_launcher_s_accumulation_does_not_divide_the_gradients(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "6")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    try:
        accelerator = build_accelerator(config())
        assert accelerator.gradient_accumulation_steps == 3
        assert accelerator.mixed_precision == "no"
    finally:
        forget_processes()


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DYNAMO_BACKEND"])
def test_a_launcher_s_other_way_to_train_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(InputError, match=f"{name} must not be set, got 'true': a run trains as its own settings say"):
        build_accelerator(config())
