import pytest
import torch

import own_size
from checkpoint_files import write_flat, write_lightning, write_safetensors
from dynamicrafter.checkpoints.files import open_tensors
from published_files import pruned, published


@pytest.fixture
def file(tmp_path):
    return write_lightning(tmp_path / "weights.ckpt", published("tiny512"))


def test_there_and_back_prints_each_path(cli, file):
    there = cli("convert", file, "folder", "--preset", "512")
    assert (there.code, there.out, there.err) == (0, "folder\n", f"Converting {file}…\n")
    back = cli("convert", "folder", "back.safetensors")
    assert (back.code, back.out, back.err) == (0, "back.safetensors\n", "Converting folder…\n")
    with open_tensors("back.safetensors") as tensors:
        assert {key: tensors[key].shape for key in tensors} == {k: t.shape for k, t in published("tiny512").items()}


def test_dtype_casts(cli, file):
    assert cli("convert", file, "half.safetensors", "--dtype", "bfloat16").code == 0
    with open_tensors("half.safetensors") as tensors:
        assert tensors["model.diffusion_model.out.2.bias"].dtype == torch.bfloat16


def test_what_a_trained_folder_lacks_is_a_warning(cli, file, tmp_path):
    cli("convert", file, "folder", "--preset", "512")
    (tmp_path / "folder" / "published_extras.safetensors").unlink()
    done = cli("convert", "folder", "back.ckpt")
    assert done.code == 0
    said = done.err.splitlines()
    assert len(said) == 2
    assert said[1].startswith("warning: folder lacks 17 tensors that no network reads")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["weights.ckpt", "folder"], "weights.ckpt fits the presets 512 and 512_interp"),
        (["weights.ckpt", "folder", "--preset", "1024"], "preset 1024 does not fit weights.ckpt"),
        (["weights.ckpt", "x.ckpt", "--dtype", "int8"], "dtype must be one of float32, bfloat16, float16, got 'int8'."),
        (["weights.ckpt", "taken.ckpt"], "taken.ckpt is a file and is not replaced;"),
        (["none.ckpt", "folder"], "model none.ckpt is a path to nothing"),
        (["pruned.safetensors", "folder"], "the encoders (laion/CLIP-ViT-H-14"),
        (["lora.ckpt", "folder"], "lora.ckpt is not a DynamiCrafter checkpoint"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing_behind(cli, file, tmp_path, words, line):
    write_safetensors(tmp_path / "pruned.safetensors", pruned("tiny512"))
    write_flat(tmp_path / "lora.ckpt", {"lora_unet.lora_up.weight": torch.ones(2)})
    (tmp_path / "taken.ckpt").touch()
    before = sorted(path.name for path in tmp_path.iterdir())
    done = cli("convert", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith(f"error: {line}")
    assert done.err.splitlines()[:-1] in ([], [f"Converting {words[0]}…"])
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_model_of_a_size_of_its_own_stays_a_folder(cli, tmp_path):
    own_size.pipeline().save_pretrained(tmp_path / "own")
    assert cli("convert", "own", "own.ckpt").errors == [
        "error: own.ckpt can't be written: the published layout has no names for a model of this size; use a folder in "
        "diffusers' layout, which every command here loads."
    ]
    assert cli("convert", "own", "again").errors == [
        "error: own is a folder in diffusers' layout already; name a --dtype to write it in, or a target that ends in "
        ".safetensors or .ckpt, got again."
    ]
    half = cli("convert", "own", "half", "--dtype", "float16")
    assert (half.code, half.out, half.err) == (0, "half\n", "Converting own…\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "own"]
