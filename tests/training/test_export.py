"""From checkpoints to models that others load: folders, published files, adapters."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dynamicrafter.errors import CheckpointError, InputError
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.pipeline.lora import WEIGHTS
from dynamicrafter.training.config import LoraConfig, OptimizerConfig
from dynamicrafter.training.export import export
from dynamicrafter.training.loop import train
from training_runs import FakeClips, small


def answer(model):
    """What a pipeline's UNet says to fixed inputs."""
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 8, 2, 8, 8, generator=generator)
    text = torch.randn(1, 77, 32, generator=generator)
    image = model.image_projector(torch.randn(1, 50, 48, generator=generator), 2)
    with torch.no_grad():
        return model.unet(sample, torch.tensor([500]), text, image)


def trained(config):
    model = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    outcome = train(config, stream=FakeClips(), pipeline=model)
    for network in (model.unet, model.image_projector):
        network.eval()
    return model, outcome.checkpoint


@pytest.mark.parametrize("target", ["folder", "published.safetensors", "published.ckpt"])
def test_an_exported_model_answers_as_the_trained_one(tmp_path, target):
    config = small(tmp_path / "run", steps=2)
    model, checkpoint = trained(config)
    written = export(config, checkpoint, tmp_path / target)
    assert written == tmp_path / target
    known = {} if written.is_dir() else {"preset": "512"}  # a file of 512 is like one of interp
    again = DynamiCrafterPipeline.from_pretrained(str(written), **known)
    assert torch.equal(answer(again), answer(model))
    assert not torch.equal(answer(again), answer(DynamiCrafterPipeline.from_pretrained("seeded:tiny")))


def test_the_average_is_exported_where_there_is_one(tmp_path):
    config = small(tmp_path / "run", steps=2, ema=0.9)
    model, checkpoint = trained(config)
    exported = DynamiCrafterPipeline.from_pretrained(str(export(config, checkpoint)))
    average = load_file(checkpoint / "average.safetensors")
    assert torch.equal(exported.unet.conv_in.weight, average["unet.conv_in.weight"])
    assert not torch.equal(exported.unet.conv_in.weight, model.unet.conv_in.weight)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A file of trained adapters, and the model they were trained on."""
    folder = tmp_path_factory.mktemp("adapters")
    lora = LoraConfig(rank=4, alpha=8.0)
    config = small(folder / "run", steps=3, trains="lora", lora=lora, optimizer=OptimizerConfig(lr=1e-2))
    model, checkpoint = trained(config)
    return export(config, checkpoint), answer(model)


def test_adapters_load_with_diffusers_call_and_answer_as_the_trained_model(adapters):
    file, want = adapters
    plain = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    without = answer(plain)
    plain.load_lora_weights(file.parent, adapter_name="mine")
    assert file.name == WEIGHTS
    torch.testing.assert_close(answer(plain), want, rtol=1e-5, atol=1e-6)
    plain.set_adapters(["mine"], [0.0])
    torch.testing.assert_close(answer(plain), without, rtol=1e-5, atol=1e-6)
    plain.unload_lora_weights()
    assert torch.equal(answer(plain), without)


def test_adapters_are_in_diffusers_layout(adapters):
    file, want = adapters
    with safe_open(file, framework="pt") as opened:
        names = list(opened.keys())
        described = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert all(name.startswith("unet.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
    assert (described["unet.r"], described["unet.lora_alpha"]) == (4, 8.0)
    # diffusers' own reading of the same file, on the network alone.
    plain = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    plain.unet.load_lora_adapter(file.parent, weight_name=file.name, prefix="unet")
    torch.testing.assert_close(answer(plain), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: {"unet.conv_in.weight": torch.ones(2, 2)}, "where adapters of a DynamiCrafter UNet are expected"),
        (lambda t: {name.replace("spatial", "spacial"): value for name, value in t.items()}, "which this UNet lacks"),
        (lambda t: {name: value[:, :-1] for name, value in t.items()}, "made for another model"),
        (lambda t: {name: value * float("nan") for name, value in t.items()}, "values that are no numbers"),
    ],
)
def test_strange_adapters_are_refused_and_the_model_stays_as_it_was(adapters, tmp_path, spoil, said):
    file, _ = adapters
    bad = tmp_path / "bad.safetensors"
    save_file({name: value.contiguous() for name, value in spoil(load_file(file)).items()}, bad)
    plain = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    before = answer(plain)
    with pytest.raises(CheckpointError, match=said):
        plain.load_lora_weights(bad)
    assert torch.equal(answer(plain), before)


def test_adapters_are_no_published_checkpoint(tmp_path):
    config = small(tmp_path / "run", steps=1, trains="lora")
    _, checkpoint = trained(config)
    with pytest.raises(InputError, match=r"written as \.safetensors"):
        export(config, checkpoint, tmp_path / "adapters.ckpt")


def test_a_written_model_tells_no_path_of_the_machine_it_was_trained_on(tmp_path):
    base = tmp_path / "base"
    DynamiCrafterPipeline.from_pretrained("seeded:tiny").save_pretrained(base)
    config = small(tmp_path / "run", steps=1, model=str(base))
    folder = export(config, train(config, stream=FakeClips()).checkpoint)
    for file in folder.rglob("*.json"):
        assert str(tmp_path) not in file.read_text(), file
