"""The UNet's blocks on a device one by one. The meta device stands in for it, which takes copies without values."""

import copy
from functools import cache

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dynamicrafter.memory import host_copies
from dynamicrafter.memory.blocks import BlockOffload, Copier, blocks_bytes, blocks_of
from dynamicrafter.memory.footprint import weight_bytes
from dynamicrafter.memory.int8 import quantized_bytes
from dynamicrafter.models.deep_features import DeepFeatures
from tiny import network

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts bytes that go to the device and come back from it."""

    def __init__(self):
        super().__init__()
        self.there = self.back = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        source = args[0] if args else None
        if isinstance(source, torch.Tensor) and isinstance(result, torch.Tensor) and source.device != result.device:
            self.there += source.nbytes * (result.device == META)
            self.back += source.nbytes * (source.device == META)
        return result


class Ahead(Copier):
    """Copies ahead as on a stream, and keeps the account of what it was told."""

    ahead = True

    def __init__(self, device):
        super().__init__(device)
        self.told = []

    def start(self, waiting):
        self.told.append("start")
        return super().start(waiting)[0], len(self.told)

    def finish(self, ticket):
        self.told.append(f"finish {ticket}")


class Unchanged:
    """In a snapshot's place: the stand-in has no values to compare."""

    def __init__(self, tensors):
        pass

    def unchanged(self, tensors):
        return set(tensors)


@pytest.fixture(autouse=True)
def parameters_that_move(monkeypatch):
    """Let a parameter's data move to the stand-in, as PyTorch lets it move to a GPU."""
    data = torch._C.TensorBase.data

    def move(tensor, value):
        if tensor.device == value.device:
            data.__set__(tensor, value)
        else:
            wrapped = (
                torch.nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else value
            )
            torch.utils.swap_tensors(tensor, wrapped)

    monkeypatch.setattr(torch.Tensor, "data", property(data.__get__, move), raising=False)
    monkeypatch.setattr(host_copies, "TensorSnapshot", Unchanged)


@pytest.fixture
def unet():
    projected()
    return copy.deepcopy(network("unet", "tiny512"))


@cache
def projected():
    """The context of a call, on the stand-in."""
    unet = copy.deepcopy(network("unet", "tiny512")).to("meta")
    width = unet.config.cross_attention_dim
    with torch.inference_mode():
        return unet.project_context(torch.empty(1, 77, width, device=META), torch.empty(1, 2, 16, width, device=META))


def call(unet, **options):
    sample = torch.empty(1, 8, 2, 8, 8, device=META)
    with torch.inference_mode():
        return unet(sample, torch.zeros(1, dtype=torch.long, device=META), context=projected(), **options)


def devices(modules):
    return {tensor.device.type for module in modules for tensor in module.parameters()}


def size(module):
    return weight_bytes(module, 4)


def test_a_pass_copies_each_block_there_once_and_nothing_back(unet):
    values = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    blocks = BlockOffload(unet, META)
    with Copies() as once:
        blocks.load()
    parts = sum(map(size, blocks_of(unet)))
    assert once.there == size(unet) - parts
    for _ in range(2):
        with Copies() as copies:
            call(unet)
        assert (copies.there, copies.back) == (parts, 0)
    assert devices(blocks_of(unet)) == {"cpu"}
    assert unet.conv_in.weight.device == META
    blocks.remove()
    assert devices([unet]) == {"cpu"}
    assert all(torch.equal(tensor, values[name]) for name, tensor in unet.state_dict().items())


def test_no_more_is_there_at_once_than_the_plan_counts(unet):
    seen = []
    blocks = BlockOffload(unet, META, Ahead(META))
    blocks.load()

    def look(*_):
        seen.append(sum(tensor.nbytes for tensor in unet.parameters() if tensor.device == META))

    handles = [block.register_forward_pre_hook(look) for block in blocks_of(unet)]
    call(unet)
    assert max(seen) == blocks_bytes(unet, size)
    for handle in handles:
        handle.remove()
    blocks.remove()


def test_the_next_block_is_copied_before_the_one_before_works(unet):
    copier = Ahead(META)
    blocks = BlockOffload(unet, META, copier)
    blocks.load()
    call(unet)
    count = len(blocks_of(unet))
    assert copier.told[:5] == ["start", "finish 1", "start", "finish 3", "start"]
    assert copier.told.count("start") == count
    assert len(copier.told) == 2 * count


def test_a_call_that_leaves_out_the_depth_brings_only_what_it_runs(unet):
    class Kept(DeepFeatures):
        def recall(self, surface, num_videos, compute, embedding, context):
            if self._deep is None:
                self._deep = compute(surface, embedding, context)
            return self._deep

    blocks = BlockOffload(unet, META, Ahead(META))
    blocks.load()
    kept = Kept(tolerance=1.0)
    call(unet, memory=kept)
    with Copies() as copies:
        call(unet, memory=kept)
    assert copies.there == size(blocks_of(unet)[-1])
    assert devices(blocks_of(unet)) == {"cpu"}


def test_projecting_the_context_brings_the_units_that_do_it_and_leaves_none(unet):
    width = unet.config.cross_attention_dim
    blocks = BlockOffload(unet, META, Ahead(META))
    context = unet.project_context(torch.empty(1, 77, width, device=META), torch.empty(1, 2, 16, width, device=META))
    assert {tensor.device for layer in context for tensor in layer} == {META}
    blocks.unload()
    assert devices([unet]) == {"cpu"}


def test_a_call_that_fails_leaves_no_block_behind(unet):
    blocks = BlockOffload(unet, META)
    blocks.load()
    unet.middle.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(unet)
    blocks.unload()
    assert devices([unet]) == {"cpu"}


def test_the_plan_counts_what_stays_and_the_two_largest_neighbours():
    unet = network("unet", "tiny512")

    def small(part):
        return quantized_bytes(part, 4)

    assert blocks_bytes(unet, small) > 0.25 * blocks_bytes(unet, size)
    whole, window = size(unet), blocks_bytes(unet, size)
    stays = whole - sum(map(size, blocks_of(unet)))
    assert stays < window < whole
    largest = max(map(size, blocks_of(unet)))
    assert window - stays <= 2 * largest
