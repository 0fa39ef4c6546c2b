"""What is dropped and read again is what it was: the same network, unchanged, in its number format."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from accelerate import cpu_offload
from PIL import Image

from dynamicrafter import DynamiCrafterPipeline, generator_for
from dynamicrafter.errors import InputError
from dynamicrafter.memory import offload
from dynamicrafter.memory.changes import TensorSnapshot
from dynamicrafter.memory.int8 import is_quantized
from dynamicrafter.memory.reload import is_unloaded, source_of
from tiny import network

CPU = torch.device("cpu")
PICTURE = Image.new("RGB", (64, 64), (200, 90, 30))


def load(name="seeded:tiny", **options):
    pipeline = DynamiCrafterPipeline.from_pretrained(name, dtype=torch.float32, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def made(pipeline, **options):
    settings = {"num_inference_steps": 2, "num_frames": 3, "output_type": "pt", "generator": generator_for(3)}
    return pipeline(PICTURE, "waves", **settings | options).frames


def planned(pipeline, *measures):
    plain = pipeline.plan_memory(height=64, width=64, num_frames=3, passes=2)
    return replace(plain, measures=measures, together=True)


@pytest.fixture(scope="module")
def want():
    return made(load())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "folder"
    load().save_pretrained(path)
    return path


def shift(pipeline):
    with torch.no_grad():
        pipeline.unet.conv_out.bias += 2


def fuse(pipeline):
    """As PEFT adds adapters to a weight: past PyTorch's count of changes."""
    weight = pipeline.unet.middle.spatial.feed_forward.proj_in.weight
    weight.data += 0.1 * torch.ones(len(weight), 1) @ torch.ones(1, weight.shape[1])


def exchange_a_parameter(pipeline):
    pipeline.unet.conv_out.bias = torch.nn.Parameter(pipeline.unet.conv_out.bias.detach() + 2)


def exchange_the_network(pipeline):
    other = copy.deepcopy(network("unet", "tiny512"))
    with torch.no_grad():
        other.conv_out.bias += 2
    pipeline.unet = other


def cast(pipeline):
    pipeline.to(torch.bfloat16)


CHANGES = [shift, fuse, exchange_a_parameter, exchange_the_network, cast]


