"""Our folder under published names, and the tables that a published file has and no network reads."""

import json
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import family
from checkpoint_files import tiny_shapes
from dynamicrafter.architectures import TINY
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.keys import SCHEDULE_BUFFERS, published_shapes
from dynamicrafter.checkpoints.networks import COMPONENTS, key_table, shapes
from dynamicrafter.checkpoints.published import (
    EXTRAS_FILE,
    lacking_extras,
    open_folder,
    schedule_buffers,
    write_lightning,
    write_tensors,
)
from dynamicrafter.errors import CheckpointError
from dynamicrafter.presets import PRESETS, get_preset
from published_files import published
from tiny import network, pipeline

TABLES = [*PRESETS.values()]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder as training leaves it: networks only, each in several files."""
    folder = tmp_path_factory.mktemp("saved")
    pipeline("tiny512").save_pretrained(folder, max_shard_size="200KB")
    return folder


def seen_by_networks(golden):
    preset = get_preset(golden.removeprefix("tiny"))
    nets = {name: network(name, golden) for name in COMPONENTS}
    tables = [published_shapes(key_table(n, net, TINY, preset), shapes(net)) for n, net in nets.items()]
    return {key for table in tables for key in table}


# Folders


def test_a_folder_in_shards_holds_every_tensor_under_its_published_name(saved):
    assert len(list((saved / "unet").glob("*.safetensors"))) > 3
    with open_folder(saved) as source:
        assert (source.preset.name, source.architecture) == ("512", TINY)
        for key in seen_by_networks("tiny512"):
            assert torch.equal(source[key], published("tiny512")[key]), key
            assert source.info(key).shape == published("tiny512")[key].shape
            assert source.info(key).dtype == "float32"


def test_a_folder_without_extras_gets_schedule_tables_and_repeated_text_tables(saved):
    with open_folder(saved) as source:
        made = set(source.keys()) - seen_by_networks("tiny512")
        assert made == SCHEDULE_BUFFERS | {
            f"embedder.model.{name}"
            for name in ("positional_embedding", "token_embedding.weight", "ln_final.weight", "ln_final.bias")
        }
        for key in SCHEDULE_BUFFERS:
            assert torch.equal(source[key], published("tiny512")[key])
        assert torch.equal(
            source["embedder.model.token_embedding.weight"], source["cond_stage_model.model.token_embedding.weight"]
        )
        assert source.info("scale_arr").shape == (1400,)


def test_what_cannot_be_made_again_is_known(saved):
    with open_folder(saved) as source:
        lacking = set(lacking_extras(source, TINY))
        assert lacking == set(tiny_shapes("tiny512")) - set(source.keys())
    assert "embedder.model.visual.proj" in lacking
    assert sum(key.startswith("cond_stage_model.model.transformer.resblocks.2.") for key in lacking) == 12


def test_extras_stand_for_themselves_whatever_could_be_made(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    extras = {"betas": torch.ones(3), "embedder.model.ln_final.bias": torch.ones(5), "more": torch.ones(7)}
    save_file(extras, folder / EXTRAS_FILE)
    with open_folder(folder) as source:
        assert all(torch.equal(source[key], tensor) for key, tensor in extras.items())
        assert sorted(source.keys()) == sorted(set(source.keys()))


def test_another_pipelines_folder_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(CheckpointError, match="holds a StableDiffusionPipeline, not a DynamiCrafterPipeline"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "model_index.json can't be read"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "model_index.json holds no JSON object"),
        (lambda folder: shutil.rmtree(folder / "vae"), "vae holds no .safetensors file"),
        (
            lambda folder: next((folder / "unet").glob("*-00002-*.safetensors")).unlink(),
            ".safetensors is missing; put all",
        ),
        (lambda folder: _without_one_tensor(folder / "image_projector"), "image_projector lacks queries;"),
        (lambda folder: _with_another_shape(folder / "image_projector"), "has in other shapes queries;"),
        (lambda folder: _with_another_width(folder / "unet"), "holds a model of a size of its own, for which"),
    ],
)
def test_an_incomplete_folder_is_refused_with_what_is_wrong(saved, tmp_path, damage, message):
    folder = shutil.copytree(saved, tmp_path / "copy")
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def _change(folder, change):
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def _without_one_tensor(folder):
    _change(folder, lambda tensors: tensors.pop("queries"))


def _with_another_shape(folder):
    _change(folder, lambda tensors: tensors.update(queries=torch.ones(2)))


def _with_another_width(folder):
    config = json.loads((folder / "config.json").read_text()) | {"block_out_channels": [48, 96]}
    (folder / "config.json").write_text(json.dumps(config))


# Schedule tables


def full_shapes(name):
    """Those of a member of the family; none for DynamiCrafter's own presets."""
    member = next((file for file, preset in family.FILES.items() if preset == name), None)
    return family.manifest(f"full/{member}") if member else {}


@pytest.mark.parametrize("preset", TABLES, ids=lambda preset: preset.name)
def test_schedule_tables_have_the_published_names_and_lengths(preset):
    shapes = full_shapes(preset.name) or tiny_shapes("tiny256" if preset.name == "256" else "tiny512")
    lengths = {key: shape for key, shape in shapes.items() if key in SCHEDULE_BUFFERS}
    tables = schedule_buffers(preset)
    assert {key: tuple(table.shape) for key, table in tables.items()} == lengths
    assert {table.dtype for table in tables.values()} == {torch.float32}
    assert all(table.isfinite().all() for key, table in tables.items() if key != "log_one_minus_alphas_cumprod")


