import json
import re

import pytest
import torch

import own_size
from checkpoint_files import write_deepspeed, write_flat, write_lightning, write_safetensors
from dynamicrafter.memory import counting
from published_files import pruned, published

RUN = ("--size", "64x64", "--device", "cpu", "--dtype", "float32")


_count = counting.estimate_run
_counted: dict[str, counting.RunEstimate] = {}


@pytest.fixture(autouse=True)
def _counted_once(monkeypatch):
    """What a clip costs is tested elsewhere, and takes a second to count."""

    def remembered(networks, **settings):
        asked = f"{[network.config for network in networks.values()]} {settings}"
        if asked not in _counted:
            _counted[asked] = _count(networks, **settings)
        return _counted[asked]

    monkeypatch.setattr(counting, "estimate_run", remembered)


@pytest.fixture
def file(tmp_path):
    return write_lightning(tmp_path / "weights.ckpt", published("tiny512"))


def report(done):
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_a_file_is_described_though_only_the_user_can_tell_its_preset(cli, file):
    done = cli("inspect", file, *RUN)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{file}: {file}, a Lightning checkpoint\n")
    assert "512 or 512_interp, whose files are alike in every key; --preset says which" in done.out
    assert re.search(r"unet +2\.2 M\n", done.out)
    assert re.search(r"image_encoder +0\.2 M +1\.6 M\n", done.out)
    assert "every tensor that the networks need is there, in its shape" in done.out
    assert "A clip of 16 frames at 64x64 (preset 512, 50 steps of 2 passes) in float32 on cpu" in done.out
    assert re.search(r"\n  fits +into the [\d.]+ GB of this machine\n$", done.out)


def test_parameters_are_counted_apart_from_what_nothing_reads(cli, file):
    parts = {part["component"]: part for part in report(cli("inspect", file, *RUN, "--json"))["weights"]["parts"]}
    tensors = published("tiny512")
    for component, prefix in (
        ("unet", "model.diffusion_model."),
        ("image_projector", "image_proj_model."),
        ("vae", "first_stage_model."),
        ("text_encoder", "cond_stage_model."),
        ("image_encoder", "embedder."),
    ):
        total = sum(tensor.numel() for key, tensor in tensors.items() if key.startswith(prefix))
        assert parts[component]["parameters"] + parts[component]["unread"] == total
    last = sum(t.numel() for k, t in tensors.items() if k.startswith("cond_stage_model.model.transformer.resblocks.2."))
    assert parts["text_encoder"]["unread"] == last + 32 * 32 + 1
    assert parts["unet"]["unread"] == 0


@pytest.mark.parametrize(
    ("write", "golden", "layout", "preset"),
    [
        (write_deepspeed, "tiny256", "a DeepSpeed checkpoint", "256"),
        (write_flat, "tiny1024", "a flat state dict", "1024"),
        (write_safetensors, "tiny1024", "a safetensors file", "1024"),
    ],
)
def test_layout_and_preset_are_told(cli, tmp_path, write, golden, layout, preset):
    path = write(tmp_path / "weights", published(golden))
    found = report(cli("inspect", path, *RUN, "--json"))
    assert found["where"] == f"{path}, {layout}"
    assert (found["presets"], found["run"]["preset"]) == ([preset], preset)


def test_the_file_name_or_the_user_settles_what_the_file_leaves_open(cli, file, tmp_path):
    assert report(cli("inspect", file, *RUN, "--preset", "interp", "--json"))["run"]["preset"] == "512_interp"
    named = file.rename(tmp_path / "dynamicrafter_512_interp.ckpt")
    assert report(cli("inspect", named, *RUN, "--json"))["presets"] == ["512_interp"]
    assert cli("inspect", named, *RUN, "--preset", "1024").errors == [
        "error: preset 1024 does not fit: the weights say 512_interp; leave it out."
    ]


def test_a_pruned_file_lacks_its_encoders_and_nothing_else(cli, tmp_path):
    path = write_safetensors(tmp_path / "dynamicrafter_512.safetensors", pruned("tiny512"))
    done = cli("inspect", path, *RUN)
    assert "lacks        text_encoder and image_encoder, which --encoders or --download supplies" in done.out
    assert "there, in its shape, encoders apart" in done.out
    assert "dtype        float16" in done.out


def test_a_misfit_is_listed_by_kind(cli, tmp_path):
    tensors = dict(published("tiny1024")) | {
        "surplus": torch.ones(1),
        "model.diffusion_model.out.2.bias": torch.ones(9),
    }
    removed = [key for key in tensors if key.startswith("image_proj_model.")]
    path = write_flat(tmp_path / "weights.ckpt", {k: t for k, t in tensors.items() if k not in removed})
    done = cli("inspect", path, *RUN)
    assert done.code == 0
    assert f"missing      {len(removed)}: image_proj_model." in done.out
    assert f"and {len(removed) - 6} more\n" in done.out
    assert "unexpected   1: surplus\n" in done.out
    assert "misshapen    1: model.diffusion_model.out.2.bias: (9,) instead of (4,)\n" in done.out
    assert "every tensor" not in done.out


