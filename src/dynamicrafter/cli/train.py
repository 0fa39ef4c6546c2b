"""`train`: a recipe, what a file and flags change of it, and the run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from dynamicrafter.cli.commands import Switch
from dynamicrafter.cli.console import Stopped, hide_loading_bars, say, silence_libraries, time_in_words
from dynamicrafter.errors import InputError
from dynamicrafter.training.config import TrainConfig, check
from dynamicrafter.training.recipes import Recipe, build, get_recipe
from dynamicrafter.training.settings import from_mapping, parse_yaml, read_yaml, set_by_path, to_plain
from dynamicrafter.units import parse_memory

if TYPE_CHECKING:
    from dynamicrafter.training.loop import StepReport

_RECIPES = "(default: the recipe's)"
_PAUSE = 15.0  # seconds between two lines of progress where nobody watches
_MEAN_OF = 100  # steps, whose mean loss is shown
_BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {postfix}, {remaining} left"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainFlags:
    """Settings that are changed most; --set reaches all others."""

    model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_RECIPES)] = None
    """What to start from: a preset, folder, file or repository, or seeded:tiny to try it."""
    data: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """A CSV or JSONL file that lists clips, or a folder of videos with captions in .txt files beside them."""
    cache: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    """A folder that `data cache` filled, instead of clips."""
    output: Annotated[
        Path | None, arg(aliases=["-o"], metavar="FOLDER", help_behavior_hint="(default: the recipe's name)")
    ] = None
    """Where checkpoints, losses and the model go; a run that is there goes on."""
    photos: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Pictures for from-scratch to move, beside the sample photos."""
    steps: Annotated[int | None, arg(help_behavior_hint=_RECIPES)] = None
    """How many steps to take."""
    minutes: Annotated[float | None, arg(help_behavior_hint=_RECIPES)] = None
    """How long to train, instead of how many steps."""
    lr: Annotated[float | None, arg(help_behavior_hint=_RECIPES)] = None
    """Learning rate."""
    optimizer: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_RECIPES)] = None
    """adamw, adamw8bit (with bitsandbytes installed) or muon."""
    batch_size: Annotated[int | None, arg(help_behavior_hint=_RECIPES)] = None
    """Clips at a time on each process."""
    accumulation: Annotated[int | None, arg(help_behavior_hint=_RECIPES)] = None
    """How many times that make a step."""
    trains: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_RECIPES)] = None
    """all, spatial, temporal, projector, lora or everything_and_encoders."""
    rank: Annotated[int | None, arg(help_behavior_hint=_RECIPES)] = None
    """Of LoRA's adapters."""
    ema: Annotated[float | None, arg(help_behavior_hint=_RECIPES)] = None
    """How much of a running average of the weights stays at each step, such as 0.999."""
    precision: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_RECIPES)] = None
    """bfloat16 or float32."""
    sharding: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_RECIPES)] = None
    """none, or fsdp2 to share weights, gradients and optimiser among the processes of a launch."""
    device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_RECIPES)] = None
    """auto, cpu or cuda."""
    seed: Annotated[int | None, arg(help_behavior_hint=_RECIPES)] = None
    """Of all that chance decides."""
    workers: Annotated[int | None, arg(help_behavior_hint=_RECIPES)] = None
    """Processes that read clips; 0 for none of their own."""
    checkpoint_every: Annotated[int | None, arg(metavar="STEPS", help_behavior_hint=_RECIPES)] = None
    """Steps from checkpoint to checkpoint."""
    keep: Annotated[int | None, arg(help_behavior_hint=_RECIPES)] = None
    """How many checkpoints to keep."""
    validate_every: Annotated[int | None, arg(metavar="STEPS", help_behavior_hint=_RECIPES)] = None
    """Steps from validation clip to validation clip; 0 for none."""
    tracker: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=_RECIPES)] = None
    """tensorboard, another of Accelerate's (wandb, mlflow, …), or none."""