@pytest.mark.parametrize("before", [True, False], ids=["before the plan", "under the plan"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_stays_changed_under_a_plan(change, before, want):
    plain, pipe = load(), load()
    change(plain)
    if before:
        change(pipe)
    pipe.apply_plan(planned(pipe, "encoders", "networks"), CPU)
    if not before:
        pipe.onload("unet")
        change(pipe)
    changed = made(plain)
    assert not torch.equal(changed, want)
    for _ in range(2):
        pipe.apply_plan(planned(pipe, "encoders", "networks"), CPU)
        assert torch.equal(made(pipe), changed)


@pytest.mark.parametrize("change", [shift, fuse])
def test_a_changed_denoiser_is_not_made_exact_again_by_its_file(change):
    plain, pipe = load(), load()
    for each in (plain, pipe):
        change(each)
    pipe.apply_plan(planned(pipe, "int8"), CPU)
    pipe.apply_plan(None, CPU)
    assert torch.equal(made(pipe), made(plain))


def test_changes_to_weights_in_8_bits_outlive_them(want):
    pipe = load()
    pipe.apply_plan(planned(pipe, "int8"), CPU)
    assert is_quantized(pipe.unet)
    shift(pipe)
    rounded = made(pipe)
    pipe.apply_plan(None, CPU)
    assert not is_quantized(pipe.unet)
    assert torch.equal(made(pipe), rounded)


def test_a_cast_network_can_still_leave_and_comes_back_in_its_number_format():
    pipe = load()
    cast(pipe)
    exact = {name: tensor.clone() for name, tensor in pipe.text_encoder.state_dict().items()}
    pipe.apply_plan(planned(pipe, "encoders", "networks"), CPU)
    assert is_unloaded(pipe.text_encoder)
    pipe.onload("text_encoder")
    assert all(torch.equal(tensor, exact[name]) for name, tensor in pipe.text_encoder.state_dict().items())
    pipe.to(torch.float32)  # of which the file knows nothing: these are rounded
    pipe.apply_plan(planned(pipe, "encoders", "networks"), CPU)
    assert not is_unloaded(pipe.text_encoder)


def test_a_lazy_pipeline_is_cast_before_it_is_read():
    pipe, plain = load(lazy=True), load()
    for each in (pipe, plain):
        cast(each)
    assert all(map(is_unloaded, pipe.networks.values()))
    assert torch.equal(made(pipe), made(plain))
    assert pipe.unet.dtype == torch.bfloat16


def test_an_exchanged_network_may_come_back(want):
    pipe = load()
    own = pipe.unet
    pipe.apply_plan(planned(pipe, "encoders", "networks"), CPU)
    exchange_the_network(pipe)
    assert not torch.equal(made(pipe), want)
    pipe.unet = own
    assert torch.equal(made(pipe), want)


def test_adapters_that_were_fused_stay_fused(tmp_path):
    pytest.importorskip("peft")
    from peft import LoraConfig

    def fused():
        pipe = load()
        torch.manual_seed(0)
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
        pipe.unet.fuse_lora()
        pipe.unet.unload_lora()
        return pipe

    plain, pipe = fused(), fused()
    pipe.apply_plan(planned(pipe, "encoders", "networks"), CPU)
    assert torch.equal(made(pipe), made(plain))


# Lazy loading and diffusers' own calls


def test_a_lazy_folder_takes_components(folder, want):
    unet, scheduler = copy.deepcopy(network("unet", "tiny512")), load().scheduler
    with torch.no_grad():
        unet.conv_out.bias += 2
    pipe = load(folder, lazy=True, unet=unet, scheduler=scheduler)
    assert pipe.unet is unet
    assert pipe.scheduler is scheduler
    assert is_unloaded(pipe.vae)
    assert source_of(unet) is None
    plain = load(folder, unet=copy.deepcopy(unet))
    assert torch.equal(made(pipe), made(plain))


def test_a_lazy_folder_refuses_what_it_cannot_obey(folder):
    with pytest.raises(InputError, match="quantization_config takes effect while all weights are read"):
        load(folder, lazy=True, quantization_config={"load_in_8bit": True})


@pytest.mark.parametrize("lazy", [True, False])
def test_a_pipeline_whose_networks_are_away_is_saved_whole(tmp_path, lazy, want):
    pipe = load(lazy=lazy)
    if not lazy:
        pipe.apply_plan(planned(pipe, "encoders", "networks"), CPU)
    pipe.save_pretrained(tmp_path / "again")
    assert all(map(is_unloaded, pipe.networks.values()))
    assert torch.equal(made(load(tmp_path / "again")), want)
    assert torch.equal(made(pipe), want)


def test_a_denoiser_in_blocks_and_8_bits_is_saved_exactly(tmp_path, want):
    pipe = load()
    pipe.apply_plan(planned(pipe, "blocks", "int8"), CPU)
    rounded = made(pipe)
    pipe.save_pretrained(tmp_path / "again")
    assert torch.equal(made(load(tmp_path / "again")), want)
    assert torch.equal(made(pipe), rounded)  # the plan holds on


def test_what_is_moved_is_read_first(want):
    pipe = load(lazy=True)
    assert pipe.to("cpu") is pipe
    assert not any(map(is_unloaded, pipe.networks.values()))
    pipe.apply_plan(planned(pipe, "networks"), CPU)
    pipe.to(CPU)
    assert not any(map(is_unloaded, pipe.networks.values()))
    assert torch.equal(made(pipe), want)


@pytest.mark.parametrize("measures", [("networks",), ("blocks", "int8")])
def test_another_pipeline_is_made_of_components_that_are_away(measures, want):
    pipe = load()
    pipe.apply_plan(planned(pipe, *measures), CPU)
    other = DynamiCrafterPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    assert torch.equal(made(other), want)
    assert torch.equal(made(pipe), want)


def test_a_lazy_folder_need_not_hold_what_is_given(folder, tmp_path, want):
    part = tmp_path / "part"
    shutil.copytree(folder, part)
    shutil.rmtree(part / "unet")
    shutil.rmtree(part / "scheduler")
    whole = load()
    pipe = load(part, lazy=True, unet=copy.deepcopy(whole.unet), scheduler=whole.scheduler)
    assert torch.equal(made(pipe), want)


def test_a_pipeline_that_accelerate_offloads_reads_nothing_again(monkeypatch):
    # Its convolutions keep the layout that their weights were read in, which rounds otherwise.
    monkeypatch.setattr(offload, "_in_other_layouts", lambda network: [])
    want, pipe = made(load()), load()
    reads = []
    for name, each in pipe.networks.items():
        source = source_of(each)
        source.read = lambda name=name, read=source.read: reads.append(name) or read()
        cpu_offload(each, torch.device("cpu"), offload_buffers=False)
    assert torch.equal(made(pipe), want)
    assert not reads


def test_networks_without_weights_say_so():
    pipe = load()
    pipe.unet = copy.deepcopy(network("unet", "tiny512")).to("meta")
    with pytest.raises(InputError, match="the DynamiCrafterUNet must have weights, and is on the meta device"):
        made(pipe)


# Snapshots


def test_a_snapshot_sees_rows_that_change_places():
    weight = torch.arange(12.0).view(4, 3).clone()
    taken = TensorSnapshot({"weight": weight})
    assert taken.still_holds({"weight": weight})
    weight[[0, 1]] = weight[[1, 0]]
    assert not taken.looks_like({"weight": weight})
    assert taken.unchanged({"weight": weight}) == set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7), (2, 3, 3, 3)])
def test_a_snapshot_sees_any_byte_that_changes(shape, dtype):
    base = torch.zeros(67, dtype=dtype)[1:]  # beginning between two words
    tensor = base[: max(1, torch.Size(shape).numel())].view(shape)
    both = {"a": tensor, "b": torch.ones(3)}
    taken = TensorSnapshot(both)
    before = tensor._version
    tensor.data.view(-1)[-1:] += 1
    assert tensor._version == before
    assert taken.looks_like(both)
    assert taken.unchanged(both) == {"b"}
