"""Products and attention as a processor's library does them best, against the plain formulas."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dynamicrafter.kernels import attention, products
from dynamicrafter.kernels.attention import attend
from dynamicrafter.kernels.products import Linear, fuses, linear
from dynamicrafter.models.attention import GatedFeedForward, SelfAttention, SpatialTransformer, TemporalTransformer
from goldens import MODULE_TOLERANCE, relative_error
from tiny import network, unet_inputs

BFLOAT16 = 2.0**-8  # of a number's size, at most, that rounding to bfloat16 and back changes

HALF = torch.zeros((), dtype=torch.bfloat16)

needs_onednn = pytest.mark.skipif(
    not (products._has_onednn() and products.multiplies_bfloat16(HALF)), reason="asks oneDNN and a processor's bfloat16"
)


@pytest.fixture
def plain(monkeypatch):
    """Turn everything that is fused off."""

    def turn_off():
        monkeypatch.setattr(products, "_has_onednn", lambda: False)
        monkeypatch.setattr(attention, "multiplies_bfloat16", lambda _: False)

    return turn_off


@needs_onednn
@torch.no_grad()
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (1, 4, 6, 24)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, MODULE_TOLERANCE), (torch.bfloat16, BFLOAT16)])
def test_a_fused_product_is_the_product_and_what_follows(dtype, tolerance, shape, bias, gelu):
    layer, tokens = nn.Linear(24, 40, bias=bias).to(dtype), torch.randn(shape, dtype=dtype)
    ours = linear(tokens, layer.weight, layer.bias, gelu=gelu)
    assert fuses(tokens, layer.weight)
    want = layer.double()(tokens.double())
    assert ours.dtype is dtype
    assert ours.shape == want.shape
    assert relative_error(ours, F.gelu(want) if gelu else want) < tolerance


@torch.no_grad()
def test_a_product_takes_tokens_in_any_order_of_memory():
    layer, tokens = Linear(6, 10), torch.randn(6, 5, 4).permute(2, 1, 0)
    assert relative_error(layer(tokens), layer(tokens.contiguous())) < MODULE_TOLERANCE


def test_gradients_go_through_a_layer_as_through_pytorchs():
    layer, tokens = Linear(6, 10), torch.randn(3, 6)
    theirs = nn.Linear(6, 10)
    theirs.load_state_dict(layer.state_dict())
    layer(tokens).square().sum().backward()
    theirs(tokens).square().sum().backward()
    assert torch.equal(layer.weight.grad, theirs.weight.grad)
    assert torch.equal(layer.bias.grad, theirs.bias.grad)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-12), (torch.bfloat16, 2 * BFLOAT16)])
def test_what_stands_in_the_first_layers_place_is_called(dtype, tolerance):
    layer, tokens = GatedFeedForward(8).to(dtype), torch.randn(5, 8, dtype=dtype)
    without = layer(tokens)
    layer.proj_in = nn.Sequential(layer.proj_in)  # as an adapter would, with a product of its own
    assert relative_error(layer(tokens), without) < tolerance
    layer.proj_in.append(nn.Threshold(1e9, 0.0))
    assert torch.equal(layer(tokens), layer.proj_out(torch.zeros(5, 32, dtype=dtype)))


@needs_onednn
@torch.no_grad()
@pytest.mark.parametrize("layout", ["sequences", "frames"])
@pytest.mark.parametrize(
    ("batch", "queries", "keys"),
    [(3, 40, 40), (1, 50, 7), (25, 16, 16)],
)
@pytest.mark.parametrize("num_bytes", [1, 3000, 2**30])
def test_attention_in_parts_is_attention(monkeypatch, num_bytes, batch, queries, keys, layout):
    def draw(length):
        tokens = torch.randn(batch, length, 2, 8, dtype=torch.bfloat16)
        return tokens if layout == "sequences" else tokens.transpose(0, 1).contiguous().transpose(0, 1)

    def never(*_):
        raise AssertionError

    query, key, value = draw(queries), draw(keys), draw(keys)
    monkeypatch.setattr(attention, "dispatch_attention_fn", never)
    monkeypatch.setattr(attention, "_SEQUENCE_BYTES", num_bytes)
    monkeypatch.setattr(attention, "_WEIGHTS_BYTES", num_bytes)
    ours = attend(query, key, value)
    heads = (tensor.double().transpose(1, 2) for tensor in (query, key, value))
    want = F.scaled_dot_product_attention(*heads).transpose(1, 2)
    assert ours.stride() == query.stride()
    assert relative_error(ours, want) < 2 * BFLOAT16  # weights and what they add up to are rounded


@pytest.fixture
def kind(monkeypatch):
    """Take tensors for those of another kind of device, and note the shapes that diffusers' choice is asked about."""
    asked, dispatch = [], attention.dispatch_attention_fn

    def watch(query, key, value):
        asked.append(tuple(query.shape))
        return dispatch(query, key, value)

    def set_kind(name):
        monkeypatch.setattr(attention, "device_kind", lambda _: name)
        monkeypatch.setattr(attention, "dispatch_attention_fn", watch)
        return asked

    return set_kind