# Where a flag stands in the settings, if not under its own name.
_PATHS = {
    "data": "data.path",
    "lr": "optimizer.lr",
    "optimizer": "optimizer.name",
    "rank": "lora.rank",
    "validate_every": "validation.every",
}


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train a model on clips of one's own: dynamicrafter train lora-512 --data clips/

    Recipes: finetune-256, finetune-512, finetune-1024, finetune-interp, lora-512, lora-1024, lora-interp,
    finetune-bundled, lora-bundled, from-scratch. The same command again goes on where a stopped run was.
    """

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help_behavior_hint="")]
    """What to train, and how."""
    config: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """A YAML file of settings, which change the recipe's."""
    settings: TrainFlags = field(default_factory=TrainFlags)
    """What is changed most; goes before the file."""
    set: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="KEY=VALUE", help_behavior_hint="")]] = ()
    """Any setting by its path, such as objective.drop=0.1; may be given several times."""
    dry_run: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Show how much memory the run needs and what would fit it, and train nothing."""
    memory: Annotated[str | None, arg(metavar="SIZE", help_behavior_hint="(default: this machine's)")] = None
    """The memory to fit with --dry-run, such as 24GB."""
    show: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Show all settings as YAML, which --config reads, and train nothing."""
    export: Annotated[
        Path | None, arg(metavar="PATH", help_behavior_hint="(default: OUTPUT/model, after the last step)")
    ] = None
    """Write the newest checkpoint's model there, and train nothing: a folder, or a file with the published names."""


def run(command: TrainCommand) -> None:
    """Train, and print the model's path once it is complete.

    Raises:
        InputError: whatever is wrong with settings, clips, model or output.
        Stopped: by a signal, after a checkpoint.
    """
    recipe = get_recipe(command.recipe)
    config = settings_of(command, recipe)
    if command.show:
        print(_as_yaml(config), end="")
        return
    check(config)
    if command.dry_run:
        _show_memory(config, command.memory)
        return
    silence_libraries()
    hide_loading_bars()
    if command.export is not None:
        print(_export(config, recipe, command.export))
        return
    _train(config, recipe)


def settings_of(command: TrainCommand, recipe: Recipe) -> TrainConfig:
    """The recipe's settings, changed by the file, then by flags, then by --set.

    Raises:
        InputError: an unknown setting, or one of another type.
    """
    config = recipe.make()
    if command.config is not None:
        config = from_mapping(config, read_yaml(command.config))
    for name in TrainFlags.__dataclass_fields__:
        value = getattr(command.settings, name)
        if value is not None:
            config = set_by_path(config, _PATHS.get(name, name), _plain(name, value))
    for setting in command.set:
        path, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set takes KEY=VALUE, got {setting!r}; write {path}=….")
        config = set_by_path(config, path, parse_yaml(text, name=f"--set {path}"))
    return config


def _plain(name: str, value: Any) -> Any:
    """A flag's value as YAML would have it."""
    if name == "tracker" and value == "none":
        return None
    return str(value) if isinstance(value, Path) else value


def _as_yaml(config: TrainConfig) -> str:
    import yaml

    return yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)


def _train(config: TrainConfig, recipe: Recipe) -> None:
    from dynamicrafter.training.loop import train

    progress = _Progress()
    _say_from_where(config, progress)
    progress.say(f"Loading {config.model}…")
    pipeline = build(recipe.model, config)
    try:
        outcome = train(config, on_step=progress.on_step, pipeline=pipeline, stream=build(recipe.clips, config))
    except KeyboardInterrupt:
        raise Stopped("stopped at once; the same command goes on from the newest checkpoint, if there is one") from None
    finally:
        progress.close()
    if outcome.signal is not None:
        try:
            signal.raise_signal(outcome.signal)  # so that the exit code says what stopped it
        finally:
            raise Stopped(f"stopped after step {outcome.step}; the same command goes on from {outcome.checkpoint}")
    if outcome.is_main:
        progress.say("Writing the model…")
        print(_export(config, recipe, None))
        _compare(config, recipe, outcome.checkpoint, progress)


