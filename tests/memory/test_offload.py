"""What a memory plan does to a pipeline: networks come and go, and every exact measure leaves every bit."""

import copy
import gc
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn.utils import parametrize

from dynamicrafter import DynamiCrafterPipeline, generator_for
from dynamicrafter.memory.blocks import blocks_bytes
from dynamicrafter.memory.footprint import weight_bytes
from dynamicrafter.memory.int8 import (
    is_quantized,
    quantize,
    quantized_bytes,
    restore,
    widest_weight_bytes,
)
from dynamicrafter.memory.offload import is_unloaded
from dynamicrafter.memory.plan import CONDITIONERS
from tiny import network

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
    hooked = [name for name, module in pipe.unet.named_modules() if hasattr(module, "_diffusers_hook")]
    assert {"down.0.units.0", "up.0.units.0", "up.1.units.1", "down.0.resize"} <= set(hooked)
    assert torch.equal(made(pipe), want)
    pipe.apply_plan(None, CPU)
    assert not any(module._diffusers_hook.hooks for module in pipe.unet.modules() if hasattr(module, "_diffusers_hook"))
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


def test_without_an_origin_nothing_is_forgotten(pipe):
    plain = quiet(DynamiCrafterPipeline(**pipe.components, preset=pipe.config["preset"]))
    assert plain.offloader.fixed(plain.networks, CPU) == set(plain.networks)
    assert "int8" not in plain.offloader.measures(torch.device("cuda"))
    plain.apply_plan(planned(plain, "networks"), CPU)
    made(plain)
    assert not any(map(is_unloaded, plain.networks.values()))


# 8 bits


def test_eight_bits_stay_within_half_a_step_of_every_weight():
    unet = fresh_unet()
    layer = unet.middle.spatial.feed_forward.proj_in
    exact = layer.weight.clone()
    quantize(unet)
    step = exact.abs().amax(dim=1, keepdim=True) / 127
    assert layer.parametrizations.weight.original0.dtype == torch.int8
    assert ((layer.weight - exact).abs() <= 0.5001 * step).all()
    assert not torch.equal(layer.weight, exact)


def test_a_weight_of_one_value_a_channel_and_one_of_zeros_come_back_exactly():
    layer = torch.nn.Linear(128, 64)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(64.0)[:, None].expand(64, 128))
    exact = layer.weight.clone()
    quantize(layer)
    assert torch.allclose(layer.weight, exact, rtol=1e-6)
    assert torch.equal(layer.weight[0], exact[0])


def test_eight_bits_take_what_was_reckoned_and_keep_sensitive_layers():
    unet = fresh_unet()
    reckoned, widest = quantized_bytes(unet, 4), widest_weight_bytes(unet, 4)
    quantize(unet)
    assert sum(tensor.nbytes for tensor in unet.parameters()) == reckoned
    assert quantized_bytes(unet, 4) == pytest.approx(reckoned, rel=0.05)
    assert widest == max(
        layer.weight.nbytes for layer in unet.modules() if parametrize.is_parametrized(layer, "weight")
    )
    assert not parametrize.is_parametrized(unet.conv_in)
    assert not parametrize.is_parametrized(unet.time_embedding.linear_1)


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


def test_restored_weights_are_the_exact_ones():
    unet = fresh_unet()
    quantize(unet)
    restore(unet, network("unet", "tiny512"))
    for name, tensor in network("unet", "tiny512").state_dict().items():
        assert torch.equal(unet.state_dict()[name], tensor), name


def fresh_unet():
    return copy.deepcopy(network("unet", "tiny512"))


def test_the_window_is_what_stays_and_the_two_largest_neighbours():
    unet = network("unet", "tiny512")

    def size(part):
        return weight_bytes(part, 4)

    def small(part):
        return quantized_bytes(part, 4)

    assert blocks_bytes(unet, small) > 0.25 * blocks_bytes(unet, size)
    whole, window = size(unet), blocks_bytes(unet, size)
    stays = whole - sum(size(stage) for stage in (*unet.down, *unet.up))
    assert stays < window < whole
    largest = max(size(unit) for stage in (*unet.down, *unet.up) for unit in stage.units)
    assert window - stays <= 2 * largest