def drawn(*shape, count=3):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random) for _ in range(count)]


@torch.no_grad()
def test_cuda_gets_no_more_sequences_at_once_than_its_kernels_can_number(kind):
    tensors = drawn(73_728, 2, 1, 8)  # as many as four clips of 576x1024 have pixels
    want = attend(*tensors)
    asked = kind("cuda")
    assert torch.equal(attend(*tensors), want)
    assert [shape[0] for shape in asked] == [65_535, 73_728 - 65_535]


def test_with_gradients_cuda_gets_no_more_than_the_backward_pass_can_number(kind, monkeypatch):
    tensors = [tensor.requires_grad_() for tensor in drawn(40, 16, 5, 64)]
    asked = kind("cuda")
    attend(*tensors).square().sum().backward()
    assert asked == [(40, 16, 5, 64)]
    whole = [tensor.grad.clone() for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    asked.clear()
    monkeypatch.setattr(attention, "_MOST_ELEMENTS", 12 * 5 * 128 * 64 + 1)
    attend(*tensors).square().sum().backward()
    assert [shape[0] for shape in asked] == [12, 12, 12, 4]
    for tensor, want in zip(tensors, whole, strict=True):
        assert relative_error(tensor.grad, want) < MODULE_TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_apples_gpu_never_holds_all_scores_of_a_long_sequence(kind, monkeypatch, dtype):
    tensors = [tensor.to(dtype) for tensor in drawn(2, 300, 3, 8)]
    want = F.scaled_dot_product_attention(*(tensor.double().transpose(1, 2) for tensor in tensors)).transpose(1, 2)
    asked, scores, softmax = kind("mps"), [], torch.softmax
    monkeypatch.setattr(attention, "multiplies_bfloat16", lambda _: False)
    monkeypatch.setattr(attention, "_MPS_BYTES", 100_000)
    monkeypatch.setattr(torch, "softmax", lambda given, dim: scores.append(given) or softmax(given, dim=dim))
    ours = attend(*tensors)
    assert relative_error(ours, want) < (2 * BFLOAT16 if dtype is torch.bfloat16 else MODULE_TOLERANCE)
    assert not asked
    assert {given.dtype for given in scores} == {torch.float32}
    assert max(given.nbytes for given in scores) <= 100_000
    monkeypatch.setattr(attention, "_MPS_BYTES", 2**29)
    attend(*tensors)
    assert len(asked) == 1


@torch.no_grad()
def test_a_processor_without_bfloat16_products_is_left_to_pytorch(monkeypatch):
    layer, tokens = Linear(6, 10).bfloat16(), torch.randn(1, 5, 2, 3, dtype=torch.bfloat16)

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(attention, "_attend_in_parts", never)
    assert not fuses(tokens, layer.weight)
    assert attend(tokens, tokens, tokens).shape == tokens.shape
    assert torch.equal(layer(tokens.flatten(2)), F.linear(tokens.flatten(2), layer.weight, layer.bias))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_compiler_sees_plain_formulas_in_one_piece(dtype):
    tokens = torch.randn(2, 9, 8, dtype=dtype)
    graphs = []
    for layer in (GatedFeedForward(8).to(dtype), SelfAttention(8, num_heads=2).to(dtype)):
        compiled = torch.compile(layer, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph)
        assert relative_error(compiled(tokens), layer(tokens)) < (2 * BFLOAT16 if dtype is torch.bfloat16 else 1e-5)
    assert len(graphs) == 2


@needs_onednn
@torch.no_grad()
@pytest.mark.parametrize("preset", ["tiny256", "tiny512"])
def test_in_bfloat16_a_call_is_as_near_to_float32_with_everything_on_as_with_everything_off(plain, preset):
    exact, given = network("unet", preset), unet_inputs(batch=2, frames=4)
    half = copy.deepcopy(exact).bfloat16()
    given_half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in given.items()}
    want, fused = exact(**given), half(**given_half)
    plain()
    off = half(**given_half)
    assert relative_error(fused, off) > 0  # something was turned off
    assert relative_error(fused, want) < 1.1 * relative_error(off, want)


@torch.no_grad()
def test_in_float32_a_call_is_the_same_with_everything_on_and_off(plain):
    unet, given = network("unet", "tiny512"), unet_inputs(batch=2, frames=4)
    fused = unet(**given)
    plain()
    assert relative_error(fused, unet(**given)) < MODULE_TOLERANCE


@torch.no_grad()
def test_every_layer_that_meets_all_tokens_is_fused():
    spatial = SpatialTransformer(8, head_dim=4, context_width=6, groups=2, learned_scale=False)
    temporal = TemporalTransformer(8, num_heads=2, head_dim=4, groups=2)
    layers = [module for each in (spatial, temporal) for module in each.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 14 + 12
    assert all(isinstance(layer, Linear) for layer in layers)