def _say_from_where(config: TrainConfig, progress: _Progress) -> None:
    """Tell a run that goes on from one that begins, and how the loss was going."""
    from dynamicrafter.training import checkpoints
    from dynamicrafter.training.history import LOSSES, read_losses
    from dynamicrafter.training.loop import CHECKPOINTS

    there = checkpoints.found(config.output / CHECKPOINTS)
    if not there:
        progress.say(f"A new run, in {config.output}")
        return
    done = checkpoints.step_of(there[-1])
    if (config.output / LOSSES).is_file():
        for line in read_losses(config.output):
            if line["step"] <= done:
                progress.mean.append(line["loss"])
    mean = f", loss {progress.mean_text}" if progress.mean else ""
    progress.say(f"Going on from {there[-1]}: {done} of {config.steps} steps are done{mean}")


def _compare(config: TrainConfig, recipe: Recipe, checkpoint: Path, progress: _Progress) -> None:
    from dynamicrafter.training.validation import can_compare, compare

    if not can_compare(config):
        return
    progress.say("Making a clip with the model as it was and as it is…")
    sheet = compare(config, checkpoint, pipeline=build(recipe.model, config), stream=build(recipe.clips, config))
    subject = "the data’s first clip, then " if config.validation.image is None else ""
    progress.say(f"{sheet}: from above, {subject}before and after training")


def _export(config: TrainConfig, recipe: Recipe, target: Path | None) -> Path:
    from dynamicrafter.training import checkpoints
    from dynamicrafter.training.export import export
    from dynamicrafter.training.loop import CHECKPOINTS

    there = checkpoints.found(config.output / CHECKPOINTS)
    if not there:
        raise InputError(f"output {config.output} holds no checkpoint to export; train first, or name its folder.")
    return export(config, there[-1], target, pipeline=build(recipe.model, config))


def _show_memory(config: TrainConfig, budget: str | None) -> None:
    from dynamicrafter.memory.devices import total_memory
    from dynamicrafter.training.estimate import estimate, table, training_device

    limit = total_memory(training_device(config)) if budget is None else parse_memory(budget)
    print(table(estimate(config), config, limit))


class _Progress:
    """A bar on a terminal, now and then a line elsewhere; on the first process of a launch alone."""

    def __init__(self) -> None:
        self._speaks = os.environ.get("RANK", "0") == "0"
        self._watched = sys.stderr.isatty()
        self._bar: Any = None
        self._said = self._began = 0.0
        self._first = 0
        self.mean: deque[float] = deque(maxlen=_MEAN_OF)  # the last steps' losses

    @property
    def mean_text(self) -> str:
        """The mean of the last losses; one step's says more of its noise level than of the model."""
        count = len(self.mean)
        return f"{sum(self.mean) / count:.4f} in the mean of {count} step{'s' * (count > 1)}"

    def say(self, text: str) -> None:
        if self._speaks:
            say(text)

    def on_step(self, report: StepReport) -> None:
        """Called after each step."""
        now = time.monotonic()
        self.mean.append(report.loss)
        if not self._began:  # the first step's pace is that of starting
            self._began, self._first = now, report.step
            return self.say(f"Step {report.step}/{report.steps}, loss {report.loss:.4f}")
        done = report.step - self._first
        pace = (now - self._began) / done
        rate = report.clips / report.step / pace
        text = f"loss {self.mean_text}, {rate:.2f} samples/s"
        if self._watched:
            self._draw(report, text)
        elif now - self._said >= _PAUSE or report.step == report.steps:
            self._said = now
            left = time_in_words(pace * (report.steps - report.step))
            self.say(f"Step {report.step}/{report.steps}, {text}, {left} left")
        return None

    def _draw(self, report: StepReport, text: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=report.steps,
                initial=report.step,
                desc="Training",
                bar_format=_BAR,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
            )
            return
        self._bar.total = report.steps
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(report.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
