"""What PyTorch's compiler makes of the published topology: one graph, no break, few launches."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch._inductor.graph import GraphLowering
from torch.utils._python_dispatch import TorchDispatchMode

from dynamicrafter.architectures import FULL
from dynamicrafter.checkpoints.networks import build_empty
from dynamicrafter.kernels.parts import part_bytes
from dynamicrafter.memory.counting import _FusedAttention, count_call
from dynamicrafter.models.blocks import Unit
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.presets import get_preset
from goldens import relative_error
from tiny import network, unet_inputs

# Operators that make a view or an empty tensor, and launch nothing.
VIEWS = {
    "view",
    "_unsafe_view",
    "permute",
    "transpose",
    "t",
    "expand",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "split",
}
VIEWS |= {"as_strided", "detach", "alias", "unbind", "unfold", "empty", "empty_like", "new_empty", "_reshape_alias"}


@pytest.fixture(autouse=True)
def _fresh():
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit


@pytest.fixture(scope="module")
def published():
    """The published topology, a tenth as wide: as many units, of as many different shapes."""
    torch.manual_seed(0)
    return DynamiCrafterUNet(
        block_out_channels=(32, 64, 128, 128), attention_head_dim=16, init_attention_heads=2, cross_attention_dim=32,
        norm_num_groups=8,
    ).eval()  # fmt: skip


def inputs(unet, *, rows=2, frames=2, height=16, width=32):
    draw = torch.Generator().manual_seed(1)
    width_of = unet.config["cross_attention_dim"]
    text, image = torch.randn(rows, 7, width_of, generator=draw), torch.randn(rows, frames, 4, width_of, generator=draw)
    with torch.no_grad():
        context = unet.project_context(text, image)
    return {
        "sample": torch.randn(rows, 8, frames, height, width, generator=draw),
        "timestep": torch.full((rows,), 601),
        "motion": torch.full((rows,), 24),
        "context": context,
    }


class Graphs:
    """A backend that keeps what it is given, and runs it as it is."""

    def __init__(self):
        self.made = []

    def __call__(self, graph, _):
        self.made.append(graph)
        return graph


@torch.no_grad()
def test_the_whole_unet_is_one_graph_with_the_same_answer():
    unet, given, graphs = copy.deepcopy(network("unet", "tiny512")), unet_inputs(batch=2, frames=3), Graphs()
    want = unet(**given)
    unet.compile(fullgraph=True, dynamic=False, backend=graphs)
    assert relative_error(unet(**given), want) < 1e-5
    assert relative_error(unet(**given), want) < 1e-5
    assert len(graphs.made) == 1


@torch.no_grad()
def test_unit_by_unit_each_shape_is_compiled_at_most_once(published):
    unet, graphs, shapes = copy.deepcopy(published), Graphs(), set()
    given = inputs(unet)
    units = [module for module in unet.modules() if isinstance(module, Unit)]

    def note(unit, arguments):
        shapes.add((tuple(weight.shape for weight in unit.parameters()), arguments[0].shape))

    hooks = [unit.register_forward_pre_hook(note) for unit in units]
    want = unet(**given)
    for hook in hooks:
        hook.remove()
    unet.compile_repeated_blocks(fullgraph=True, backend=graphs)
    for _ in range(2):
        assert relative_error(unet(**given), want) < 1e-5
    assert len(units) == 21
    assert 8 < len(graphs.made) <= len(shapes)


@torch.no_grad()
def test_layers_with_hooks_or_adapters_are_asked_one_by_one_in_a_compiled_call_too():
    unet, given = copy.deepcopy(network("unet", "tiny512")), unet_inputs(batch=2, frames=3)
    for module in unet.modules():
        if hasattr(module, "to_k"):
            module.to_k = nn.Sequential(module.to_k, nn.Threshold(0.1, 0.0))
            module.to_v.register_forward_hook(lambda _module, _given, output: output * 1.5)
    want = unet(**given)
    unet.compile(fullgraph=True, dynamic=False, backend=Graphs())
    assert relative_error(unet(**given), want) < 1e-5


class Launches(TorchDispatchMode):
    """Counts operators that make something."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += func.__name__.split(".")[0] not in VIEWS
        return result


@torch.no_grad()
def test_at_full_size_an_accelerator_launches_less_and_holds_no_more_than_in_small_parts():
    unet = build_empty("unet", FULL, get_preset("1024")).to(torch.bfloat16).eval()

    def meta(*shape, dtype=torch.bfloat16):
        return torch.empty(shape, device="meta", dtype=dtype)

    context = unet.project_context(meta(2, 77, 1024), meta(2, 16, 16, 1024))
    numbers = meta(2, dtype=torch.int64)

    def call():
        return unet(meta(2, 8, 16, 72, 128), numbers, motion=numbers, context=context)

    small = count_call(call).peak_bytes
    unet.set_part_bytes(part_bytes("cuda"))
    with _FusedAttention(), Launches() as launches:
        call()
    assert launches.count <= 1950
    assert count_call(call).peak_bytes <= 1.01 * small


@torch.no_grad()
@pytest.mark.full_size
@pytest.mark.xdist_group("full_size")
def test_compiled_it_launches_no_more_than_a_thousand_kernels(published, monkeypatch):
    unet, found = copy.deepcopy(published), {}
    given, codegen = inputs(unet, frames=4), GraphLowering.codegen

    class EnoughError(BaseException):
        """The kernels are written; compiling them would say no more."""

    def stop(graph):
        found["code"] = codegen(graph)[0].value
        raise EnoughError

    monkeypatch.setattr(GraphLowering, "codegen", stop)
    unet.compile(fullgraph=True, dynamic=False)
    with pytest.raises(EnoughError):
        unet(**given)
    calls = (line.strip().partition(" = ")[2] or line.strip() for line in found["code"].splitlines())
    kinds = ("extern_kernels.", "cpp_fused", "torch.ops.")
    launches = Counter(kind for call in calls for kind in kinds if call.startswith(kind) and "(" in call)
    assert launches["torch.ops."] == 82  # attention
    assert launches["cpp_fused"] > 100
    assert launches.total() <= 1000
