"""Weights in 8 bits: how near they come, what they take, and how they are undone."""

import copy

import pytest
import torch
from torch.nn.utils import parametrize

from dynamicrafter.memory.int8 import quantize, quantized_bytes, restore, widest_weight_bytes
from tiny import network


def fresh_unet():
    return copy.deepcopy(network("unet", "tiny512"))


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


def test_restored_weights_are_the_exact_ones():
    unet = fresh_unet()
    quantize(unet)
    restore(unet, network("unet", "tiny512"))
    for name, tensor in network("unet", "tiny512").state_dict().items():
        assert torch.equal(unet.state_dict()[name], tensor), name
