"""`download` and `models`: weights onto this machine, and which are here."""

from __future__ import annotations

import os

from dynamicrafter import hub
from dynamicrafter.cli.commands import DownloadCommand, ModelsCommand
from dynamicrafter.cli.console import Stopped, say
from dynamicrafter.presets import BUNDLED, PRESETS


def download(command: DownloadCommand) -> None:
    """Fetch a preset's weights, with the hub's own progress bar; its path goes to stdout."""
    try:
        print(hub.download(command.preset, source="pruned" if command.pruned else "official"))
    except KeyboardInterrupt:
        raise Stopped("stopped; run it again to go on where it stopped") from None


def show(_command: ModelsCommand) -> None:
    """List each preset's weights, and what else DYNAMICRAFTER_MODELS holds: preset and path, a line each."""
    found = [model for name in (*PRESETS, BUNDLED.name) if (model := hub.find_local(name)) is not None]
    paths = {model.path for model in found}
    found += [model for model in hub.list_models_folder() if model.path not in paths]
    for model in found:
        print(f"{model.preset or '?':<12}{model.path}")
    if all(model.preset == BUNDLED.name for model in found):
        folder = os.environ.get(hub.MODELS_VARIABLE)
        places = f"the Hugging Face cache or {folder}" if folder else "the Hugging Face cache"
        say(f"no published models in {places}; fetch one: `dynamicrafter download 512`, or set {hub.MODELS_VARIABLE}.")
