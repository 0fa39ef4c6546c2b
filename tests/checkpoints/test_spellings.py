"""Checkpoints as trainers, compilers, DeepSpeed and ComfyUI keep them: what is certain is loaded, the rest is named."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.load import load_file
from dynamicrafter.checkpoints.networks import COMPONENTS
from dynamicrafter.errors import CheckpointError, InputError
from dynamicrafter.hub.folders import local_model
from published_files import pruned, published
from tiny import network

UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def weights():
    return dict(published("tiny1024"))


def write(path, tensors):
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path)
    return path


def same_weights(loaded, *, scale=1.0):
    for name in COMPONENTS:
        theirs = network(name, "tiny1024").state_dict()
        ours = loaded.networks[name].state_dict()
        factor = scale if name == "unet" else 1.0
        assert all(torch.equal(ours[key], tensor * factor) for key, tensor in theirs.items())


@pytest.mark.parametrize(
    "spell",
    [
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: f"model.{key}",
        lambda key: f"model.model.{key}",
        lambda key: f"_forward_module.module.{key}",
        lambda key: f"module._orig_mod.model.{key}",
        lambda key: key.replace(UNET, f"{UNET}_orig_mod."),
        lambda key: key.replace("input_blocks.1.", "input_blocks.1._checkpoint_wrapped_module."),
        lambda key: key.removeprefix("model.") if key.startswith(UNET) else key,
        lambda key: key.removeprefix(UNET),
    ],
)
def test_what_is_put_around_names_is_taken_off(tmp_path, weights, spell):
    path = write(tmp_path / "a.safetensors", {spell(key): tensor for key, tensor in weights.items()})
    same_weights(load_file(path))


def test_two_spellings_of_one_tensor_are_refused(tmp_path):
    path = write(tmp_path / "a.safetensors", {"module.a": torch.zeros(2), "a": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"has both .* and .*, which mean one tensor"):
        open_tensors(path)


@pytest.mark.parametrize("place", ["model", "model_state_dict", "state_dict", "module", "ema", "ema_state_dict"])
def test_a_trainer_s_dictionary_is_looked_into(tmp_path, weights, place):
    content = {place: weights, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}
    torch.save(content, tmp_path / "a.ckpt")
    same_weights(load_file(tmp_path / "a.ckpt"))


def doubled(weights):
    return {key: tensor * 2 if key.startswith(UNET) else tensor for key, tensor in weights.items()}


def test_an_average_beside_the_weights_is_taken_only_where_asked_for(tmp_path, weights):
    path = tmp_path / "a.pt"
    torch.save({"ema": doubled(weights), "model": weights}, path)
    same_weights(load_file(path))
    same_weights(load_file(path, weights="ema"), scale=2.0)


def test_lightning_s_average_is_taken_only_where_asked_for(tmp_path, weights, caplog):
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): tensor * 2
        for key, tensor in weights.items()
        if key.startswith(UNET)
    }
    averages |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(100)}
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": weights | averages, "epoch": 1}, path)
    same_weights(load_file(path))
    assert "holds a running average beside the trained weights" in caplog.text
    same_weights(load_file(path, weights="ema"), scale=2.0)
    averages.popitem()
    gone = next(key for key in averages if key.endswith("weight"))
    torch.save({"state_dict": weights | {key: t for key, t in averages.items() if key != gone}}, path)
    with pytest.raises(CheckpointError, match=rf"holds no running average of {re.escape(UNET)}"):
        load_file(path, weights="ema")


def test_an_average_that_is_not_there_is_not_made_up(tmp_path, weights):
    with pytest.raises(CheckpointError, match="holds no running average; leave the choice of weights out"):
        load_file(write(tmp_path / "a.safetensors", weights), weights="ema")


@pytest.mark.parametrize("prefix", [UNET, "diffusion_model.", ""])
def test_a_unet_alone_is_named_as_such(tmp_path, weights, prefix):
    alone = {prefix + key.removeprefix(UNET): tensor for key, tensor in weights.items() if key.startswith(UNET)}
    with pytest.raises(CheckpointError, match=r"a\.safetensors holds the UNet alone, without the image projector"):
        load_file(write(tmp_path / "a.safetensors", alone))


def halves(tmp_path, weights):
    keys = list(weights)
    parts = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    files = [tmp_path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, part in zip(files, parts, strict=True):
        write(file, {key: weights[key] for key in part})
    index = {"weight_map": {key: file.name for file, part in zip(files, parts, strict=True) for key in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_shards_are_read_together_by_any_of_them_their_index_or_their_folder(tmp_path, weights):
    files = halves(tmp_path, weights)
    for path in (*files, tmp_path / "model.safetensors.index.json", local_model(tmp_path).path):
        same_weights(load_file(path, preset="1024"))
    files[0].unlink()
    with pytest.raises(CheckpointError, match=r"is one of 2 files of one model, and model-00001.* is missing"):
        load_file(files[1])


def test_an_index_leads_nowhere_else(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="it must name files beside it"):
        open_tensors(path)


@pytest.mark.parametrize(("scale_name", "more"), [("scale_weight", "scale_input"), ("weight_scale", "input_scale")])
def test_scaled_float8_comes_times_its_scales(tmp_path, weights, scale_name, more):
    stored, wanted = dict(weights), dict(weights)
    for index, (key, tensor) in enumerate(weights.items()):
        if key.startswith(UNET) and key.endswith(".weight") and tensor.ndim >= 2:
            layer, scale = key.removesuffix(".weight"), torch.tensor(0.25 + index)
            stored[key] = (tensor / scale).to(torch.float8_e4m3fn)
            stored |= {f"{layer}.{scale_name}": scale, f"{layer}.{more}": torch.ones(())}
            wanted[key] = stored[key].float() * scale
    stored["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    with open_tensors(write(tmp_path / "a.safetensors", stored)) as found:
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert torch.equal(found[key], tensor)
            assert found.info(key).dtype == str(tensor.dtype).removeprefix("torch.")
    load_file(tmp_path / "a.safetensors")


def transformers_names(component, tower):
    """A tower as transformers saves it in its older form, which ComfyUI's users have."""
    state = network(component, "tiny1024").state_dict()
    return {f"{tower}.{name}": tensor for name, tensor in state.items()}


