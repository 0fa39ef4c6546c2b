"""From a name to the five networks and their scheduler, for `DynamiCrafterPipeline`'s constructors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dynamicrafter.architectures import FULL, TINY, Architecture
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.load import LoadedNetworks, load_file, load_networks, missing_encoders
from dynamicrafter.checkpoints.networks import Dtypes
from dynamicrafter.checkpoints.seeded import SeededTensors
from dynamicrafter.checkpoints.variants import tell_architecture
from dynamicrafter.errors import InputError
from dynamicrafter.hub import find_encoders
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.presets import Preset, get_preset
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler

SEEDED_NAMES = ("256", "512", "1024", "interp", "tiny")

_OF_FILES = ("preset", "encoders")


def check_options(name: str, options: Mapping[str, object], *, known: Collection[str] | None = None) -> None:
    """Refuse what a kind of model doesn't take.

    Args:
        name: the model's.
        options: as given; None counts as not given.
        known: what it takes; None for a folder, which takes all but what it brings itself.

    Raises:
        InputError: an option that it doesn't take.
    """
    for option, value in options.items():
        if value is None or (option in known if known is not None else option not in _OF_FILES):
            continue
        if option in _OF_FILES:
            raise InputError(f"{option} goes with a checkpoint file; {name} brings its own; leave --{option} out.")
        raise InputError(f"{name} takes no option {option!r}; leave it out.")


def file_components(
    path: Path, *, preset: str | None, dtype: Dtypes, encoders: str | Path | None, download: bool
) -> dict[str, Any]:
    """Components of a checkpoint file; encoders that it lacks come from `encoders`, a folder or a file.

    Raises:
        CheckpointError: see `load_file`.
        ModelNotFoundError: encoders are lacking and neither there nor asked for.
    """
    towers = encoders_for(path, encoders, download=download)
    return _components(load_file(path, preset=preset, dtype=dtype, encoders=towers))


def encoders_for(path: Path, encoders: str | Path | None, *, download: bool) -> Path | None:
    """Where the encoders are that a checkpoint file lacks; None for one that has them.

    Raises:
        CheckpointError: the file is no checkpoint of DynamiCrafter.
        ModelNotFoundError: encoders are lacking and neither there nor asked for.
    """
    with open_tensors(path) as source:
        tell_architecture(source, name=path.name)  # a stranger is told that it is one before what it lacks
        if not missing_encoders(source):
            return None
    return find_encoders(None if encoders is None else str(encoders), download=download)


def seeded_components(name: str, *, dtype: Dtypes) -> dict[str, Any]:
    """Components whose weights are drawn from their names; names as in `seeded_source`.

    Raises:
        InputError: another name.
    """
    source, architecture, preset = seeded_source(name)
    return _components(load_networks(source, architecture, preset, dtype=dtype, name=name))


def seeded_source(name: str) -> tuple[SeededTensors, Architecture, Preset]:
    """Weights drawn from their names: `seeded:256`, `512`, `1024`, `interp`, or the small `tiny`.

    Raises:
        InputError: another name.
    """
    kind = name.removeprefix(SEEDED)
    if kind not in SEEDED_NAMES:
        raise InputError(f"model {name!r} must be one of {', '.join(SEEDED + known for known in SEEDED_NAMES)}.")
    architecture, preset = (TINY, get_preset("512")) if kind == "tiny" else (FULL, get_preset(kind))
    return SeededTensors(architecture, preset), architecture, preset


def _components(loaded: LoadedNetworks) -> dict[str, Any]:
    preset = loaded.preset
    if loaded.architecture.size is not None:
        height, width = loaded.architecture.size
        preset = replace(preset, height=height, width=width)
    return {
        **loaded.networks,
        "scheduler": DynamiCrafterScheduler.from_preset(preset),
        "preset": asdict(preset),
    }
