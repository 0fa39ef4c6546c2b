"""What a memory plan does to a pipeline: networks come and go, and every exact measure leaves every bit."""

import copy
import gc
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from dynamicrafter import DynamiCrafterPipeline, generator_for
from dynamicrafter.memory import host_copies, offload
from dynamicrafter.memory.devices import indexed
from dynamicrafter.memory.int8 import is_quantized
from dynamicrafter.memory.offload import Offloader
from dynamicrafter.memory.plan import CONDITIONERS
from dynamicrafter.memory.reload import is_unloaded

CPU = torch.device("cpu")
PICTURE = Image.new("RGB", (64, 64), (200, 90, 30))


@pytest.fixture
def pipe():
    return quiet(DynamiCrafterPipeline.from_pretrained("seeded:tiny", dtype=torch.float32))


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def made(pipeline, **options):
    settings = {"num_inference_steps": 2, "num_frames": 3, "output_type": "pt", "generator": generator_for(3)}
    return pipeline(PICTURE, "waves", **settings | options).frames


def planned(pipeline, *measures):
    """A plan with these measures, whatever they spare."""
    plain = pipeline.plan_memory(height=64, width=64, num_frames=3, passes=2)
    return replace(plain, measures=measures, together=True)


@pytest.mark.parametrize("measures", [("encoders",), ("encoders", "networks")])
def test_networks_that_come_and_go_leave_every_bit(pipe, measures):
    want = made(pipe)
    pipe.apply_plan(planned(pipe, *measures), CPU)
    assert torch.equal(made(pipe), want)
    assert torch.equal(made(pipe), want)
    pipe.apply_plan(None, CPU)
    assert torch.equal(made(pipe), want)


def test_blocks_that_come_one_by_one_leave_every_bit(pipe):
    want = made(pipe)
    pipe.apply_plan(planned(pipe, "blocks"), CPU)
    assert torch.equal(made(pipe), want)
    pipe.apply_plan(None, CPU)
    assert not any(module._forward_pre_hooks for module in pipe.unet.modules())
    assert torch.equal(made(pipe), want)


def test_encoders_are_gone_while_the_denoiser_works(pipe):
    pipe.apply_plan(planned(pipe, "encoders"), CPU)
    away = []

    def look(pipeline, *_):
        away.append({name for name, each in pipeline.networks.items() if is_unloaded(each)})

    made(pipe, callback_on_step_end=look)
    assert away == [CONDITIONERS, CONDITIONERS]


def test_each_network_is_there_only_while_it_works(pipe):
    pipe.apply_plan(planned(pipe, "networks"), CPU)
    assert all(map(is_unloaded, pipe.networks.values()))
    there = []

    def look(pipeline, *_):
        there.append({name for name, each in pipeline.networks.items() if not is_unloaded(each)})

    made(pipe, callback_on_step_end=look)
    assert there == [{"unet"}, {"unet"}]
    assert [name for name, each in pipe.networks.items() if not is_unloaded(each)] == ["vae"]


def test_a_callback_may_decode_between_steps(pipe):
    want = made(pipe)
    pipe.apply_plan(planned(pipe, "networks"), CPU)
    seen = []

    def preview(pipeline, _step, _timestep, tensors):
        seen.append(pipeline.decode_latents(tensors["latents"]))

    assert torch.equal(made(pipe, callback_on_step_end=preview), want)
    assert len(seen) == 2


def test_what_left_is_freed(pipe):
    pipe.apply_plan(planned(pipe, "encoders"), CPU)
    pipe.onload(*CONDITIONERS)
    weights = [parameter.data_ptr() for parameter in pipe.image_encoder.parameters()]
    assert all(weights)
    pipe.onload("unet")
    gc.collect()
    assert all(parameter.device.type == "meta" for parameter in pipe.image_encoder.parameters())


def test_lazy_pipelines_read_when_asked_and_give_the_same_bits(tmp_path, pipe):
    want = made(pipe)
    pipe.save_pretrained(tmp_path / "folder")
    for name in ("seeded:tiny", tmp_path / "folder"):
        lazy = quiet(DynamiCrafterPipeline.from_pretrained(name, dtype=torch.float32, lazy=True))
        assert all(map(is_unloaded, lazy.networks.values()))
        assert torch.equal(made(lazy), want)


