"""`dynamicrafter train` and `data cache`, as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dynamicrafter.cli.parsing import parse
from dynamicrafter.cli.train import TrainCommand, settings_of
from dynamicrafter.media.video import write_clip
from dynamicrafter.training.recipes import get_recipe, recipes
from training_runs import load_from_memory

SMALL = [
    *("--model", "seeded:tiny", "--device", "cpu", "--workers", 0, "--precision", "float32", "--tracker", "none"),
    *("--set", "data.size=[64, 64]", "--set", "data.num_frames=2", "--batch-size", 1, "--accumulation", 1),
    *("--set", "validation.steps=2"),
]


@pytest.fixture(autouse=True)
def _models_from_memory(monkeypatch):
    load_from_memory(monkeypatch)


@pytest.fixture
def clips(tmp_path):
    """A folder of two short clips with captions."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
        write_clip(folder / f"{number}.mp4", frames, fps=24, metadata={})
        (folder / f"{number}.txt").write_text(f"noise number {number}")
    return folder


def test_a_training_prints_its_model_which_animates(cli, clips, photo):
    trained = cli("train", "finetune-512", "--data", clips, "-o", "run", "--steps", 2, *SMALL)
    assert (trained.code, trained.out) == (0, "run/model\n")
    assert "Step 1/2, loss" in trained.err
    assert cli("animate", photo, "--model", "run/model", "--steps", 1, "-o", "clip.mp4").code == 0
    again = cli("train", "finetune-512", "--data", clips, "-o", "run", "--steps", 3, *SMALL)
    assert again.code == 0
    assert "Step 3/3" in again.err
    assert "Step 2/3" not in again.err


def test_it_says_from_where_it_goes_on_and_shows_the_model_before_and_after(cli, clips):
    words = ["train", "finetune-512", "--data", clips, "-o", "run", *SMALL]
    begun = cli(*words, "--steps", 2)
    assert "A new run, in run" in begun.err
    assert "in the mean of 2 steps" in begun.err
    assert "run/validation/before-after.png: from above, the data’s first clip, then before and after" in begun.err
    losses = [json.loads(line)["loss"] for line in Path("run/losses.jsonl").read_text().splitlines()]
    again = cli(*words, "--steps", 4)
    mean = f"loss {sum(losses) / 2:.4f} in the mean of 2 steps"
    assert f"Going on from run/checkpoints/step-00000002: 2 of 4 steps are done, {mean}" in again.err
    assert "in the mean of 4 steps" in again.err
    assert Path("run/validation/before-after.png").is_file()
    quiet = cli(*words, "--steps", 5, "--set", "validation.sheet=false")
    assert quiet.code == 0
    assert "before-after" not in quiet.err


def test_a_cache_trains_without_the_clips(cli, clips, tmp_path):
    filled = cli(
        "data", "cache", "lora-512", "--data", clips, "-o", "kept", "--device", "cpu", *SMALL[:2], *SMALL[10:14]
    )
    assert (filled.code, filled.out) == (0, "kept\n")
    for path in clips.iterdir():
        path.unlink()
    trained = cli("train", "lora-512", "--cache", "kept", "-o", "run", "--steps", 1, *SMALL)
    assert (trained.code, trained.out) == (0, "run/model/pytorch_lora_weights.safetensors\n")


def test_a_checkpoint_is_exported_later_in_the_published_layout(cli, clips):
    cli("train", "finetune-512", "--data", clips, "-o", "run", "--steps", 1, *SMALL)
    exported = cli("train", "finetune-512", "--data", clips, "-o", "run", *SMALL, "--export", "mine.safetensors")
    assert (exported.code, exported.out) == (0, "mine.safetensors\n")
    assert cli("inspect", "mine.safetensors").code == 0


def test_settings_come_from_recipe_file_and_flags_in_this_order(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 5\nseed: 6\nkeep: 7\n")
    words = ["lora-512", "--config", str(file), "--seed", "8", "--set", "keep=9", "--set", "lora.rank=3"]
    config = settings_of(parse(TrainCommand, words, prog="train"), get_recipe("lora-512"))
    assert (config.steps, config.seed, config.keep, config.lora.rank) == (5, 8, 9, 3)
    assert config.optimizer.lr == recipes()["lora-512"].make().optimizer.lr


def test_shown_settings_are_a_file_that_gives_them_again(cli, tmp_path):
    shown = cli("train", "lora-interp", "--show", "--lr", "3e-4")
    (tmp_path / "mine.yaml").write_text(shown.out)
    assert cli("train", "finetune-256", "--config", "mine.yaml", "--show").out == shown.out


def test_a_dry_run_shows_the_memory_and_trains_nothing(cli, tmp_path):
    shown = cli("train", "finetune-512", *SMALL, "--dry-run", "--memory", "24GB")
    assert shown.code == 0
    assert "optimiser (adamw)" in shown.out
    assert "It fits." in shown.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lora-513"], "recipe must be one of"),
        (["lora-512", "--set", "steps"], "--set takes KEY=VALUE"),
        (["lora-512", "--set", "stpes=3"], "did you mean steps?"),
        (["lora-512", "--trains", "sptial"], "trains must be one of"),
        (["lora-512", "--config", "none.yaml"], "config none.yaml can't be read"),
        (["lora-512", "--model", "seeded:tiny"], "data.path is missing"),
        (["lora-512", "--export", "x", "-o", "run"], "holds no checkpoint to export"),
        (["lora-512", "--dry-run", "--memory", "much"], "memory must be a size"),
    ],
)
def test_a_mistake_is_one_line(cli, words, said):
    outcome = cli("train", *words)
    assert outcome.code == 2
    assert len(outcome.errors) == 1
    assert said in outcome.errors[0]


def test_ctrl_c_writes_a_checkpoint_and_the_same_command_goes_on(clips, tmp_path):
    words = ["finetune-512", "--data", clips, "-o", "run", "--steps", 500, *SMALL]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it
    process = subprocess.Popen(
        [sys.executable, "-m", "dynamicrafter.cli", "train", *map(str, words)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    lines = tmp_path / "run" / "losses.jsonl"
    ends = time.monotonic() + 120
    while time.monotonic() < ends and not (lines.exists() and lines.read_bytes().count(b"\n") > 1):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    done = len(lines.read_text().splitlines())
    assert said.splitlines()[-1].startswith(f"stopped after step {done}; the same command goes on from run/checkpoints")
    assert "Traceback" not in said
    state = tmp_path / "run" / "checkpoints" / f"step-{done:08}" / "state.json"
    assert json.loads(state.read_text())["step"] == done
