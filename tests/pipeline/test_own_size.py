"""A pipeline of another size and autoencoder than the published one: saved, loaded, run, counted and converted."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from checkpoint_files import write_lightning
from dynamicrafter import Animator, DynamiCrafterPipeline
from dynamicrafter.checkpoints.published import EXTRAS_FILE
from dynamicrafter.errors import CheckpointError, InputError
from dynamicrafter.memory.counting import count_call, estimate_run
from dynamicrafter.pipeline.convert import convert
from dynamicrafter.pipeline.folders import empty_networks, inspect_folder
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.options import AnimateOptions
from own_size import LATENTS, TOKENS, pipeline
from published_files import published

NETWORKS = ("unet", "image_projector", "vae", "text_encoder", "image_encoder")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (72, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("own") / "model"
    pipeline().save_pretrained(place)
    return place


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# Saved, loaded and run


def test_a_saved_one_loads_whole_and_makes_the_same_clip(saved):
    before, after = pipeline(), DynamiCrafterPipeline.from_pretrained(saved)
    for name in NETWORKS:
        theirs, mine = getattr(after, name).state_dict(), getattr(before, name).state_dict()
        assert theirs.keys() == mine.keys()
        assert all(torch.equal(theirs[key], tensor) for key, tensor in mine.items())
    after.set_progress_bar_config(disable=True)
    settings = {"generator": torch.Generator().manual_seed(1), "num_frames": 4, "output_type": "uint8"}
    first = before(PICTURE, "the camera pans left", **settings).frames
    settings["generator"] = torch.Generator().manual_seed(1)
    mapped = after(PICTURE, "the camera pans left", **settings).frames
    # Where in memory a weight begins can change the order of sums, and a mapped file begins them anywhere.
    assert np.abs(mapped.astype(int) - first).max() <= 1
    for name in NETWORKS:
        for parameter in getattr(after, name).parameters():
            parameter.data = parameter.data.clone()
    settings["generator"] = torch.Generator().manual_seed(1)
    np.testing.assert_array_equal(after(PICTURE, "the camera pans left", **settings).frames, first)
    assert first.shape == (1, 4, 64, 64, 3)


def test_each_clip_of_a_batch_is_the_one_that_it_would_be_alone():
    animator = Animator(pipeline(), model="own")
    options = AnimateOptions(frames=4, guidance=2.0)
    shots = [
        ClipSpec(pictures=(PICTURE,), prompts=("the camera pans left",), options=options),
        ClipSpec(pictures=(PICTURE.rotate(90),), prompts=("zoom",), options=options, item="second"),
        ClipSpec(pictures=(PICTURE,), prompts=("",), options=AnimateOptions(frames=4, guidance=2.0, seed=9, motion=8)),
    ]
    together = animator.run(shots)
    for shot, clip in zip(shots, together, strict=True):
        (alone,) = animator.run([shot])
        assert np.abs(clip.frames.astype(int) - alone.frames.astype(int)).max() <= 1  # rounding to bytes
    assert np.abs(together[0].frames.astype(int) - together[2].frames.astype(int)).max() > 1


def test_interpolation_and_loops_run_at_other_sizes_than_the_presets():
    animator = Animator(pipeline(), model="own")
    between = animator.interpolate(PICTURE, PICTURE.rotate(90), "snow", frames=4, size=(64, 128))
    loop = animator.loop(PICTURE, frames=4, size=(128, 64))
    assert (between.frames.shape, loop.frames.shape) == ((4, 64, 128, 3), (3, 128, 64, 3))


def test_prompts_are_as_long_as_the_text_encoder_reads(caplog):
    made = pipeline()
    assert made.encode_prompt(["a boat"]).shape == (1, TOKENS, 16)
    assert not caplog.records
    made.encode_prompt(["boat " * TOKENS])
    assert "longer than 22 tokens; this part is not read: boat boat" in caplog.text


# Checked before it is loaded


@pytest.mark.parametrize(
    "entry",
    [
        ["dynamicrafter.models.patch_autoencoder", "AutoencoderKL"],
        ["diffusers", "PatchAutoencoder"],
        ["diffusers", "AutoencoderKLWan"],
        ["dynamicrafter.evil", "PatchAutoencoder"],
    ],
)
def test_another_autoencoders_class_is_refused_by_name(folder, entry):
    change(folder / "model_index.json", vae=entry)
    with pytest.raises(CheckpointError) as caught:
        DynamiCrafterPipeline.from_pretrained(folder)
    said = str(caught.value)
    assert "must name AutoencoderKL of diffusers or " in said
    assert " or PatchAutoencoder of dynamicrafter.models.patch_autoencoder" in said
    assert "nothing was loaded" in said


def test_one_autoencoders_weights_are_refused_under_the_others_name(folder):
    change(folder / "model_index.json", vae=["diffusers", "AutoencoderKL"])
    with pytest.raises(CheckpointError, match="vae lacks "):
        DynamiCrafterPipeline.from_pretrained(folder)


# Counted


def test_what_it_holds_is_counted_network_by_network(saved):
    found, made = inspect_folder(saved), pipeline()
    assert (found.architecture, found.presets, bool(found.misfit)) == (None, ("bundled",), False)
    for part in found.parts:
        tensors = getattr(made, part.component).state_dict().values()
        assert part.parameters == sum(tensor.numel() for tensor in tensors)
        assert part.num_bytes == 4 * part.parameters
        assert part.dtypes == {"float32": len(tensors)}
    assert found.num_bytes == sum(part.num_bytes for part in found.parts)


def test_what_is_counted_must_fit(folder):
    next((folder / "vae").glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"vae holds no \.safetensors file"):
        inspect_folder(folder)


def test_a_run_is_counted_by_the_networks_own_settings(saved):
    settings = {"num_frames": 4, "steps": 3, "passes": 1, "dtype": torch.float32, "memory_bytes": 10**9}
    cost = estimate_run(empty_networks(saved), height=64, width=128, **settings)
    networks = empty_networks(saved)
    unet, vae = networks["unet"], networks["vae"]

    def meta(*shape):
        return torch.empty(shape, device="meta")

    text, image = meta(1, TOKENS, 16), meta(1, 4, 2, 16)
    projected = count_call(lambda: unet.project_context(text, image)).flops
    context = unet.project_context(text, image)
    sample = meta(1, 2 * LATENTS, 4, 8, 16)
    called = count_call(lambda: unet(sample, meta(1).long(), context=context)).flops
    assert cost.denoise_flops == 3 * called + projected
    assert cost.decode_flops == 4 * count_call(lambda: vae.decode(meta(1, LATENTS, 8, 16))).flops
    assert cost.memory.everything == 4 * sum(p.numel() for n in networks.values() for p in n.parameters())


# Converted


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_there_is_no_file_of_such_a_model(saved, tmp_path, name):
    with pytest.raises(CheckpointError) as caught:
        convert(saved, tmp_path / name)
    assert str(caught.value) == (
        f"{name} can't be written: the published layout has no names for a model of this size; use a folder in "
        f"diffusers' layout, which every command here loads."
    )
    assert not list(tmp_path.iterdir())


def test_a_folder_is_written_again_in_another_number_format_only(saved, tmp_path):
    with pytest.raises(InputError, match="is a folder in diffusers' layout already; name a --dtype to write it in"):
        convert(saved, tmp_path / "again")
    half = convert(saved, tmp_path / "half", dtype=torch.bfloat16)
    made, loaded = pipeline(), DynamiCrafterPipeline.from_pretrained(half)
    for name in NETWORKS:
        for key, tensor in getattr(made, name).state_dict().items():
            assert torch.equal(getattr(loaded, name).state_dict()[key], tensor.bfloat16().float()), key
        (file,) = (half / name).glob("*.safetensors")
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}
    assert loaded.preset == made.preset
    assert not any(str(saved.parent) in path.read_text() for path in half.rglob("*.json"))


def test_a_published_folder_keeps_what_no_network_reads_in_another_number_format(tmp_path):
    file = write_lightning(tmp_path / "weights.ckpt", published("tiny512"))
    half = convert(convert(file, tmp_path / "folder", preset="512"), tmp_path / "half", dtype=torch.bfloat16)
    straight = convert(file, tmp_path / "straight", preset="512", dtype=torch.bfloat16)
    for name in (EXTRAS_FILE, *(str(path.relative_to(half)) for path in half.rglob("*/*.safetensors"))):
        theirs, ours = load_file(straight / name), load_file(half / name)
        assert theirs.keys() == ours.keys()
        assert all(ours[key].dtype == t.dtype and torch.equal(ours[key], t) for key, t in theirs.items()), name
