"""A pipeline's folder from anywhere: nothing that it names is imported or run, and weights load whole or not at all."""

import json
import os
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoint_files import Malicious
from dynamicrafter import DynamiCrafterPipeline
from dynamicrafter.errors import CheckpointError, InputError
from tiny import pipeline

COMPONENTS = ("vae", "text_encoder", "image_encoder", "image_projector", "unet")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "model"
    pipeline("tiny512").save_pretrained(place)
    return place


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def refusal(folder, error=CheckpointError, **options):
    with pytest.raises(error) as caught:
        DynamiCrafterPipeline.from_pretrained(folder, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def weights(folder, component):
    (path,) = (folder / component).glob("*.safetensors")
    return path


@pytest.mark.parametrize(
    "entry",
    [
        ["antigravity", "fly"],
        ["os", "system"],
        ["subprocess", "Popen"],
        ["dynamicrafter.evil", "DynamiCrafterUNet"],
        ["diffusers", "UNet2DConditionModel"],
        [None, None],
        ["../unet", "X"],
        "dynamicrafter",
        5,
    ],
)
def test_a_component_of_another_class_is_refused_and_nothing_is_imported(folder, entry):
    before = set(sys.modules)
    change(folder / "model_index.json", unet=entry)
    message = refusal(folder)
    assert "must name DynamiCrafterUNet of dynamicrafter.models.unet as its unet, got" in message
    assert not {"antigravity", "dynamicrafter.evil"} & (set(sys.modules) - before)


def test_a_component_that_there_is_none_of_is_refused(folder):
    change(folder / "model_index.json", **{"../../evil": ["transformers", "CLIPTextModel"]})
    assert "names components that a DynamiCrafterPipeline doesn't have: ../../evil" in refusal(folder)


def test_code_beside_the_weights_is_not_run(folder, tmp_path):
    code = f"import os; os.mkdir({str(tmp_path / 'trace')!r})"
    for place in ("pipeline.py", "unet/evil.py", "text_encoder/evil.py"):
        (folder / place).write_text(code)
    change(folder / "text_encoder" / "config.json", auto_map={"CLIPTextModel": "evil.X", "AutoModel": "evil.X"})
    assert "config.json sets auto_map, which is not obeyed here" in refusal(folder)
    change(folder / "model_index.json", _class_name=["pipeline", "X"])
    assert "not a DynamiCrafterPipeline" in refusal(folder)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("component", "setting"),
    [
        ("text_encoder", "attn_implementation"),
        ("image_encoder", "_attn_implementation"),
        ("text_encoder", "transformers_weights"),
        ("unet", "quantization_config"),
    ],
)
def test_settings_that_lead_elsewhere_are_refused(folder, component, setting):
    change(folder / component / "config.json", **{setting: "someone/evil"})
    assert f"config.json sets {setting}, which is not obeyed here" in refusal(folder)


def test_an_adapter_that_names_another_model_is_refused(folder):
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/evil"}')
    assert "holds an adapter (adapter_config.json), which is not read here" in refusal(folder)


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_pickled_weights_are_refused(folder, tmp_path, component):
    path = weights(folder, component)
    torch.save({"weight": Malicious(tmp_path / "trace")}, path.with_name("diffusion_pytorch_model.bin"))
    shutil.copy(path.with_name("diffusion_pytorch_model.bin"), path.with_name("pytorch_model.bin"))
    path.unlink()
    assert f"{component} holds no .safetensors file" in refusal(folder)
    assert "no .safetensors" in refusal(folder, use_safetensors=False)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_missing_misshapen_or_left_over_parameter_is_named(folder, component):
    path = weights(folder, component)
    tensors = load_file(path)
    first, *rest = sorted(tensors)
    for kept, said in (
        ({name: tensors[name] for name in rest}, f"{component} lacks {first}"),
        (tensors | {first: torch.zeros(7, 7)}, f"{component} has in other shapes {first}"),
        (tensors | {"strange.weight": torch.zeros(1)}, f"{component} has and shouldn't have strange.weight"),
    ):
        save_file(kept, path, metadata={"format": "pt"})
        assert said in refusal(folder)


