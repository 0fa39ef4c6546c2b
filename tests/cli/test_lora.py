"""`--lora`: adapters on the command line, in what a clip says of itself, and in its repetition."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dynamicrafter import Animator
from dynamicrafter.checkpoints.files import fingerprint
from dynamicrafter.media.video import read_metadata, write_clip
from dynamicrafter.pipeline.lora import WEIGHTS, write_lora

TINY = ("--model", "seeded:tiny", "--steps", "2", "--frames", "4", "--dtype", "float32")
load_afresh = Animator.from_pretrained


def write_adapters(path, *, seed, width=32):
    """Adapters that change much, on two modules of the small UNet."""
    path.parent.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in ("down.0.units.0.temporal.attention1.to_v", "up.1.units.1.spatial.self_attention.to_out"):
        tensors[f"unet.{module}.lora_A.weight"] = torch.randn(4, width, generator=generator)
        tensors[f"unet.{module}.lora_B.weight"] = torch.randn(width, 4, generator=generator)
    write_lora(path, tensors, rank=4, alpha=4.0)
    return path


@pytest.fixture
def cli(cli, monkeypatch):
    """The command with models that are loaded each time, as files of one name differ."""
    monkeypatch.setattr(Animator, "from_pretrained", load_afresh)
    return cli


@pytest.fixture
def adapters(tmp_path):
    return write_adapters(tmp_path / "mine.safetensors", seed=1)


@pytest.fixture
def clip(cli, photo, adapters):
    done = cli("animate", "photo.png", "-o", "clip.npy", *TINY, "--lora", "mine.safetensors:0.5")
    assert done.code == 0, done.err
    return adapters.parent / "clip.npy"


def made(cli, *words):
    done = cli("animate", "photo.png", "-o", "made.npy", *TINY, *words)
    assert done.code == 0, done.err
    return np.load("made.npy")


def rewritten(clip, **changes):
    """The clip with other metadata, as anyone could write it."""
    write_clip("forged.npy", np.load(clip), fps=8, metadata=read_metadata(clip) | changes)
    return "forged.npy"


def test_adapters_change_the_clip_by_their_scale(cli, photo, adapters):
    plain, whole, off = made(cli), made(cli, "--lora", adapters), made(cli, "--lora", f"{adapters}:0")
    half = made(cli, "--lora", f"{adapters}:0.5")
    assert not np.array_equal(whole, plain)
    assert not np.array_equal(half, whole)
    assert not np.array_equal(half, plain)
    np.testing.assert_array_equal(off, plain)


def test_several_files_work_together_and_a_folder_stands_for_the_file_in_it(cli, photo, adapters, tmp_path):
    other = write_adapters(tmp_path / "other" / WEIGHTS, seed=2)
    both = made(cli, "--lora", f"{adapters}:1.0", "--lora", other.parent)
    assert read_metadata("made.npy")["lora"] == [
        {"path": str(adapters), "scale": 1.0, "hash": fingerprint(adapters)},
        {"path": str(other.parent), "scale": 1.0, "hash": fingerprint(other)},
    ]
    for alone in (adapters, other):
        assert not np.array_equal(both, made(cli, "--lora", alone))


@pytest.mark.parametrize(("command", "words"), [("interpolate", ["photo.png", "other.png"]), ("loop", ["photo.png"])])
def test_the_other_commands_take_adapters_too(cli, photo, other_photo, adapters, command, words):
    assert cli(command, *words, "-o", "clip.npy", *TINY, "--lora", adapters).code == 0
    assert [kept["path"] for kept in read_metadata("clip.npy")["lora"]] == [str(adapters)]


def test_a_clip_without_adapters_says_so(cli, photo):
    made(cli)
    assert read_metadata("made.npy")["lora"] == []


def test_like_repeats_adapters_and_their_scale(cli, clip):
    done = cli("animate", "--like", clip, "-o", "again.npy")
    assert (done.code, "warning" in done.err) == (0, False)
    np.testing.assert_array_equal(np.load("again.npy"), np.load(clip))
    assert read_metadata("again.npy") == read_metadata(clip)


def test_adapters_that_are_given_replace_those_of_like(cli, clip, tmp_path):
    other = write_adapters(tmp_path / "other.safetensors", seed=2)
    assert cli("animate", "--like", clip, "-o", "new.npy", "--lora", other).code == 0
    assert [kept["path"] for kept in read_metadata("new.npy")["lora"]] == [str(other)]
    assert cli("animate", "--like", clip, "-o", "bare.npy", "--lora", "none").code == 0
    assert read_metadata("bare.npy")["lora"] == []


def test_like_warns_of_other_adapters_of_that_name(cli, clip, adapters):
    then = fingerprint(adapters)
    write_adapters(adapters, seed=3)
    done = cli("animate", "--like", clip, "-o", "again.npy")
    assert done.code == 0
    [warning] = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert f"the adapters mine.safetensors changed from {then} to {fingerprint(adapters)}" in warning


def test_like_finds_adapters_beside_the_clip_and_the_right_ones_first(cli, clip, adapters, monkeypatch):
    elsewhere = clip.parent / "elsewhere"
    elsewhere.mkdir()
    write_adapters(elsewhere / "mine.safetensors", seed=3)
    monkeypatch.chdir(elsewhere)
    done = cli("animate", "--like", clip, "-o", "again.npy")
    assert (done.code, "warning" in done.err) == (0, False)
    np.testing.assert_array_equal(np.load("again.npy"), np.load(clip))


@pytest.mark.parametrize(
    "path", ["gone.safetensors", "/dev/zero", "/etc", "~nobody-here/x", "no\0name", "x" * 5000, ""]
)
def test_adapters_that_are_gone_or_forged_end_in_one_line(cli, clip, path):
    forged = rewritten(clip, lora=[{"path": path, "scale": 1.0, "hash": ""}])
    done = cli("animate", "--like", forged, "-o", "again.npy")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "which are not there; name them with --lora FILE:SCALE" in done.err


@pytest.mark.parametrize("lora", [None, "mine", [{}], [{"path": "mine.safetensors", "scale": 10**400, "hash": ""}]])
def test_forged_entries_end_in_one_line(cli, clip, lora):
    done = cli("animate", "--like", rewritten(clip, lora=lora), "-o", "again.npy")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "can't be repeated" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lora", "gone.safetensors"], "lora gone.safetensors is not there; name a .safetensors file of adapters."),
        (["--lora", "gone.safetensors:0.5"], "lora gone.safetensors is not there"),
        (["--lora", "mine.safetensors:much"], "lora's scale must be a number, got 'much'; write FILE:SCALE"),
        (["--lora", "mine.safetensors:nan"], "lora's scale must be between -10 and 10, got nan; try 1."),
        (["--lora", "mine.safetensors:11"], "lora's scale must be between -10 and 10, got 11.0; try 1."),
        (["--lora", ""], "lora must not be empty; name a .safetensors file of adapters."),
        (["--lora", "photo.png"], "photo.png can't be read as adapters"),
        (["--lora", "strange.safetensors"], "holds conv.weight, where adapters of a DynamiCrafter UNet are expected."),
    ],
)
def test_what_can_be_seen_to_be_wrong_ends_in_one_line_before_a_model_is_loaded(
    cli, photo, adapters, monkeypatch, words, said
):
    save_file({"conv.weight": torch.ones(2, 2)}, "strange.safetensors")

    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Animator, "from_pretrained", refuse)
    done = cli("animate", photo, "-o", "made.npy", *TINY, *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


def test_adapters_of_another_model_end_in_one_line(cli, photo, tmp_path):
    wide = write_adapters(tmp_path / "wide.safetensors", seed=1, width=48)
    done = cli("animate", photo, "-o", "made.npy", *TINY, "--lora", wide)
    assert (done.code, done.out) == (2, "")
    [error] = done.errors
    assert "it was made for another model" in error


def test_a_name_may_hold_colons(cli, photo, tmp_path):
    odd = write_adapters(tmp_path / "a:0.5", seed=1)
    made(cli, "--lora", odd)
    assert read_metadata("made.npy")["lora"][0]["scale"] == 1.0


def test_adapters_are_not_for_clips_that_are_there(cli, clip, adapters):
    done = cli("evaluate", clip, "--lora", adapters)
    assert (done.code, done.errors) == (
        2,
        ["error: lora changes the clips of a --suite, and none that are there; leave it out."],
    )


def test_inspect_says_which_layers_are_adapted_at_which_rank_and_scale(cli, adapters):
    done = cli("inspect", adapters)
    assert done.code == 0
    said = done.out.splitlines()
    assert said[0].endswith("adapters (LoRA), which go on a model with --lora")
    assert "rank         4" in done.out
    assert "scale        1 " in done.out
    told = json.loads(cli("inspect", adapters, "--json").out)["layers"]
    assert {(layer["rank"], layer["scale"]) for layer in told.values()} == {(4, 1.0)}
