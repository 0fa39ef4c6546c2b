"""`data cache`: what the frozen networks answer to the clips of a training, on the disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from dynamicrafter.cli.commands import Switch
from dynamicrafter.cli.console import hide_loading_bars, say, silence_libraries, time_in_words
from dynamicrafter.cli.train import TrainCommand, TrainFlags, settings_of
from dynamicrafter.errors import InputError
from dynamicrafter.training.recipes import build, get_recipe

_PAUSE = 15.0  # seconds between two lines of progress


@dataclass(frozen=True, kw_only=True)
class CacheCommand:
    """Encode the clips of a training once: dynamicrafter data cache lora-512 --data clips/ -o cache/

    Then `dynamicrafter train lora-512 --cache cache/` needs neither the clips nor the encoders' memory and time. The
    same command again goes on with a cache that was begun.
    """

    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help_behavior_hint="")]
    """The training to come; its model, data and objective count."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER", help_behavior_hint="")] = Path("cache")
    """Where the cache goes."""
    data: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="(default: the recipe's)")] = None
    """A CSV or JSONL file that lists clips, or a folder of videos with captions in .txt files beside them."""
    model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the recipe's)")] = None
    """Whose encoders to use."""
    config: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """A YAML file of settings, as for `train`."""
    set: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="KEY=VALUE", help_behavior_hint="")]] = ()
    """Any setting of the training by its path; may be given several times."""
    passes: int = 1
    """How often to go through the clips; every pass cuts another window from each."""
    pictures: int = 4
    """Frames of each clip that may be its condition picture, where the recipe takes a random one."""
    exact: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Keep float32, twice as large, instead of float16."""
    device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the best there is)")] = None
    """cpu, cuda, cuda:N or mps."""


def run(command: CacheCommand) -> None:
    """Fill the cache, and print its path once it is complete.

    Raises:
        InputError: whatever is wrong with settings, clips, model or output.
    """
    for name in ("passes", "pictures"):
        if getattr(command, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(command, name)}; try 1.")
    recipe = get_recipe(command.recipe)
    flags = TrainFlags(model=command.model, data=command.data)
    asked = TrainCommand(recipe=command.recipe, config=command.config, set=command.set, settings=flags)
    config = settings_of(asked, recipe)
    silence_libraries()
    import torch

    from dynamicrafter.memory.devices import choose_device
    from dynamicrafter.training.cache import CacheOptions, fill

    hide_loading_bars()
    options = CacheOptions(
        passes=command.passes,
        pictures=command.pictures,
        dtype=torch.float32 if command.exact else torch.float16,
        device=choose_device(command.device),
    )
    say(f"Loading {config.model}…")
    models = {"pipeline": build(recipe.model, config), "stream": build(recipe.clips, config)}
    print(fill(config, command.output, options, on_clip=_Pace(), **models))


class _Pace:
    """Now and then says how far it is."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def __call__(self, done: int, clips: int) -> None:
        now = time.monotonic()
        if now - self._said >= _PAUSE or done == clips:
            self._said = now
            left = (now - self._began) / done * (clips - done)
            say(f"{done}/{clips} clips, {done / (now - self._began):.2f} clips/s, {time_in_words(left)} left")