def test_a_weights_file_cut_short_is_said_to_be(folder):
    os.truncate(weights(folder, "unet"), 5000)
    assert "diffusion_pytorch_model.safetensors is cut short: 5,000 bytes" in refusal(folder)


def test_an_index_may_name_files_beside_it_only(folder):
    path = weights(folder, "unet")
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    part = path.rename(path.with_name("part.safetensors"))
    names = load_file(part)
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "part.safetensors")}))
    assert DynamiCrafterPipeline.from_pretrained(folder).unet.config.block_out_channels == [32, 64]
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "../unet/part.safetensors")}))
    assert "index.json must name files beside it" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("unet/config.json", {"block_out_channels": "wide"}),
        ("text_encoder/config.json", {"hidden_act": "evil"}),
        ("scheduler/scheduler_config.json", {"beta_start": "low"}),
        ("vae/config.json", {"down_block_types": ["Evil"] * 4}),
    ],
)
def test_settings_that_no_network_can_be_built_from_are_one_line(folder, file, settings):
    change(folder / file, **settings)
    assert f"{file} holds settings that don't work" in refusal(folder)


def test_files_that_are_missing_or_no_json_are_named(folder):
    (folder / "vae" / "config.json").write_text("{")
    assert "vae/config.json can't be read" in refusal(folder)
    (folder / "vae" / "config.json").write_text("[]")
    assert "vae/config.json holds no JSON object" in refusal(folder)
    (folder / "vae" / "config.json").unlink()
    assert "vae has no config.json" in refusal(folder)


@pytest.mark.parametrize("preset", [None, "512", {"name": "512"}, [1]])
def test_an_unreadable_preset_is_one_line(folder, preset):
    change(folder / "model_index.json", preset=preset)
    assert "the folder's preset can't be read" in refusal(folder, InputError)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("steps", "many", "a whole number"),
        ("height", 3.5, "a whole number"),
        ("prediction", "x", "one of epsilon, v_prediction, sample"),
        ("eta", None, "a number"),
        ("interpolates", 1, "true or false"),
    ],
)
def test_a_preset_of_wrong_types_is_one_line(folder, field, value, rule):
    preset = json.loads((folder / "model_index.json").read_text())["preset"]
    change(folder / "model_index.json", preset=preset | {field: value})
    wanted = f"the folder's preset can't be read ({field} must be {rule}, got {value!r}); convert"
    assert wanted in refusal(folder, InputError)


def test_a_component_that_the_caller_brings_is_not_looked_for(folder):
    ours = pipeline("tiny512")
    shutil.rmtree(folder / "unet")
    assert DynamiCrafterPipeline.from_pretrained(folder, unet=ours.unet).unet is ours.unet


def test_a_variant_of_the_weights_can_be_asked_for(folder):
    for component in COMPONENTS:
        path = weights(folder, component)
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert DynamiCrafterPipeline.from_pretrained(folder, variant="fp16").preset.name == "512"
    assert "holds no .safetensors file" in refusal(folder)
    assert "holds no bf16 .safetensors file" in refusal(folder, variant="bf16")


def test_names_of_parameters_as_older_libraries_write_them_are_read(folder):
    for component, prefix in (("text_encoder", "text_model."), ("image_encoder", "vision_model.")):
        path = weights(folder, component)
        save_file({prefix + name: t for name, t in load_file(path).items()}, path, metadata={"format": "pt"})
    loaded, ours = DynamiCrafterPipeline.from_pretrained(folder), pipeline("tiny512")
    for component in ("text_encoder", "image_encoder"):
        theirs, mine = (getattr(pipe, component).state_dict() for pipe in (loaded, ours))
        assert all(torch.equal(theirs[name], tensor) for name, tensor in mine.items())
