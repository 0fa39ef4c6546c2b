"""What users of diffusers do with a pipeline, beside calling it."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.callbacks import PipelineCallback, SDCFGCutoffCallback
from PIL import Image

import own_size
from dynamicrafter import DynamiCrafterPipeline, generator_for
from dynamicrafter.errors import InputError
from dynamicrafter.presets import get_preset
from tiny import pipeline

QUICK = {"num_inference_steps": 2, "num_frames": 2, "output_type": "latent"}


@pytest.fixture
def pipe():
    return pipeline("tiny512")


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[0:64, 0:64]
    return Image.fromarray(np.stack([x * 2, y * 3, (x + y)], axis=-1).astype(np.uint8))


def run(pipe, *args, **options):
    pipe.set_progress_bar_config(disable=True)
    return pipe(*args, **{"generator": generator_for(3)} | QUICK | options).frames


@pytest.fixture
def want(pipe, picture):
    return run(pipe, picture, "waves")


# Components


def test_a_pipeline_of_anothers_components_is_the_same(pipe, picture, want):
    other = DynamiCrafterPipeline(**pipe.components)
    assert other.preset == pipe.preset
    assert torch.equal(run(other, picture, "waves"), want)


def test_a_pipeline_of_new_networks_says_what_it_lacks(picture):
    parts = own_size.pipeline().components
    del parts["unet"]._dynamicrafter_preset
    bare = DynamiCrafterPipeline(**parts)
    with pytest.raises(InputError, match="preset must be given to a pipeline that is made of new networks"):
        run(bare, picture, "waves")
    preset = dataclasses.replace(get_preset("bundled"), height=64, width=64)
    assert DynamiCrafterPipeline(**parts, preset=dataclasses.asdict(preset)).preset == preset


def test_a_unet_put_in_takes_the_pipelines_preset_along(pipe):
    pipe.unet = copy.deepcopy(pipe.unet)
    del pipe.unet._dynamicrafter_preset
    pipe.unet = copy.deepcopy(pipe.unet)
    assert DynamiCrafterPipeline(**pipe.components).preset == pipe.preset


@pytest.mark.parametrize(
    ("kind", "options", "use"),
    [
        (DDIMScheduler, {}, "'ddim'"),
        (DPMSolverMultistepScheduler, {}, "'dpm++'"),
        (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, "'dpm++sde'"),
        (UniPCMultistepScheduler, {}, "'unipc'"),
        (EulerDiscreteScheduler, {}, "'ddim' or 'dpm++' or 'dpm++sde' or 'unipc'"),
    ],
)
def test_a_stock_scheduler_is_refused_where_it_is_put_in(pipe, picture, want, kind, options, use):
    with pytest.raises(InputError) as caught:
        pipe.scheduler = kind(**options)
    assert f"got {kind.__name__}; keep the pipeline's own, and pass sampler={use} to the call" in str(caught.value)
    assert torch.equal(run(pipe, picture, "waves"), want)
    with pytest.raises(InputError, match="scheduler must be a DynamiCrafterScheduler"):
        DynamiCrafterPipeline(**pipe.components | {"scheduler": kind(**options)})


def test_an_autoencoder_for_previews_takes_the_places_of_the_large_one(pipe, picture, tmp_path):
    torch.manual_seed(0)
    pipe.vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).eval()
    made = run(pipe, picture, "waves", output_type="np")
    assert made.shape == (1, 2, 64, 64, 3)
    assert np.ptp(made) > 0
    pipe.save_pretrained(tmp_path / "model")
    again = DynamiCrafterPipeline.from_pretrained(tmp_path / "model")
    assert isinstance(again.vae, AutoencoderTiny)
    np.testing.assert_array_equal(run(again, picture, "waves", output_type="np"), made)


# Without a text encoder


def test_embeddings_stand_for_a_text_encoder(pipe, picture, want, tmp_path):
    embeds = {"prompt_embeds": pipe.encode_prompt(["waves"]), "negative_prompt_embeds": pipe.encode_prompt([""])}
    pipe.save_pretrained(tmp_path / "whole")
    loaded = DynamiCrafterPipeline.from_pretrained(tmp_path / "whole", text_encoder=None)
    assert loaded.text_encoder is None
    assert torch.equal(run(loaded, picture, **embeds), want)
    loaded.save_pretrained(tmp_path / "without")
    for lazy in (False, True):
        again = DynamiCrafterPipeline.from_pretrained(tmp_path / "without", lazy=lazy)
        assert again.text_encoder is None
        assert torch.equal(run(again, picture, **embeds), want)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "waves"}, "prompt_embeds must be given, as this pipeline has no text_encoder; pass it."),
        ({}, "prompt_embeds must be given"),
        (
            {"prompt_embeds": torch.zeros(1, 77, 32)},
            "negative_prompt_embeds must be given, as this pipeline has no text_encoder; pass it, or guidance_scale=1.",
        ),
    ],
)
def test_what_is_lacking_without_a_text_encoder_is_said_before_anything_is_computed(
    pipe, picture, given, message, monkeypatch
):
    bare = DynamiCrafterPipeline(**pipe.components | {"text_encoder": None})
    monkeypatch.setattr(pipe.vae, "encode", lambda *_a, **_k: pytest.fail("the autoencoder ran"))
    with pytest.raises(InputError, match=message):
        run(bare, picture, **given)
    with pytest.raises(InputError, match="prompt can't be encoded, as this pipeline has no text_encoder"):
        bare.encode_prompt(["waves"])


def test_a_component_is_left_out_of_a_folder_only():
    with pytest.raises(InputError, match="takes no option 'text_encoder'"):
        DynamiCrafterPipeline.from_pretrained("seeded:tiny", text_encoder=None)


def test_variants_and_shards_are_written_and_read(pipe, picture, want, tmp_path):
    pipe.save_pretrained(tmp_path / "model", variant="fp16", max_shard_size="300KB")
    assert len(list((tmp_path / "model" / "unet").glob("*.fp16-*.safetensors"))) > 1
    again = DynamiCrafterPipeline.from_pretrained(tmp_path / "model", variant="fp16")
    assert torch.equal(run(again, picture, "waves"), want)


# Copies


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("kind", ["seeded", "folder"])
def test_a_loaded_pipeline_can_be_pickled_and_copied(pipe, picture, tmp_path, lazy, kind):
    pipe.save_pretrained(tmp_path / "model")
    name = "seeded:tiny" if kind == "seeded" else tmp_path / "model"
    loaded = DynamiCrafterPipeline.from_pretrained(name, lazy=lazy)
    want = run(loaded, picture, "waves")
    fresh = DynamiCrafterPipeline.from_pretrained(name, lazy=lazy)
    for other in (pickle.loads(pickle.dumps(fresh)), copy.deepcopy(fresh)):
        assert torch.equal(run(other, picture, "waves"), want)


# Callbacks


class Cutoff(PipelineCallback):
    tensor_inputs = ("denoised",)

    def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs):
        assert list(callback_kwargs) == ["denoised"]
        self.seen = (pipeline.num_timesteps, pipeline.guidance_scale, pipeline.do_classifier_free_guidance)
        return callback_kwargs


def test_callback_objects_name_their_tensors_and_see_the_run(pipe, picture, want):
    watch = Cutoff()
    assert torch.equal(run(pipe, picture, "waves", callback_on_step_end=watch), want)
    assert watch.seen == (2, 7.5, True)
    run(pipe, picture, "waves", callback_on_step_end=watch, guidance_scale=1.0)
    assert watch.seen == (2, 1.0, False)
    run(pipe, picture, "waves", callback_on_step_end=watch, guidance_scale=1.0, image_guidance_scale=3.0)
    assert watch.seen == (2, 1.0, True)


def rows_of(pipe, monkeypatch):
    rows = []
    forward = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda s, *a, **k: (rows.append(len(s)), forward(s, *a, **k))[1])
    return rows


def test_diffusers_own_cutoff_switches_guidance_off(pipe, picture, want, monkeypatch):
    rows = rows_of(pipe, monkeypatch)
    options = {"num_inference_steps": 4, "guidance_batching": "together"}
    cut = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    run(pipe, picture, "waves", callback_on_step_end=cut, **options)
    assert rows == [2, 2, 2, 1]
    assert pipe.guidance_scale == 0.0
    assert not pipe.do_classifier_free_guidance
    assert torch.equal(run(pipe, picture, "waves"), want)  # the next run is as ever


def test_a_scale_that_a_callback_sets_is_the_one_of_the_next_step(pipe, picture):
    def raise_it(owner, step, timestep, tensors):
        owner._guidance_scale += 1.0
        return tensors

    seen = {}

    def watch(owner, step, timestep, tensors):
        seen[step] = tensors["latents"].clone()
        owner._guidance_scale = 3.0

    options = {"guidance_scale": 2.0, "eta": 0.0, "num_inference_steps": 3}
    run(pipe, picture, "waves", callback_on_step_end=raise_it, **options)
    assert pipe.guidance_scale == 2.0 + pipe.num_timesteps
    first = run(pipe, picture, "waves", callback_on_step_end=watch, **options)
    whole = run(pipe, picture, "waves", **options)
    assert not torch.equal(first, whole)
    assert not torch.equal(first, run(pipe, picture, "waves", **options | {"guidance_scale": 3.0}))


def test_callbacks_see_the_embeddings_and_cannot_change_them_unnoticed(pipe, picture, want):
    names = pipe._callback_tensor_inputs
    seen = {}

    def watch(owner, step, timestep, tensors):
        seen.update(tensors)
        return tensors

    assert torch.equal(
        run(pipe, picture, "waves", callback_on_step_end=watch, callback_on_step_end_tensor_inputs=names), want
    )
    assert tuple(seen) == names
    assert torch.equal(seen["prompt_embeds"], pipe.encode_prompt(["waves"]))
    assert torch.equal(seen["negative_prompt_embeds"], pipe.encode_prompt([""]))
    run(
        pipe,
        picture,
        "waves",
        guidance_scale=1.0,
        callback_on_step_end=watch,
        callback_on_step_end_tensor_inputs=names,
    )
    assert seen["negative_prompt_embeds"] is None

    def change(owner, step, timestep, tensors):
        return {"prompt_embeds": tensors["prompt_embeds"] + 1}

    with pytest.raises(InputError, match="a callback may change latents, but not prompt_embeds"):
        run(pipe, picture, "waves", callback_on_step_end=change, callback_on_step_end_tensor_inputs=names)


# Arguments


@pytest.mark.parametrize("name", ["bfloat16", "torch.bfloat16"])
def test_a_number_format_may_be_named(pipe, tmp_path, name):
    pipe.save_pretrained(tmp_path / "model")
    for model in ("seeded:tiny", tmp_path / "model"):
        assert DynamiCrafterPipeline.from_pretrained(model, dtype=name).unet.dtype == torch.bfloat16
        assert DynamiCrafterPipeline.from_pretrained(model, torch_dtype={"unet": name}).unet.dtype == torch.bfloat16
        with pytest.raises(InputError, match="dtype must be one of float32, bfloat16, float16, got 'half'"):
            DynamiCrafterPipeline.from_pretrained(model, dtype="half")


@pytest.mark.parametrize("generator", [5, [torch.Generator(), 5], "5"])
def test_a_seed_is_no_generator(pipe, picture, generator):
    with pytest.raises(InputError, match=r"generator must be a torch.Generator.*manual_seed\(SEED\)"):
        run(pipe, picture, "waves", generator=generator)


def encoded(pipe, image, **options):
    """What the autoencoder gets of a picture."""
    seen = []
    hook = pipe.vae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(pipe, image, "waves", num_inference_steps=1, **options)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_float_pictures_of_any_size_are_not_rounded(pipe, fit):
    y, x = np.mgrid[0:80, 0:120] / 120
    floats = np.stack([x, y, (x + y) / 2], axis=-1)
    got, rounded = (encoded(pipe, image, fit=fit) for image in (floats, (floats * 255).round().astype(np.uint8)))
    assert (got - rounded).abs().max() <= 3.01 / 255  # of the array, and of each of Pillow's two passes, half a level
    assert len(got.unique()) > 2 * len(rounded.unique())


def test_float_frames_that_came_out_go_in_as_they_are(pipe):
    frame = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    as_tensor = torch.from_numpy(frame).movedim(-1, 0)
    assert torch.equal(encoded(pipe, frame), encoded(pipe, as_tensor))
    assert torch.equal(encoded(pipe, frame)[0], as_tensor * 2 - 1)


@pytest.mark.parametrize("kind", ["uint8", "floats", "tensor"])
def test_what_is_transparent_lies_on_white(pipe, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    pixels[:32, :, 3] = 0
    image = {
        "uint8": pixels,
        "floats": pixels / 255,
        "tensor": torch.from_numpy(pixels / 255).movedim(-1, 0).float(),
    }[kind]
    want = encoded(pipe, Image.fromarray(pixels))
    got = encoded(pipe, image)
    assert (got[:, :, :32] == 1).all()
    assert (got - want).abs().max() <= 2.01 / 255
