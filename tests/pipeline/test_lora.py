"""Adapters as other tools write them, and diffusers' calls for them."""

import copy
import json
from collections.abc import Mapping

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dynamicrafter import DynamiCrafterPipeline
from dynamicrafter.errors import CheckpointError, InputError
from dynamicrafter.pipeline.lora import WEIGHTS, lora_state
from tiny import network, unet_inputs

LINEAR = (
    "down.0.units.0.temporal.attention1.to_v",
    "up.1.units.1.spatial.self_attention.to_out",
    "middle.spatial.proj_in",
)
CONVOLUTIONS = ("conv_in", "middle.residual.conv1", "down.0.units.0.residual.temporal.convs.1", "up.0.resize.conv")
RANKS = {"r": 4, "lora_alpha": 8.0}
UNEQUAL = RANKS | {
    "rank_pattern": {LINEAR[0]: 2, "self_attention.to_out": 6},
    "alpha_pattern": {LINEAR[0]: 3.0},
}


@pytest.fixture
def pipe():
    return DynamiCrafterPipeline.from_pretrained("seeded:tiny")


def answer(unet):
    with torch.no_grad():
        return unet(**unet_inputs(batch=1, frames=3))


def plain():
    return answer(network("unet", "tiny512"))


def trained(modules=LINEAR, **settings):
    """PEFT's own model of the UNet, with adapters that change much."""
    config = peft.LoraConfig(target_modules=list(modules), **(RANKS | settings))
    model = peft.get_peft_model(copy.deepcopy(network("unet", "tiny512")), config)
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
    return model


def state_of(model):
    """The adapters by the UNet's names of its layers."""
    state = peft.get_peft_model_state_dict(model)
    return {name.removeprefix("base_model.model."): tensor.contiguous() for name, tensor in state.items()}


def as_peft_folder(model, folder):
    model.save_pretrained(folder)
    return folder


def as_diffusers_file(model, folder):
    """By diffusers' own code."""
    settings = model.peft_config["default"].to_dict()
    DynamiCrafterPipeline.write_lora_layers(
        {f"unet.{name}": tensor for name, tensor in state_of(model).items()},
        save_directory=folder,
        is_main_process=True,
        weight_name=None,
        save_function=None,
        safe_serialization=True,
        lora_adapter_metadata={f"unet.{key}": value for key, value in settings.items()},
    )
    return folder