def test_a_rescale_of_no_preset_is_said_not_refused(cli, tmp_path):
    tensors = published("tiny512") | {"scale_arr": torch.full((1400,), 0.5)}
    done = cli("inspect", write_flat(tmp_path / "weights.ckpt", tensors), *RUN)
    assert "preset       unknown: its latent rescale is no released checkpoint's" in done.out


def test_a_folder_is_described_like_its_file(cli, file):
    cli("convert", file, "folder", "--preset", "512")
    folder, single = (report(cli("inspect", name, *RUN, "--json")) for name in ("folder", file))
    assert folder["presets"] == ["512"]
    assert folder["weights"]["parts"] == single["weights"]["parts"]


def test_seeded_weights_are_described_at_their_own_size(cli):
    done = cli("inspect", "seeded:tiny")
    assert done.out.startswith("seeded:tiny: drawn from their names\n  preset       512\n")
    assert "16 frames at 64x64" in done.out


def test_a_preset_that_is_not_here_still_tells_its_cost(cli):
    done = cli("inspect", "256", "--device", "cpu", "--dtype", "bfloat16", "--steps", "10", "--frames", "8")
    assert done.code == 0
    assert done.out.startswith('256: not on this machine\n  "dynamicrafter download 256" fetches it\n')
    assert "A clip of 8 frames at 256x256 (preset 256, 10 steps of 2 passes) in bfloat16 on cpu" in done.out
    assert "weights 5.08 GB" in done.out


@pytest.mark.parametrize(
    ("size", "said"),
    [("6GB", "it would fit with --dtype bfloat16\n"), ("0.1GB", "nor does a smaller clip fit; use a larger one\n")],
)
def test_a_run_that_does_not_fit_is_told_what_would(cli, size, said):
    words = ("inspect", "256", "--frames", "2", "--device", "cpu", "--dtype", "float32", "--memory", size)
    budget = float(size.removesuffix("GB"))
    assert f"\n  too large    for the {budget:.2f} GB of --memory; {said}" in cli(*words).out
    found = report(cli(*words, "--json"))["run"]["estimate"]
    assert found["advice"] == ("--dtype bfloat16" if budget > 1 else None)
    assert (found["memory"]["budget"], found["memory"]["fits"]) == (budget * 10**9, False)


def test_what_makes_a_run_fit_is_told(cli):
    done = cli("inspect", "512", "--frames", "2", "--device", "cpu", "--dtype", "bfloat16", "--memory", "6GB")
    assert "\n  encoders     the encoders of prompt and picture leave once they are used\n" in done.out
    assert done.out.endswith("\n  fits         into the 6.00 GB of --memory\n")
    assert cli("inspect", "512", "--memory", "lots").errors == [
        "error: memory must be a size such as 24GB, got 'lots'."
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["none.ckpt"], "model none.ckpt is a path to nothing"),
        (["seeded:huge"], "model 'seeded:huge' must be one of"),
        (["seeded:tiny", "--size", "100x64"], "width must be a positive multiple of 64 pixels, got 100; try 128."),
        (["seeded:tiny", "--frames", "513"], "frames must be between 1 and 512, got 513; try 512."),
        (["seeded:tiny", "--dtype", "int8"], "dtype must be one of"),
        (["seeded:tiny", "--device", "tpu"], "device must be"),
        (["lora.ckpt"], "lora.ckpt is not a DynamiCrafter checkpoint: "),
    ],
)
def test_mistakes_end_in_one_line(cli, tmp_path, words, line):
    write_flat(tmp_path / "lora.ckpt", {"lora_unet.lora_up.weight": torch.ones(2)})
    done = cli("inspect", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {line}")


def test_a_folder_of_a_size_of_its_own_is_described_with_what_it_was_made_for(cli, tmp_path):
    own_size.pipeline().save_pretrained(tmp_path / "own")
    done = cli("inspect", "own", "--device", "cpu", "--dtype", "float32")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("own: own, folder in diffusers' layout\n  preset       bundled\n")
    assert "\n  answers      the clean clip (x₀)\n" in done.out
    assert (
        "\n  made for     64x64 in 2 steps, motion 8 to 24 (frames per second), interpolation and loops too\n"
        in done.out
    )
    assert re.search(r"\n    vae +0\.01 M +0\.0 MB\n", done.out)
    assert re.search(r"\n    together +\d\.\d\d M +[\d.]+ MB\n", done.out)
    assert "16 frames at 64x64 (preset bundled, 2 steps of 1 pass) in float32 on cpu" in done.out
    assert re.search(r"\n  arithmetic   [\d.]+ GFLOP: encoding ", done.out)
    found = report(cli("inspect", "own", "--json", "--device", "cpu", "--dtype", "float32", "--size", "128x64"))
    assert (found["presets"], found["weights"]["architecture"]) == (["bundled"], None)
    assert found["run"]["size"] == [64, 128]
    assert cli("inspect", "own", "--preset", "512").errors == [
        "error: preset 512 does not fit: the weights say bundled; leave it out."
    ]
