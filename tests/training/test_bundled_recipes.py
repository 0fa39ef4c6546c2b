"""Fine-tuning the small model by its recipes: what they resolve to, and that they run on clips of one's own."""

from dataclasses import replace

import numpy as np
import pytest

from dynamicrafter.cli.main import main
from dynamicrafter.data.dataset import open_dataset
from dynamicrafter.media.video import write_clip
from dynamicrafter.training.config import check
from dynamicrafter.training.recipes import get_recipe
from training_runs import losses

RECIPES = ("finetune-bundled", "lora-bundled")
SMALL = (
    *("--model", "seeded:tiny", "--steps", "2", "--device", "cpu", "--tracker", "none", "--precision", "float32"),
    *("--set", "data.size=[64, 64]", "--set", "data.num_frames=4"),
)


@pytest.fixture
def clips(tmp_path):
    """Two clips of 16 frames, 12 a second, with captions."""
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        write_clip(
            tmp_path / f"{name}.mp4", draw.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8), fps=12, metadata={}
        )
        (tmp_path / f"{name}.txt").write_text("swoosh", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("recipe", RECIPES)
def test_they_take_the_small_model_and_its_size(recipe):
    config = get_recipe(recipe).make()
    check(config)
    assert (config.model, config.data.size) == ("bundled", (128, 128))
    assert (config.trains == "lora") == recipe.startswith("lora")


def test_a_clips_own_rate_is_its_motion_number(clips):
    data = replace(get_recipe("lora-bundled").make().data, path=clips)
    assert {open_dataset(data, motion_unit="frames per second").draw(place).motion for place in range(6)} == {12.0}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("ends", ["0.0", "1.0"])
def test_they_train_on_a_folder_of_clips_for_both_tasks(clips, capsys, recipe, ends):
    output = clips / "run"
    words = ["train", recipe, "--data", str(clips), "-o", str(output), *SMALL, "--set", f"objective.ends={ends}"]
    assert main(words) == 0
    assert len(losses(output)) == 2
    written = capsys.readouterr().out.strip()
    assert written.endswith("pytorch_lora_weights.safetensors") == recipe.startswith("lora")
