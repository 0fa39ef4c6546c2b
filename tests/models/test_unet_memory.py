"""How the UNet saves memory and leaves its numbers: tokens in parts, recomputed units; any batch, any length."""

import copy

import pytest
import torch
from torch.nn import functional as F

from dynamicrafter.kernels import parts, products
from dynamicrafter.kernels.convolution import FrameConvolution, TimeConvolution
from dynamicrafter.models.attention import GatedFeedForward
from goldens import MODULE_TOLERANCE, relative_error
from tiny import network, unet_inputs


@torch.no_grad()
@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 3), (3, 7), (2, 16)])
def test_clips_in_a_batch_do_not_see_one_another(batch, frames):
    unet, together = network("unet", "tiny256"), unet_inputs(batch=batch, frames=frames)
    joint = unet(**together)
    assert joint.shape == (batch, 4, frames, 4, 6)
    for index in range(batch):
        alone = unet(**{name: value[index : index + 1] for name, value in together.items()})
        assert relative_error(joint[index : index + 1], alone) < MODULE_TOLERANCE


@torch.no_grad()
def test_memory_format_of_the_weights_changes_no_number():
    unet, given = network("unet", "tiny512"), unet_inputs(batch=2, frames=4)
    relaid = copy.deepcopy(unet).to(memory_format=torch.channels_last)
    assert relative_error(relaid(**given), unet(**given)) < MODULE_TOLERANCE


@pytest.mark.parametrize("num_bytes", [1, 5 * 64 * 4, 2**30])
def test_feed_forward_in_parts_equals_the_whole(monkeypatch, num_bytes):
    torch.manual_seed(0)
    layer, tokens = GatedFeedForward(8), torch.randn(3, 7, 8)
    whole = layer(tokens)  # with gradients it is not split
    monkeypatch.setattr(parts, "_INNER_BYTES", num_bytes)
    with torch.no_grad():
        assert relative_error(layer(tokens), whole.detach()) < MODULE_TOLERANCE


@pytest.mark.parametrize("fused", [True, False])
def test_feed_forward_without_gradients_never_widens_more_tokens_than_allowed(monkeypatch, fused):
    layer, widest = GatedFeedForward(8), []
    layer.proj_out.register_forward_pre_hook(lambda _module, inner: widest.append(inner[0].nbytes))
    monkeypatch.setattr(parts, "_INNER_BYTES", 2048)
    monkeypatch.setattr(products, "_has_onednn", lambda: fused)
    with torch.no_grad():
        layer(torch.randn(2, 50, 8))
    assert sum(widest) == 2 * 50 * 32 * 4  # of the gated half
    assert max(widest) <= 2048 // 2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (FrameConvolution(6, 10, 3, padding=1), (3, 6, 5, 8)),
        (FrameConvolution(6, 10, 3, padding=1), (3, 6, 5, 9)),
        (TimeConvolution(640, 640, (3, 1), padding=(1, 0)), (2, 640, 3, 5)),
    ],
)
def test_convolutions_as_matrix_products_equal_convolutions(layer, shape, memory_format):
    layer, pictures = copy.deepcopy(layer).to(memory_format=memory_format), torch.randn(shape)
    with torch.no_grad():
        ours = layer(pictures.contiguous(memory_format=memory_format))
        want = F.conv2d(pictures.double(), layer.weight.double(), layer.bias.double(), padding=layer.padding)
    assert relative_error(ours, want) < MODULE_TOLERANCE


def test_recomputed_units_give_the_same_gradients():
    kept = copy.deepcopy(network("unet", "tiny256")).train()
    for module in kept.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    recomputed = copy.deepcopy(kept)
    recomputed.enable_gradient_checkpointing()
    given = unet_inputs(batch=2, frames=3)
    for unet in (kept, recomputed):
        unet(**given).square().mean().backward()
    for (name, want), ours in zip(kept.named_parameters(), recomputed.parameters(), strict=True):
        assert want.grad is not None, name
        assert want.grad.norm() > 0, name
        assert relative_error(ours.grad, want.grad) < MODULE_TOLERANCE, name
