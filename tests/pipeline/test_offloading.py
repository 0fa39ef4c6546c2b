"""diffusers' and Accelerate's ways to keep weights off a device, with memory full of NaN standing for its absence."""

import copy

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks.group_offloading import ModuleGroup
from PIL import Image

import own_size
from dynamicrafter import generator_for
from dynamicrafter.errors import InputError
from tiny import pipeline

CPU = torch.device("cpu")
LEVELS = [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(5).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def absent(monkeypatch):
    """Groups of diffusers' hooks whose tensors hold NaN except while they are on the device."""
    kept = {}

    def tensors(group):
        for module in group.modules:
            yield from (*module.parameters(), *module.buffers())
        yield from (*group.parameters, *group.buffers)

    def leave(group):
        for tensor in tensors(group):
            if tensor.is_floating_point() and id(tensor) not in kept:
                kept[id(tensor)] = (tensor, tensor.data.clone())
                tensor.data = torch.full_like(tensor.data, float("nan"))

    def come(group):
        for tensor in tensors(group):
            if id(tensor) in kept:
                tensor.data = kept.pop(id(tensor))[1]

    monkeypatch.setattr(ModuleGroup, "_onload_from_memory", come)
    monkeypatch.setattr(ModuleGroup, "_offload_to_memory", leave)
    return kept


def fresh(kind):
    made = own_size.pipeline() if kind == "small autoencoder" else pipeline("tiny512")
    # Of its own: hooks stay on networks, and those of the other are shared by all tests.
    return made if kind == "small autoencoder" else copy.deepcopy(made)


def same(made, want):
    """Equal up to rounding, as layers with hooks take PyTorch's own products instead of fused ones."""
    np.testing.assert_allclose(made, want, rtol=0, atol=1e-4)


def run(pipe, picture):
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "num_frames": 2, "output_type": "np"}
    return pipe(picture, "waves", generator=generator_for(1), **options).frames


@pytest.mark.parametrize("kind", ["small autoencoder", "published"])
@pytest.mark.parametrize("level", LEVELS, ids=["leaf", "block"])
def test_groups_are_there_whenever_they_are_computed_with(picture, absent, kind, level):
    want = run(fresh(kind), picture)
    pipe = fresh(kind)
    pipe.enable_group_offload(onload_device=CPU, **level)
    assert absent, "nothing was offloaded"
    for _ in range(2):
        same(run(pipe, picture), want)


@pytest.mark.parametrize("kind", ["small autoencoder", "published"])
@pytest.mark.parametrize("level", LEVELS, ids=["leaf", "block"])
def test_groups_come_from_a_disk_each_component_from_its_own_folder(picture, tmp_path, kind, level, monkeypatch):
    want = run(fresh(kind), picture)
    offload = ModuleGroup._offload_to_disk

    def spoil(group):
        offload(group)
        for tensor in group.tensor_to_key:
            if tensor.is_floating_point():
                tensor.data.fill_(float("nan"))

    monkeypatch.setattr(ModuleGroup, "_offload_to_disk", spoil)
    pipe = fresh(kind)
    for tensor in pipe.unet.parameters():
        if tensor.ndim == 4:  # as a run leaves them
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    pipe.enable_group_offload(onload_device=CPU, offload_to_disk_path=str(tmp_path), **level)
    same(run(pipe, picture), want)
    assert {each.name for each in tmp_path.iterdir()} == set(pipe.networks)
    with pytest.raises(InputError, match="offload_to_disk_path must be an empty folder"):
        fresh(kind).enable_group_offload(onload_device=CPU, offload_to_disk_path=str(tmp_path), **level)


def test_a_component_that_is_left_out_stays(picture, absent):
    pipe = fresh("small autoencoder")
    pipe.enable_group_offload(onload_device=CPU, exclude_modules=["vae"], **LEVELS[0])
    assert all(parameter.isfinite().all() for parameter in pipe.vae.parameters())


@pytest.mark.parametrize("kind", ["small autoencoder", "published"])
def test_whole_networks_are_brought_by_their_hooks(picture, kind):
    want = run(fresh(kind), picture)
    pipe = fresh(kind)
    pipe.enable_model_cpu_offload(device="cpu")
    brought = []
    for name, network in pipe.networks.items():
        before = network._hf_hook.pre_forward
        network._hf_hook.pre_forward = lambda module, *args, name=name, before=before, **options: (
            brought.append(name),
            before(module, *args, **options),
        )[1]
    same(run(pipe, picture), want)
    assert set(brought) == set(pipe.networks)
    same(run(pipe, picture), want)


@pytest.mark.parametrize("kind", ["small autoencoder", "published"])
def test_a_pipeline_made_of_components_is_offloaded_layer_by_layer(picture, kind):
    want = run(fresh(kind), picture)
    pipe = fresh(kind)
    for network in pipe.networks.values():  # as diffusers does, whose own call would name a processor "cpu:0"
        cpu_offload(network, CPU, offload_buffers=len(network._parameters) > 0)
    assert next(pipe.unet.parameters()).device.type == "meta"
    for _ in range(2):
        same(run(pipe, picture), want)