def test_a_folder_can_be_read_again(tmp_path, pipe):
    want = made(pipe)
    pipe.save_pretrained(tmp_path / "folder")
    folder = quiet(DynamiCrafterPipeline.from_pretrained(tmp_path / "folder", dtype=torch.float32))
    folder.apply_plan(planned(folder, "networks"), CPU)
    assert torch.equal(made(folder), want)


def test_networks_from_elsewhere_are_not_dropped(pipe):
    elsewhere = {name: copy.deepcopy(network) for name, network in pipe.networks.items()}
    plain = quiet(DynamiCrafterPipeline(**pipe.components | elsewhere, preset=pipe.config["preset"]))
    assert plain.offloader.fixed(plain.networks, CPU) == set(plain.networks)
    assert "int8" not in plain.offloader.measures(plain.networks, torch.device("cuda"))
    plain.apply_plan(planned(plain, "networks"), CPU)
    made(plain)
    assert not any(map(is_unloaded, plain.networks.values()))


def test_eight_bits_change_little_and_are_undone_to_the_bit(pipe):
    want = made(pipe)
    pipe.apply_plan(planned(pipe, "int8"), CPU)
    rounded = made(pipe)
    assert is_quantized(pipe.unet)
    error = (rounded - want).square().mean().sqrt().item()
    assert 0 < error < 0.05  # of pixels in [0, 1]
    pipe.apply_plan(None, CPU)
    assert not is_quantized(pipe.unet)
    assert torch.equal(made(pipe), want)


def test_eight_bits_come_in_blocks_too(pipe):
    pipe.apply_plan(planned(pipe, "int8"), CPU)
    want = made(pipe)
    pipe.apply_plan(planned(pipe, "blocks", "int8"), CPU)
    assert torch.equal(made(pipe), want)


def test_a_step_looks_at_no_parameter_that_the_step_before_looked_at(pipe, monkeypatch):
    looked = []
    come = Offloader._come
    monkeypatch.setattr(
        Offloader, "_come", lambda self, networks, name: looked.append(name) or come(self, networks, name)
    )
    pipe.apply_plan(planned(pipe, "encoders"), CPU)
    made(pipe, num_inference_steps=5)
    assert looked.count("unet") == 1


def test_a_device_without_an_index_is_the_one_that_tensors_name():
    with FakeTensorMode():  # which knows CUDA's devices where there are none
        assert torch.empty(1, device="cuda").device != torch.device("cuda")
        assert indexed(torch.device("cuda")) == torch.empty(1, device="cuda").device
    assert indexed(torch.device("cuda:1")) == torch.device("cuda:1")
    assert indexed(CPU) == torch.empty(1).device


def test_a_plan_for_a_device_without_an_index_lets_networks_leave_it(pipe, monkeypatch):
    card = torch.device("cuda:0")
    monkeypatch.setattr(offload, "indexed", lambda device: card)
    pipe.offloader.apply_plan(pipe.networks, replace(planned(pipe, "networks"), device="cuda"), torch.device("cuda"))
    assert pipe.offloader.device == card
    assert pipe._execution_device == card


# What goes to a card and comes back


class OnCard:
    """A tensor that may be on a card, as far as `HostCopies` asks."""

    def __init__(self, values, device=CPU):
        self.values, self.device = values, device

    @property
    def data(self):
        return OnCard(self.values, self.device)

    @data.setter
    def data(self, other):
        self.values, self.device = other.values, other.device

    def to(self, device, non_blocking=False):
        return OnCard(list(self.values), device)

    def cpu(self):
        return self.to(CPU)


class ByValue:
    """A snapshot of such tensors."""

    def __init__(self, tensors):
        self.kept = {name: list(tensor.values) for name, tensor in tensors.items()}

    def unchanged(self, tensors):
        return {name for name, values in self.kept.items() if tensors[name].values == values}


def test_only_what_was_changed_on_a_card_is_copied_back(monkeypatch):
    monkeypatch.setattr(host_copies, "TensorSnapshot", ByValue)
    monkeypatch.setattr(host_copies, "is_plain", lambda tensor: True)
    tensors = {"same": OnCard([1, 2]), "other": OnCard([3, 4])}
    waiting = {name: tensor.values for name, tensor in tensors.items()}
    card, copies = torch.device("cuda:0"), host_copies.HostCopies()
    copies.onload(tensors, card)
    assert {tensor.device for tensor in tensors.values()} == {card}
    tensors["other"].values.append(5)
    copies.offload(tensors)
    assert {tensor.device for tensor in tensors.values()} == {CPU}
    assert tensors["same"].values is waiting["same"]
    assert tensors["other"].values == [3, 4, 5]
