"""Loading published files into the networks: whose they are, whether they fit, and with which bits."""

import pytest
import torch

from checkpoint_files import WRITERS, write_flat, write_lightning, write_safetensors
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.load import load_file
from dynamicrafter.checkpoints.networks import COMPONENTS
from dynamicrafter.checkpoints.variants import looks_like, tell_preset
from dynamicrafter.errors import CheckpointError, InputError
from dynamicrafter.hub import preset_from_filename
from dynamicrafter.media.clip_pixels import clip_pixels
from dynamicrafter.presets import every_preset
from goldens import MODULE_TOLERANCE, load, relative_error
from published_files import openclip, pruned, published
from tiny import network

SCALE = "scale_arr"


def same_weights(loaded, golden, *, dtype=torch.float32):
    for name in COMPONENTS:
        theirs = network(name, golden).state_dict()
        ours = loaded.networks[name].state_dict()
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert ours[key].dtype == dtype, key
            assert torch.equal(ours[key], tensor.to(dtype)), key


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        load_file(path, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    return message


def without(tensors, *keys):
    return {key: tensor for key, tensor in tensors.items() if key not in keys}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_loads_with_the_same_bits(tmp_path, layout):
    path = WRITERS[layout](tmp_path / "model.ckpt", published("tiny1024"))
    if layout == "safetensors":
        path = path.rename(tmp_path / "model.safetensors")
    loaded = load_file(path)
    assert loaded.preset.name == "1024"
    same_weights(loaded, "tiny1024")
    assert not any(module.training for module in loaded.networks.values())


@pytest.mark.parametrize("golden", ["tiny256", "tiny512"])
@torch.no_grad()
def test_loaded_networks_give_the_published_outputs(tmp_path, golden):
    path = write_lightning(tmp_path / "model.ckpt", published(golden))
    nets = load_file(path, preset=golden.removeprefix("tiny")).networks
    want, seen = load(f"{golden}.unet"), load(f"{golden}.conditioning")
    text, image = want["context"][:, :77], want["context"][:, 77:].unflatten(1, (16, 16))
    pairs = [
        (nets["unet"](want["x"], want["t"], text, image, want["fs"]), want["out"]),
        (nets["text_encoder"](seen["tokens"].long()).last_hidden_state, seen["text_embedding"]),
        (nets["image_encoder"](pixel_values=clip_pixels(seen["image"])).last_hidden_state, seen["image_tokens"]),
        (nets["image_projector"](seen["image_tokens"]).flatten(1, 2), seen["image_context"]),
        (nets["vae"].decode(load(f"{golden}.vae")["z"]).sample, load(f"{golden}.vae")["decoded"]),
    ]
    for ours, theirs in pairs:
        assert relative_error(ours, theirs) < MODULE_TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_keep_their_numbers_unless_asked(tmp_path, dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in published("tiny1024").items()}
    path = write_safetensors(tmp_path / "model.safetensors", tensors)
    same_weights(load_file(path), "tiny1024", dtype=dtype)
    widened = load_file(path, dtype=torch.float32).networks["unet"]
    assert widened.dtype == torch.float32
    assert torch.equal(widened.conv_in.bias, network("unet", "tiny1024").conv_in.bias.to(dtype).float())


def test_float16_leaves_the_autoencoder_in_float32(tmp_path):
    path = write_flat(tmp_path / "model.ckpt", published("tiny1024"))
    nets = load_file(path, dtype=torch.float16).networks
    assert {name: net.dtype for name, net in nets.items()} == dict.fromkeys(COMPONENTS, torch.float16) | {
        "vae": torch.float32
    }


def test_dtypes_may_differ_by_component(tmp_path):
    path = write_flat(tmp_path / "model.ckpt", published("tiny1024"))
    nets = load_file(path, dtype={"default": torch.bfloat16, "vae": torch.float16}).networks
    assert (nets["unet"].dtype, nets["vae"].dtype) == (torch.bfloat16, torch.float16)
    nets = load_file(path, dtype={"unet": torch.bfloat16}).networks
    assert (nets["unet"].dtype, nets["text_encoder"].dtype) == (torch.bfloat16, torch.float32)


def test_changing_loaded_weights_leaves_the_file_alone(tmp_path):
    path = write_lightning(tmp_path / "model.ckpt", published("tiny1024"))
    with torch.no_grad():
        load_file(path).networks["unet"].conv_in.weight.zero_()
    same_weights(load_file(path), "tiny1024")


# Which preset


def telling(golden):
    """The few tensors of a file that tell its preset."""
    telling = (SCALE, "embed.0", "fps_embedding.0", "input_blocks.0.0")
    return {key: tensor for key, tensor in published(golden).items() if any(part in key for part in telling)}


def told(path, *, preset=None):
    with open_tensors(path) as source:
        return tell_preset(source, name=path.name, asked=preset, hint=preset_from_filename(path)).name


@pytest.mark.parametrize(("golden", "preset"), [("tiny256", "256"), ("tiny1024", "1024")])
def test_the_file_itself_tells_256_and_1024(tmp_path, golden, preset):
    assert told(write_flat(tmp_path / "weights.ckpt", telling(golden))) == preset


@pytest.mark.parametrize(
    ("name", "asked", "preset"),
    [
        ("weights.ckpt", "512", "512"),
        ("weights.ckpt", "interp", "512_interp"),
        ("dynamicrafter_512_interp_v1.ckpt", None, "512_interp"),
        ("dynamicrafter_512.ckpt", None, "512"),
        ("dynamicrafter_512.ckpt", "512_interp", "512_interp"),
    ],
)
def test_512_is_told_from_interp_by_the_user_then_by_the_file_name(tmp_path, name, asked, preset):
    assert told(write_flat(tmp_path / name, telling("tiny512")), preset=asked) == preset


def test_a_loaded_file_has_the_preset_that_was_asked_for_or_that_its_name_says(tmp_path):
    path = write_flat(tmp_path / "dynamicrafter_512.ckpt", published("tiny512"))
    assert load_file(path).preset.name == "512"
    assert load_file(path, preset="interp").preset.name == "512_interp"


def test_an_unclear_preset_is_asked_for(tmp_path):
    message = refusal(write_flat(tmp_path / "weights.ckpt", published("tiny512")))
    assert message == (
        "weights.ckpt fits the presets 512 and 512_interp, whose files are alike; say which with --preset 512 or "
        "--preset 512_interp."
    )


def test_a_file_without_schedule_tables_may_be_any_of_three(tmp_path):
    path = write_flat(tmp_path / "weights.ckpt", without(telling("tiny1024"), SCALE))
    with pytest.raises(CheckpointError, match="fits the presets 512 and 1024 and 512_interp"):
        told(path)
    assert told(path, preset="1024") == "1024"
    assert told(path.rename(tmp_path / "dynamicrafter_1024.ckpt")) == "1024"


@pytest.mark.parametrize(("golden", "asked", "said"), [("tiny256", "512", "256"), ("tiny1024", "512", "1024")])
def test_a_preset_that_the_file_contradicts_is_refused(tmp_path, golden, asked, said):
    message = refusal(write_flat(tmp_path / "weights.ckpt", published(golden)), preset=asked)
    assert message.startswith(f"preset {asked} does not fit weights.ckpt: its keys say {said};")


def test_a_misleading_file_name_yields_to_the_tensors(tmp_path):
    assert told(write_flat(tmp_path / "dynamicrafter_512.ckpt", telling("tiny1024"))) == "1024"


def test_a_rounded_latent_rescale_tells_the_same_preset(tmp_path):
    tensors = {key: tensor.bfloat16() for key, tensor in telling("tiny1024").items()}
    assert told(write_safetensors(tmp_path / "weights.safetensors", tensors)) == "1024"


@pytest.mark.parametrize("asked", [None, "512"])
def test_a_latent_rescale_of_no_preset_is_refused(tmp_path, asked):
    tensors = published("tiny512") | {SCALE: torch.linspace(1, 0.5, 1400)}
    message = refusal(write_flat(tmp_path / "weights.ckpt", tensors), preset=asked)
    assert message.startswith("weights.ckpt rescales latents down to 0.5, which no released checkpoint does;")


def test_an_unknown_preset_is_refused_with_the_known_ones(tmp_path):
    path = write_flat(tmp_path / "weights.ckpt", published("tiny1024"))
    names = ", ".join(preset.name for preset in every_preset())
    assert refusal(path, preset="2048") == f"preset must be one of {names}, got '2048'."


# Without encoders


@pytest.mark.parametrize("towers", ["openclip", "checkpoint"])
def test_a_pruned_file_takes_its_encoders_from_another(tmp_path, towers):
    path = write_safetensors(tmp_path / "pruned.safetensors", pruned("tiny1024"))
    other = openclip("tiny1024") if towers == "openclip" else published("tiny1024")
    loaded = load_file(path, dtype=torch.float32, encoders=write_flat(tmp_path / "towers.bin", other))
    assert loaded.networks["unet"].conv_in.bias.half().equal(network("unet", "tiny1024").conv_in.bias.half())
    for name in ("text_encoder", "image_encoder"):
        ours, theirs = loaded.networks[name].state_dict(), network(name, "tiny1024").state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_encoders_that_are_lacking_are_named_with_the_remedy(tmp_path):
    message = refusal(write_safetensors(tmp_path / "pruned.safetensors", pruned("tiny1024")))
    assert message.startswith("pruned.safetensors is a pruned file without text_encoder and image_encoder; pass")
    assert "laion/CLIP-ViT-H-14-laion2B-s32B-b79K" in message


def test_only_the_encoder_that_is_lacking_is_taken(tmp_path):
    kept = {key: tensor for key, tensor in published("tiny1024").items() if not key.startswith("cond_stage_model.")}
    path = write_flat(tmp_path / "half.ckpt", kept)
    assert "without text_encoder;" in refusal(path)
    other = {key: torch.zeros_like(tensor) for key, tensor in openclip("tiny1024").items()}
    nets = load_file(path, encoders=write_flat(tmp_path / "towers.bin", other)).networks
    assert not nets["text_encoder"].final_layer_norm.weight.any()
    assert nets["image_encoder"].post_layernorm.weight.equal(network("image_encoder", "tiny1024").post_layernorm.weight)


def test_a_file_that_is_no_encoders_is_refused_as_such(tmp_path):
    path = write_safetensors(tmp_path / "pruned.safetensors", pruned("tiny1024"))
    towers = write_flat(tmp_path / "towers.bin", {"text_model.encoder.layers.0.fc.weight": torch.ones(2)})
    message = refusal(path, encoders=towers)
    assert message.startswith("the encoders have no text_encoder and no image_encoder; they look like ")
    assert "a CLIP model" in message


def test_encoders_of_another_size_are_listed_as_misshapen(tmp_path):
    path = write_safetensors(tmp_path / "pruned.safetensors", pruned("tiny1024"))
    wider = {key: torch.ones([2 * n for n in tensor.shape]) for key, tensor in openclip("tiny1024").items()}
    assert "misshapen: cond_stage_model." in refusal(path, encoders=write_flat(tmp_path / "towers.bin", wider))


# Misfits


def test_a_misfit_lists_each_kind_of_key_once(tmp_path):
    gone, bent = "model.diffusion_model.out.2.bias", "model.diffusion_model.out.2.weight"
    tensors = without(published("tiny1024"), gone) | {
        bent: torch.zeros(4, 32, 1, 1),
        "model.diffusion_model.surplus": torch.zeros(3),
    }
    message = refusal(write_flat(tmp_path / "weights.ckpt", tensors))
    assert message == (
        f"weights.ckpt does not fit preset 1024: 1 missing: {gone}; 1 unexpected: model.diffusion_model.surplus; "
        f"1 misshapen: {bent}: (4, 32, 1, 1) instead of (4, 32, 3, 3). It looks like a DynamiCrafter checkpoint that "
        f"was changed; use a complete checkpoint of this preset."
    )


def test_a_long_misfit_is_counted_after_a_dozen_keys(tmp_path):
    tensors = {k: t for k, t in published("tiny1024").items() if not k.startswith("first_stage_model.")}
    message = refusal(write_flat(tmp_path / "weights.ckpt", tensors))
    assert "180 missing: " in message
    assert message.count("first_stage_model.") == 12
    assert " and 168 more." in message


def test_tensors_that_nothing_reads_are_neither_missed_nor_refused(tmp_path):
    unread = [k for k in published("tiny1024") if k == "betas" or k.endswith(("logit_scale", "visual.proj"))]
    unread += [k for k in published("tiny1024") if k.startswith("cond_stage_model.model.transformer.resblocks.2.")]
    assert len(unread) == 1 + 3 + 12
    same_weights(load_file(write_flat(tmp_path / "weights.ckpt", without(published("tiny1024"), *unread))), "tiny1024")


@pytest.mark.parametrize(
    ("keys", "description"),
    [
        (["lora_unet_down_blocks_0.lora_up.weight"], "LoRA weights"),
        (["unet.down.0.units.0.spatial.to_q.lora_A.weight"], "LoRA weights"),
        (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"], "AnimateDiff"),
        (["conditioner.embedders.0.model.ln_final.weight", "model.diffusion_model.out.0.bias"], "XL or SVD"),
        (["cond_stage_model.transformer.text_model.final_layer_norm.bias", "betas"], "Stable Diffusion 1.x"),
        (["model.diffusion_model.input_blocks.1.0.temopral_conv.conv1.0.bias"], "VideoCrafter"),
        (["model.diffusion_model.input_blocks.0.0.bias"], "Stable Diffusion 2.x"),
        (["down_blocks.0.resnets.0.conv1.weight"], "one network in diffusers' layout"),
        (["down.0.units.0.residual.conv1.weight"], "the UNet of a DynamiCrafter folder"),
        (["visual.conv1.weight", "transformer.resblocks.0.ln_1.bias"], "a CLIP model"),
        (["text_model.encoder.layers.0.mlp.fc1.bias"], "a CLIP model"),
        (["encoder.layers.0.mlp.fc1.bias"], "no kind of model known here"),
        (["decoder.conv_in.weight", "quant_conv.bias"], "an autoencoder alone"),
        (["optimizer.state.0.exp_avg"], "an optimiser's state"),
        (["fc.weight"], "no kind of model known here (first key: 'fc.weight')"),
        ([], "an empty file"),
    ],
)
def test_other_models_are_called_by_their_names(keys, description):
    assert description in looks_like(keys)


def test_another_model_is_refused_as_what_it_seems_to_be(tmp_path):
    keys = ["cond_stage_model.transformer.text_model.final_layer_norm.bias", "model.diffusion_model.out.0.bias"]
    message = refusal(write_flat(tmp_path / "sd.ckpt", {key: torch.ones(2) for key in keys}))
    assert message.startswith("sd.ckpt is not a DynamiCrafter checkpoint: ")
    assert message.endswith("it looks like a Stable Diffusion 1.x checkpoint.")


def test_a_unet_of_other_channels_is_refused_with_its_shape(tmp_path):
    first = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(320, 4, 3, 3)}
    message = refusal(write_flat(tmp_path / "sd.ckpt", first))
    assert "has a first convolution of shape (320, 4, 3, 3), DynamiCrafter's takes 8 channels and Video" in message
    with pytest.raises(CheckpointError):
        load_file(tmp_path / "sd.ckpt")


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool])
def test_weights_that_are_no_real_numbers_are_refused(tmp_path, dtype):
    key = "model.diffusion_model.out.2.weight"
    tensors = dict(published("tiny1024")) | {key: torch.ones(4, 32, 3, 3, dtype=dtype)}
    name = str(dtype).removeprefix("torch.")
    assert f"{key}: {name} instead of a floating-point type" in refusal(write_flat(tmp_path / "weights.ckpt", tensors))