def test_the_towers_may_come_in_two_files_of_transformers_names(tmp_path):
    path = write(tmp_path / "pruned.safetensors", pruned("tiny1024", dtype=torch.float32))
    image = write(tmp_path / "image.safetensors", transformers_names("image_encoder", "vision_model"))
    text = write(tmp_path / "text.safetensors", transformers_names("text_encoder", "text_model"))
    same_weights(load_file(path, encoders=[image, text]))
    with pytest.raises(CheckpointError, match=r"the encoders have no text_encoder.*, or the files of both towers"):
        load_file(path, encoders=image)


def test_deepspeed_s_folder_is_a_model(tmp_path, weights):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "latest").write_text("checkpoint\n")
    states = tmp_path / "checkpoint" / "mp_rank_00_model_states.pt"
    torch.save({"module": {f"_forward_module.module.{key}": tensor for key, tensor in weights.items()}}, states)
    assert local_model(tmp_path).path == local_model(tmp_path / "checkpoint").path == states
    same_weights(load_file(local_model(tmp_path).path))
    torch.save({"module": {key: torch.empty(0) for key in weights}}, states)
    with pytest.raises(CheckpointError, match=r"ZeRO-3 keeps the weights in pieces.*zero_to_fp32\.py"):
        load_file(states)
    (tmp_path / "checkpoint" / "mp_rank_01_model_states.pt").touch()
    with pytest.raises(InputError, match="split over 2 processes"):
        local_model(tmp_path)
