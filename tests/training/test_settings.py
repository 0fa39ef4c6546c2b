"""Settings: what a file may say, and what is wrong with the rest."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.training.config import (
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    Stage,
    TrainConfig,
    check,
    lr_factor,
    stage_of,
)
from dynamicrafter.training.recipes import get_recipe, recipes
from dynamicrafter.training.settings import flatten, from_mapping, read_yaml, set_by_path, to_plain


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 7\noptimizer:\n  lr: 3e-5\n  betas: [0.8, 0.9]\ndata:\n  path: clips\n  size: [64, 128]\n")
    base = get_recipe("finetune-512").make()
    changed = from_mapping(base, read_yaml(file))
    assert (changed.steps, changed.optimizer.lr, changed.optimizer.betas) == (7, 3e-5, (0.8, 0.9))
    assert (changed.data.path, changed.data.size) == (Path("clips"), (64, 128))
    before = dict(flatten(to_plain(base)))
    after = dict(flatten(to_plain(changed)))
    names = {name for name in before if before[name] != after[name]}
    assert names == {"steps", "optimizer.lr", "optimizer.betas", "data.path", "data.size"}


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_is_in_range_and_survives_yaml_and_json(recipe):
    config = recipes()[recipe].make()
    check(config)
    assert from_mapping(TrainConfig(), json.loads(json.dumps(to_plain(config)))) == config


def test_recipes_are_as_published():
    full = recipes()["finetune-512"].make()
    assert (full.batch_size, full.accumulation, full.steps) == (2, 2, 100_000)
    assert (full.optimizer.lr, full.optimizer.clip_norm, full.objective.drop) == (1e-5, 0.5, 0.05)
    assert recipes()["finetune-1024"].make().batch_size == 1
    assert recipes()["finetune-interp"].make().objective.ends == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stpes": 3}, "stpes is no setting; did you mean steps?"),
        ({"optimizer": {"momentun": 1}}, "optimizer.momentun is no setting; did you mean optimizer.momentum?"),
        ({"steps": "many"}, "steps must be a whole number, got 'many'"),
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"steps": 1.5}, "steps must be a whole number, got 1.5"),
        ({"gradient_checkpointing": 2}, "gradient_checkpointing must be true or false, got 2"),
        ({"trains": "sptial"}, "trains must be one of all, spatial"),
        ({"optimizer": 3}, "optimizer must be settings as `key: value`, got 3"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas must be a list of 2 values, each a number, got [0.9]"),
        ({"stages": [{"lr_factor": 1.0}]}, "stages[0].clips is missing"),
        ({"stages": [{"clips": 3, "clisp": 4}]}, "stages[0].clisp is no setting"),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(values, said):
    with pytest.raises(InputError) as error:
        from_mapping(TrainConfig(), values)
    assert said in str(error.value)


def test_yaml_runs_nothing_and_names_the_line(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("steps: 3\nmodel: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="line 2"):
        read_yaml(file)
    file.write_text("- 1\n")
    with pytest.raises(InputError, match="must hold settings"):
        read_yaml(file)


def test_stages_follow_one_another_in_clips_and_the_last_one_lasts():
    config = from_mapping(
        TrainConfig(), {"stages": [{"clips": 4, "lr_factor": 2}, {"clips": 2, "motions": [["zoom in", 2]]}]}
    )
    assert config.stages == (Stage(clips=4, lr_factor=2.0), Stage(clips=2, motions=(("zoom in", 2.0),)))
    assert [stage_of(config, position) for position in (0, 3, 4, 99)] == [config.stages[n] for n in (0, 0, 1, 1)]
    assert [lr_factor(config, 0, position=position) for position in (3, 4)] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        (ScheduleConfig(warmup=10), 0, 0.1),
        (ScheduleConfig(warmup=10), 9, 1.0),
        (ScheduleConfig(warmup=10, decay="cosine"), 10, 1.0),
        (ScheduleConfig(warmup=10, decay="cosine"), 55, 0.5),
        (ScheduleConfig(decay="cosine", floor=0.2), 100, 0.2),
        (ScheduleConfig(decay="linear", decay_from=0.5), 50, 1.0),
        (ScheduleConfig(decay="linear", decay_from=0.5), 75, 0.5),
        (ScheduleConfig(), 99, 1.0),
    ],
)
def test_the_learning_rate_rises_and_falls_as_scheduled(schedule, step, factor):
    config = TrainConfig(steps=100, schedule=schedule)
    assert lr_factor(config, step, position=0) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"objective": ObjectiveConfig(drop=0.4)}, "objective.drop"),
        ({"optimizer": OptimizerConfig(lr=0)}, "optimizer.lr must be above 0"),
        ({"optimizer": OptimizerConfig(lr=float("nan"))}, "optimizer.lr"),
        ({"ema": 1.0}, "ema must be above 0 and below 1"),
        ({"trains": "everything_and_encoders", "cache": Path("cache")}, "cache holds what frozen encoders answered"),
        ({"trains": "lora", "sharding": "fsdp2"}, "sharding fsdp2 is for full fine-tuning"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes, said):
    with pytest.raises(InputError) as error:
        check(replace(TrainConfig(), **changes))
    assert said in str(error.value)


def test_a_setting_by_its_path():
    assert set_by_path(TrainConfig(), "lora.rank", 4).lora.rank == 4


def test_settings_and_recipes_need_no_torch():
    code = "import sys, dynamicrafter.training.recipes, dynamicrafter.cli.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