def as_kohya_file(model, folder, *, flat=True):
    tensors = {}
    for name, tensor in state_of(model).items():
        layer, _, part = name.partition(".lora_")
        called = f"lora_unet_{layer.replace('.', '_')}" if flat else f"unet.{layer}"
        tensors[f"{called}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = tensor
        alpha = next(m.lora_alpha["default"] for n, m in model.named_modules() if n.endswith(layer) and hasattr(m, "r"))
        tensors[f"{called}.alpha"] = torch.tensor(float(alpha))
    save_file(tensors, folder / "kohya.safetensors")
    return folder / "kohya.safetensors"


def as_down_and_up(model, folder):
    return as_kohya_file(model, folder, flat=False)


@pytest.mark.parametrize("settings", [RANKS, UNEQUAL], ids=["of one rank", "of several ranks"])
@pytest.mark.parametrize("write", [as_peft_folder, as_diffusers_file, as_kohya_file, as_down_and_up])
def test_adapters_of_every_tool_answer_as_pefts_own_model(pipe, tmp_path, write, settings):
    model = trained(**settings)
    pipe.load_lora_weights(write(model, tmp_path))
    want = answer(model)
    assert (want - plain()).abs().max() > 0.1
    torch.testing.assert_close(answer(pipe.unet), want, rtol=1e-5, atol=1e-5)


def test_stabilized_ranks_scale_as_in_peft(pipe, tmp_path):
    model = trained(use_rslora=True)
    pipe.load_lora_weights(as_peft_folder(model, tmp_path))
    torch.testing.assert_close(answer(pipe.unet), answer(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("write", [as_peft_folder, as_diffusers_file, as_kohya_file])
def test_convolutions_take_adapters_too(pipe, tmp_path, write):
    model = trained(modules=CONVOLUTIONS + LINEAR)
    pipe.load_lora_weights(write(model, tmp_path))
    want = answer(model)
    torch.testing.assert_close(answer(pipe.unet), want, rtol=1e-4, atol=1e-4)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    torch.testing.assert_close(answer(pipe.unet), want, rtol=1e-4, atol=1e-4)


def test_matrices_of_kernel_1_convolutions_fit_the_linear_layers_that_stand_for_them(pipe):
    state = state_of(trained())
    pipe.load_lora_weights({f"unet.{name}": tensor[:, :, None, None] for name, tensor in state.items()})
    torch.testing.assert_close(answer(pipe.unet), answer(trained(lora_alpha=4.0)), rtol=1e-5, atol=1e-5)


def test_half_precision_adapters_work_in_the_unets_own_format(pipe):
    pipe.load_lora_weights({f"unet.{name}": tensor.half() for name, tensor in state_of(trained()).items()})
    assert {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.float32}


def test_fused_and_unfused_without_arguments(pipe, tmp_path):
    pipe.load_lora_weights(as_peft_folder(trained(), tmp_path), adapter_name="mine")
    want = answer(pipe.unet)
    pipe.fuse_lora()
    assert pipe.fused_loras == {"mine"}
    torch.testing.assert_close(answer(pipe.unet), want, rtol=1e-5, atol=1e-5)
    pipe.unfuse_lora()
    assert pipe.num_fused_loras == 0
    pipe.unload_lora_weights()
    torch.testing.assert_close(answer(pipe.unet), plain(), rtol=1e-5, atol=1e-5)


def test_a_fused_model_is_saved_with_its_adapters_in_the_weights(pipe, tmp_path):
    pipe.load_lora_weights(as_peft_folder(trained(CONVOLUTIONS + LINEAR), tmp_path / "adapters"))
    pipe.fuse_lora()
    want = answer(pipe.unet)
    pipe.save_pretrained(tmp_path / "model")
    again = DynamiCrafterPipeline.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(answer(again.unet), want, rtol=1e-5, atol=1e-5)
    assert torch.equal(answer(pipe.unet), want)


def test_a_model_with_adapters_on_is_not_saved_as_something_else(pipe, tmp_path):
    pipe.load_lora_weights(as_peft_folder(trained(), tmp_path / "adapters"), adapter_name="mine")
    for save in (pipe.save_pretrained, pipe.unet.save_pretrained):
        with pytest.raises(InputError, match=r"can't be saved with adapters on \(mine\).*fuse_lora\(\) first"):
            save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    pipe.disable_lora()
    pipe.save_pretrained(tmp_path / "model")
    again = DynamiCrafterPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(answer(again.unet), plain())


def test_a_lazy_pipeline_takes_adapters(tmp_path):
    folder = as_peft_folder(trained(), tmp_path)
    lazy = DynamiCrafterPipeline.from_pretrained("seeded:tiny", lazy=True)
    lazy.load_lora_weights(folder)
    torch.testing.assert_close(answer(lazy.unet), answer(trained()), rtol=1e-5, atol=1e-5)


class Counting:
    """A backend of torch.compile that counts what it is given, and runs it as it is."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


def test_a_compiled_unet_takes_adapters_and_lets_them_go(pipe, tmp_path):
    folder = as_peft_folder(trained(), tmp_path)
    torch.compiler.reset()
    pipe.unet = torch.compile(pipe.unet, backend=Counting())
    torch.testing.assert_close(answer(pipe.unet), plain(), rtol=1e-5, atol=1e-5)
    pipe.load_lora_weights(folder, adapter_name="mine")
    torch.testing.assert_close(answer(pipe.unet), answer(trained()), rtol=1e-5, atol=1e-5)
    assert pipe.get_list_adapters() == {"unet": ["mine"]}
    pipe.set_adapters("mine", 0.0)
    torch.testing.assert_close(answer(pipe.unet), plain(), rtol=1e-5, atol=1e-5)
    pipe.unload_lora_weights()
    torch.testing.assert_close(answer(pipe.unet), plain(), rtol=1e-5, atol=1e-5)
    assert pipe.get_list_adapters() == {}
    assert isinstance(pipe.unet, torch._dynamo.OptimizedModule)


def test_adapters_swap_on_a_compiled_unet_without_another_compilation(pipe, tmp_path):
    first, second = trained(), trained(r=2, lora_alpha=5.0)
    one, two = as_peft_folder(first, tmp_path / "one"), as_peft_folder(second, tmp_path / "two")
    torch.compiler.reset()
    pipe.enable_lora_hotswap(target_rank=4)
    pipe.load_lora_weights(one, adapter_name="mine")
    backend = Counting()
    pipe.unet = torch.compile(pipe.unet, backend=backend)
    torch.testing.assert_close(answer(pipe.unet), answer(first), rtol=1e-5, atol=1e-5)
    compiled = backend.count
    assert compiled > 0
    pipe.load_lora_weights(two, adapter_name="mine", hotswap=True)
    torch.testing.assert_close(answer(pipe.unet), answer(second), rtol=1e-5, atol=1e-5)
    assert backend.count == compiled


def test_names_of_adapters_are_taken_once_and_swapped_only_where_they_are(pipe, tmp_path):
    folder = as_peft_folder(trained(), tmp_path)
    with pytest.raises(InputError, match="adapter_name mine must name adapters that are loaded"):
        pipe.load_lora_weights(folder, adapter_name="mine", hotswap=True)
    pipe.load_lora_weights(folder, adapter_name="mine")
    with pytest.raises(InputError, match="adapter_name mine is taken; choose another"):
        pipe.load_lora_weights(folder, adapter_name="mine")


def test_random_adapters_first_or_none_makes_no_difference(pipe, tmp_path):
    pipe.load_lora_weights(as_peft_folder(trained(), tmp_path), low_cpu_mem_usage=False)
    torch.testing.assert_close(answer(pipe.unet), answer(trained()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_adapters_are_saved_as_diffusers_saves_them_and_read_again(pipe, tmp_path, prefix):
    pipe.load_lora_weights(as_peft_folder(trained(**UNEQUAL), tmp_path / "peft"), adapter_name="mine")
    want = answer(pipe.unet)
    layers = {f"{prefix}{name.removeprefix('unet.')}": tensor for name, tensor in lora_state(pipe.unet).items()}
    settings = pipe.unet.peft_config["mine"].to_dict()
    DynamiCrafterPipeline.save_lora_weights(
        tmp_path / "saved", unet_lora_layers=layers, unet_lora_adapter_metadata=settings
    )
    again = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    again.load_lora_weights(tmp_path / "saved")
    torch.testing.assert_close(answer(again.unet), want, rtol=1e-5, atol=1e-5)
    # diffusers' own reading of the same file, on the network alone.
    theirs = DynamiCrafterPipeline.from_pretrained("seeded:tiny").unet
    theirs.load_lora_adapter(tmp_path / "saved", weight_name=WEIGHTS, prefix="unet")
    torch.testing.assert_close(answer(theirs), want, rtol=1e-5, atol=1e-5)


def test_what_diffusers_saves_of_the_network_alone_is_read_too(pipe, tmp_path):
    pipe.load_lora_weights(as_peft_folder(trained(**UNEQUAL), tmp_path / "peft"), adapter_name="mine")
    pipe.unet.save_lora_adapter(tmp_path / "saved", adapter_name="mine")
    again = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    again.load_lora_weights(tmp_path / "saved")
    torch.testing.assert_close(answer(again.unet), answer(pipe.unet), rtol=1e-5, atol=1e-5)


def test_saving_asks_for_adapters_writes_no_pickle_and_only_in_the_main_process(tmp_path):
    save = DynamiCrafterPipeline.save_lora_weights
    with pytest.raises(InputError, match="unet_lora_layers must hold adapters, got None"):
        save(tmp_path)
    with pytest.raises(InputError, match="safe_serialization must be True"):
        save(tmp_path, {"x": torch.ones(1)}, safe_serialization=False)
    save(tmp_path / "other", state_of(trained()), is_main_process=False)
    assert list(tmp_path.iterdir()) == []
    save(tmp_path, nn.Linear(2, 2, bias=False), weight_name="mine.safetensors")
    assert list(load_file(tmp_path / "mine.safetensors")) == ["unet.weight"]


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def beside(name, tensor):
    return lambda tensors: tensors | {name: tensor}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (beside(f"unet.{LINEAR[0]}.lora_magnitude_vector", torch.ones(32)), "holds DoRA, and only plain LoRA is read"),
        (renamed("lora_A", "lokr_w1"), "holds LoKr, and only plain LoRA"),
        (renamed("lora_A", "hada_w1_a"), "holds LoHa, and only plain LoRA"),
        (renamed("lora_B.weight", "lora_B.bias"), "holds adapters with biases"),
        (beside("text_encoder.x.lora_A.weight", torch.ones(4, 4)), r"adapts the text encoder too \(text_encoder.x"),
        (beside("lora_te_x.lora_down.weight", torch.ones(4, 4)), r"adapts the text encoder too \(lora_te_x"),
        (lambda tensors: dict(list(tensors.items())[1:]), "of which the file holds half"),
        (beside("unet.nowhere.alpha", torch.tensor(1.0)), "adapts nowhere, of which the file holds half"),
        (beside(f"unet.{LINEAR[0]}.alpha", torch.tensor(float("nan"))), "sets lora_alpha to nan, which is no number"),
        (lambda tensors: {}, "holds nothing, where adapters"),
        (renamed("temporal", "spacial"), "which this UNet lacks"),
    ],
)
def test_what_is_no_plain_adapter_is_refused_by_name(pipe, tmp_path, spoil, said):
    before = answer(pipe.unet)
    tensors = {f"unet.{name}": tensor for name, tensor in state_of(trained()).items()}
    save_file({name: tensor.clone() for name, tensor in spoil(tensors).items()}, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=said) as caught:
        pipe.load_lora_weights(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)
    assert torch.equal(answer(pipe.unet), before)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "holds DoRA"),
        ({"peft_type": "LOHA"}, "holds LOHA, and only plain LoRA"),
        ({"alpha_pattern": {".*to_v": 3.0}}, "sets alpha_pattern by regular expressions"),
        ({"alpha_pattern": [1]}, "sets alpha_pattern by regular expressions"),
        ({"lora_alpha": "8"}, "sets lora_alpha to '8', which is no number"),
        ([1, 2], "describes its adapters by something else than a JSON object"),
        ("{" * 50, "describes its adapters by something else than a JSON object"),
    ],
)
def test_settings_of_a_peft_folder_that_are_not_obeyed_are_refused(pipe, tmp_path, settings, said):
    folder = as_peft_folder(trained(), tmp_path)
    file = folder / "adapter_config.json"
    whole = json.loads(file.read_text()) | settings if isinstance(settings, Mapping) else settings
    file.write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match=said):
        pipe.load_lora_weights(folder)


def test_settings_that_are_no_json_are_refused(pipe, tmp_path):
    folder = as_peft_folder(trained(), tmp_path)
    (folder / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="can't be read as adapters"):
        pipe.load_lora_weights(folder)
