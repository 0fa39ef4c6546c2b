"""Weights that are not what or where they seem: offloaded, quantised, cast by layer, under autocast."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.group_offloading import ModuleGroup
from torch import nn
from torch.utils._python_dispatch import return_and_correct_aliasing

from dynamicrafter.kernels.products import Linear, fuses
from goldens import relative_error
from tiny import network, unet_inputs


def half_unet(golden="tiny512"):
    return copy.deepcopy(network("unet", golden)).to(torch.bfloat16)


def half_inputs(**options):
    given = unet_inputs(batch=2, frames=4, **options)
    return {name: value.bfloat16() if value.is_floating_point() else value for name, value in given.items()}


class Brought(ModelHook):
    """Weights that are NaN but while their module is called."""

    def initialize_hook(self, module):
        self.kept = {name: tensor.data.clone() for name, tensor in self._tensors(module)}
        return self._take_away(module)

    def pre_forward(self, module, *args, **kwargs):
        for name, tensor in self._tensors(module):
            tensor.data = self.kept[name].clone()
        return args, kwargs

    def post_forward(self, module, output):
        self._take_away(module)
        return output

    def _take_away(self, module):
        for _, tensor in self._tensors(module):
            tensor.data = torch.full_like(tensor.data, torch.nan)
        return module

    def _tensors(self, module):
        return list(module.named_parameters(recurse=False))


@torch.no_grad()
def test_a_unet_whose_layers_have_their_weights_only_while_they_are_called_gives_the_same_bits():
    unet, given = half_unet(), half_inputs()
    want = unet(**given)
    for module in unet.modules():
        if next(module.parameters(recurse=False), None) is not None:
            HookRegistry.check_if_exists_or_initialize(module).register_hook(Brought(), "brought")
    assert unet.conv_out.weight.isnan().all()
    assert torch.equal(unet(**given), want)


@torch.no_grad()
def test_a_bfloat16_unet_under_accelerates_offloading_gives_the_same_bits():
    unet, given = half_unet(), half_inputs()
    want = unet(**given)
    assert torch.equal(cpu_offload(unet, torch.device("cpu"))(**given), want)


@pytest.fixture
def away(monkeypatch):
    """diffusers' groups of weights are NaN but while they are on the device, which is the processor here."""
    kept = {}

    def tensors(group):
        modules = (tensor for module in group.modules for tensor in (*module.parameters(), *module.buffers()))
        return [*modules, *group.parameters, *group.buffers]

    def offload(group):
        for tensor in tensors(group):
            kept.setdefault(tensor, tensor.data.clone())
            tensor.data = torch.full_like(tensor.data, torch.nan)

    def onload(group):
        for tensor in tensors(group):
            tensor.data = kept[tensor].clone()

    monkeypatch.setattr(ModuleGroup, "offload_", offload)
    monkeypatch.setattr(ModuleGroup, "onload_", onload)


@torch.no_grad()
@pytest.mark.parametrize(
    "level", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
def test_group_offloading_brings_every_weight_before_it_is_read(away, level):
    unet, given = half_unet(), half_inputs()
    want = unet(**given)
    text, image = given.pop("text_context"), given.pop("image_context")
    unet.enable_group_offload(onload_device=torch.device("cpu"), **level)
    assert all(parameter.isnan().all() for parameter in unet.parameters())
    context = unet.project_context(text, image)
    assert torch.equal(unet(**given, context=context), want)
    assert all(parameter.isnan().all() for parameter in unet.parameters())


@torch.no_grad()
def test_under_autocast_a_float32_unet_works_in_bfloat16():
    unet, given = network("unet", "tiny512"), unet_inputs(batch=2, frames=4)
    with torch.autocast("cpu", torch.bfloat16):
        layer = unet.down[0].units[0].spatial.proj_in
        tokens = torch.randn(2, 3, layer.in_features)
        assert layer(tokens).dtype is torch.bfloat16
        assert not fuses(tokens, layer.weight)
        made = unet(**given)
    want = unet(**given)
    assert 0 < relative_error(made.float(), want) < 1.1 * relative_error(half_unet()(**half_inputs()).float(), want)


@torch.no_grad()
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_weights_kept_in_float8_are_cast_when_their_layer_is_called(compute):
    unet, given = copy.deepcopy(network("unet", "tiny512")).to(compute), unet_inputs(batch=2, frames=4)
    given = {name: value.to(compute) if value.is_floating_point() else value for name, value in given.items()}
    want = unet(**given)
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)
    layer = unet.down[0].units[0].spatial.feed_forward.proj_in
    assert layer.weight.dtype is torch.float8_e4m3fn
    assert relative_error(unet(**given).float(), want.float()) < 0.2  # three bits of a number are left


class Scaled(torch.Tensor):
    """Numbers that stand for twice as much, as a quantised weight stands for others."""

    @staticmethod
    def __new__(cls, codes):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=codes.dtype, device=codes.device)

    def __init__(self, codes):
        self.codes = codes

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return return_and_correct_aliasing(func, args, kwargs, Scaled(args[0].codes))
        plain = [2 * each.codes if isinstance(each, Scaled) else each for each in args]
        return func(*plain, **(kwargs or {}))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_stands_for_other_numbers_is_asked_for_them(dtype):
    layer, tokens = Linear(6, 10).to(dtype), torch.randn(3, 6, dtype=dtype)
    want = nn.functional.linear(tokens, 2 * layer.weight, layer.bias)
    layer.weight = nn.Parameter(Scaled(layer.weight.data), requires_grad=False)
    assert not fuses(tokens, layer.weight)
    assert relative_error(layer(tokens).float(), want.float()) < 1e-6