@pytest.mark.parametrize("preset", TABLES, ids=lambda preset: preset.name)
def test_schedule_tables_are_ddpms(preset):
    """Each against its closed form, step by step in plain Python."""
    tables = {key: table.double() for key, table in schedule_buffers(preset).items()}
    start, end = math.sqrt(0.00085), math.sqrt(0.012)
    betas = [(start + (end - start) * t / 999) ** 2 for t in range(1000)]
    roots = [math.sqrt(math.prod(1 - beta for beta in betas[: t + 1])) for t in range(1000)]
    if preset.zero_terminal_snr:
        roots = [(root - roots[-1]) * roots[0] / (roots[0] - roots[-1]) for root in roots]
    for t in (0, 1, 399, 400, 998, 999):
        bar, before = roots[t] ** 2, roots[t - 1] ** 2 if t else 1.0
        beta = 1 - bar / before
        variance = beta * (1 - before) / (1 - bar)
        want = {
            "betas": beta,
            "alphas_cumprod": bar,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": roots[t],
            "sqrt_one_minus_alphas_cumprod": math.sqrt(1 - bar),
            "log_one_minus_alphas_cumprod": math.log(1 - bar),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": math.log(max(variance, 1e-20)),
            "posterior_mean_coef1": beta * math.sqrt(before) / (1 - bar),
            "posterior_mean_coef2": (1 - before) * math.sqrt(1 - beta) / (1 - bar),
        }
        if preset.prediction == "epsilon":
            want |= {"sqrt_recip_alphas_cumprod": bar**-0.5, "sqrt_recipm1_alphas_cumprod": math.sqrt(1 / bar - 1)}
        for key, value in want.items():
            assert tables[key][t].item() == pytest.approx(value, rel=2e-7, abs=1e-9), (key, t)


def test_tables_that_divide_by_alpha_are_zero_for_v_prediction():
    tables = schedule_buffers(get_preset("1024"))
    assert not tables["sqrt_recip_alphas_cumprod"].any()
    assert not tables["sqrt_recipm1_alphas_cumprod"].any()


@pytest.mark.parametrize("preset", TABLES, ids=lambda preset: preset.name)
def test_scale_table_ends_constant_and_only_where_latents_are_rescaled(preset):
    scales = schedule_buffers(preset).get("scale_arr")
    if preset.base_scale is None:
        assert scales is None
        return
    rest = 600 if preset.name == "vc1_text_1024" else 1000
    ours = torch.cat([torch.linspace(1.0, preset.base_scale, 400), torch.full((rest,), preset.base_scale)])
    torch.testing.assert_close(scales, ours, rtol=0, atol=6e-8)
    assert torch.equal(scales[400:], ours[400:])


# Writing


class Plain(dict):
    """A dictionary of tensors as a source."""

    def info(self, key):
        from dynamicrafter.checkpoints.files import TensorInfo

        return TensorInfo(tuple(self[key].shape), str(self[key].dtype).removeprefix("torch."))


@settings(max_examples=25, deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
            lambda key: key != "__metadata__"
        ),
        st.tuples(
            st.lists(st.integers(0, 4), max_size=4),
            st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_written_tensors_are_read_back_by_the_library_with_the_same_bits(tmp_path_factory, tensors):
    source = Plain({key: (torch.rand(shape) * 9).to(dtype) for key, (shape, dtype) in tensors.items()})
    path = tmp_path_factory.mktemp("written") / "x.safetensors"
    write_tensors(source, path)
    back = load_file(path)
    assert back.keys() == source.keys()
    assert all(offset % source[key].itemsize == 0 for key, offset in _offsets(path).items()), "not aligned"
    for key, tensor in source.items():
        assert back[key].dtype == tensor.dtype
        assert torch.equal(back[key], tensor)


def _offsets(path):
    """Where in a safetensors file each tensor begins."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return {key: 8 + length + entry["data_offsets"][0] for key, entry in header.items() if key != "__metadata__"}


def test_casting_spares_schedule_tables_whole_numbers_and_the_autoencoder(tmp_path):
    source = Plain(
        {
            "betas": torch.rand(3),
            "model.diffusion_model.count": torch.tensor(5),
            "model.diffusion_model.x": torch.rand(3),
            "first_stage_model.x": torch.rand(3),
            "embedder.model.logit_scale": torch.tensor(0.3),
        }
    )
    write_tensors(source, tmp_path / "x.safetensors", dtype=torch.float16)
    back = load_file(tmp_path / "x.safetensors")
    assert {key: tensor.dtype for key, tensor in back.items()} == {
        "betas": torch.float32,
        "model.diffusion_model.count": torch.int64,
        "model.diffusion_model.x": torch.float16,
        "first_stage_model.x": torch.float32,
        "embedder.model.logit_scale": torch.float16,
    }
    assert torch.equal(back["model.diffusion_model.x"], source["model.diffusion_model.x"].half())


def test_only_the_chosen_keys_are_written(tmp_path):
    write_tensors(Plain(a=torch.ones(2), b=torch.ones(3)), tmp_path / "x.safetensors", keys=["b"])
    assert list(load_file(tmp_path / "x.safetensors")) == ["b"]


def test_a_lightning_file_is_read_back_as_one(tmp_path):
    write_lightning(Plain(a=torch.ones(2)), tmp_path / "x.ckpt")
    with open_tensors(tmp_path / "x.ckpt") as back:
        assert (back.layout, list(back)) == ("lightning", ["a"])
