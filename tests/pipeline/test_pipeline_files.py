"""Saving, loading and offloading, as diffusers' users expect of a pipeline."""

import numpy as np
import pytest
import torch
from PIL import Image

from dynamicrafter import DynamiCrafterPipeline, generator_for
from tiny import pipeline


@pytest.fixture
def pipe():
    return pipeline("tiny512")


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[0:80, 0:120]
    return Image.fromarray(np.stack([x * 2, y * 3, (x + y)], axis=-1).astype(np.uint8))


def run(pipe, *args, **options):
    return pipe(*args, num_inference_steps=2, output_type="latent", **options).frames


def test_saved_and_loaded_again_it_makes_the_same_bits(pipe, picture, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    again = DynamiCrafterPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert again.preset == pipe.preset
    assert set(again.components) == set(pipe.components)
    want = run(pipe, picture, "waves", generator=generator_for(1))
    assert torch.equal(run(again, picture, "waves", generator=generator_for(1)), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_folder_gives_every_network_the_dtype_that_a_file_gives_it(pipe, tmp_path, dtype):
    pipe.save_pretrained(tmp_path / "model")
    folder = DynamiCrafterPipeline.from_pretrained(tmp_path / "model", dtype=dtype)
    file = DynamiCrafterPipeline.from_pretrained("seeded:tiny", torch_dtype=dtype)
    for name in ("vae", "text_encoder", "image_encoder", "image_projector", "unet"):
        assert getattr(folder, name).dtype == getattr(file, name).dtype, name


def test_with_networks_offloaded_in_turn_it_makes_the_same_bits(picture):
    want = run(DynamiCrafterPipeline.from_pretrained("seeded:tiny"), picture, "waves", generator=generator_for(1))
    offloaded = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    offloaded.enable_model_cpu_offload(device="cpu")  # the hooks are the same as with a GPU; the moves are to itself
    assert hasattr(offloaded.unet, "_hf_hook")
    for _ in range(2):
        assert torch.equal(run(offloaded, picture, "waves", generator=generator_for(1)), want)


def test_a_model_laid_out_by_a_run_saves_and_loads_with_the_same_weights(picture, tmp_path):
    loaded = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    run(loaded, picture, "waves")
    assert loaded.unet.middle.residual.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    loaded.save_pretrained(tmp_path / "model")
    again = DynamiCrafterPipeline.from_pretrained(tmp_path / "model")
    for component in ("unet", "vae"):
        ours, theirs = (getattr(pipe, component).state_dict() for pipe in (loaded, again))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
