"""From a name to the five networks and their scheduler, for `DynamiCrafterPipeline`'s constructors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dynamicrafter.architectures import FULL, TINY, Architecture, at_size
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.load import (
    LoadedNetworks,
    load_file,
    load_network,
    load_networks,
    missing_encoders,
    open_checkpoint,
)
from dynamicrafter.checkpoints.networks import COMPONENTS, Dtypes, build_empty, components_of
from dynamicrafter.checkpoints.seeded import SeededTensors
from dynamicrafter.checkpoints.variants import tell_architecture, tell_preset
from dynamicrafter.errors import InputError, ModelNotFoundError
from dynamicrafter.hub import find_encoders, preset_from_filename, resolve
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.memory.reload import Reload
from dynamicrafter.pipeline.folders import SCHEDULER, empty_components, empty_networks, load_component, read_preset
from dynamicrafter.presets import PRESETS, USUAL_PRESET, Preset, get_preset
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler

_OF_FILES = ("preset", "encoders")


@dataclass(frozen=True, slots=True)
class FileReload:
    """Reads a network of a checkpoint file again; it can be pickled, as a pipeline is that keeps it."""

    path: Path
    towers: Path | None
    architecture: Architecture
    preset: Preset
    dtype: Dtypes

    def __call__(self, component: Component) -> nn.Module:
        with open_checkpoint(self.path, encoders=self.towers) as source:
            return load_network(source, component, self.architecture, self.preset, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class FolderReload:
    """The same of a folder."""

    path: Path
    dtype: Dtypes
    variant: str | None

    def __call__(self, component: Component) -> nn.Module:
        return load_component(self.path, component, dtype=self.dtype, variant=self.variant)


@dataclass(frozen=True, slots=True)
class SeededReload:
    """The same of weights that are drawn from their names."""

    name: str
    dtype: Dtypes

    def __call__(self, component: Component) -> nn.Module:
        source, architecture, preset = seeded_source(self.name)
        return load_network(source, component, architecture, preset, dtype=self.dtype)


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
        given = value is not None or option in COMPONENTS  # None leaves a component out
        if not given or (option in known if known is not None else option not in _OF_FILES):
            continue
        if option in _OF_FILES:
            raise InputError(f"{option} goes with a checkpoint file; {name} brings its own; leave --{option} out.")
        raise InputError(f"{name} takes no option {option!r}; leave it out.")


def check_lazy_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The components among the options of a folder that is read lazily.

    Raises:
        InputError: an option that takes effect only while weights are read by diffusers.
    """
    # None leaves a component out.
    given: dict[str, Any] = {name: options[name] for name in COMPONENTS if name in options}
    if options.get(SCHEDULER) is not None:
        given[SCHEDULER] = options[SCHEDULER]
    known = {*given, "dtype", "variant", "use_safetensors", "low_cpu_mem_usage"}
    unknown = next((name for name, value in options.items() if name not in known and value is not None), None)
    if unknown is not None:
        raise InputError(f"{unknown} takes effect while all weights are read, which lazy=True puts off; leave one out.")
    return given


def file_components(
    path: Path, *, preset: str | None, dtype: Dtypes, encoders: str | Path | None, download: bool, lazy: bool = False
) -> tuple[dict[str, Any], Reload]:
    """Components of a checkpoint file, and how to read one of them again.

    Args:
        encoders: folder or file of those that the checkpoint lacks.
        lazy: leave the networks empty until they are read so.

    Raises:
        CheckpointError: see `load_file`.
        ModelNotFoundError: encoders are lacking and neither there nor asked for.
    """
    towers = encoders_for(path, encoders, download=download)
    loaded = load_file(path, preset=preset, dtype=dtype, encoders=towers, lazy=lazy)
    return _components(loaded), FileReload(path, towers, loaded.architecture, loaded.preset, dtype)


def folder_components(
    path: Path, *, dtype: Dtypes, variant: str | None, given: Mapping[str, Any]
) -> tuple[dict[str, Any], Reload]:
    """Components of a folder, its networks empty but for those that the caller gives, and how to read one of them.

    Raises:
        CheckpointError: see `check_folder`.
    """
    empty = empty_components(path, dtype=dtype, given=given)
    return empty | dict(given), folder_origin(path, dtype=dtype, variant=variant)


def folder_origin(path: Path, *, dtype: Dtypes, variant: str | None) -> Reload:
    """How to read a network of a folder again."""
    return FolderReload(path, dtype, variant)


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


def seeded_components(name: str, *, dtype: Dtypes, lazy: bool = False) -> tuple[dict[str, Any], Reload]:
    """Components whose weights are drawn from their names, and how to draw one again; names as in `seeded_source`.

    Raises:
        InputError: another name.
    """
    source, architecture, preset = seeded_source(name)
    loaded = load_networks(source, architecture, preset, dtype=dtype, name=name, lazy=lazy)
    return _components(loaded), SeededReload(name, dtype)


def seeded_source(name: str) -> tuple[SeededTensors, Architecture, Preset]:
    """Weights drawn from their names: `seeded:512` or another released preset, small as `seeded:tiny-512`.

    Raises:
        InputError: another name.
    """
    kind = name.removeprefix(SEEDED)
    small, called = kind.startswith(TINY.name), kind.removeprefix(TINY.name).removeprefix("-")
    architecture = TINY if small else FULL
    preset = seeded_preset(called or USUAL_PRESET) if called or small else None
    if preset is None:
        known = ", ".join(SEEDED + preset.called for preset in PRESETS.values())
        raise InputError(f"model {name!r} must be one of {known}, {SEEDED}{TINY.name} or {SEEDED}{TINY.name}-NAME.")
    return SeededTensors(architecture, preset), architecture, preset


def seeded_preset(name: str) -> Preset | None:
    """The released preset of a name; None for the package's own, which has no published names, and for no name."""
    return next((preset for preset in PRESETS.values() if name in (preset.name, *preset.aliases)), None)


def empty_model(name: str, *, preset: str | None = None) -> tuple[dict[Component, Any], Preset]:
    """The networks of a model, on the meta device, and its preset; reads no weights.

    Args:
        name: as in `DynamiCrafterPipeline.from_pretrained`; a preset need not be on this machine.
        preset: which released checkpoint a file descends from, where the file can't tell.

    Raises:
        ModelNotFoundError: not on this machine, and no preset.
        CheckpointError: no checkpoint of DynamiCrafter, or of unclear preset.
    """
    if name.startswith(SEEDED):
        _, architecture, found = seeded_source(name)
        return _empty_networks(architecture, found)
    try:
        model = resolve(name)
    except ModelNotFoundError as missing:
        try:
            return _empty_networks(FULL, get_preset(name))
        except InputError:
            raise missing from None
    if model.kind == "folder":
        return empty_networks(model.path), read_preset(model.path)
    with open_tensors(model.path) as source:
        architecture = tell_architecture(source, name=model.path.name)
        hint = model.preset or preset_from_filename(model.path)
        return _empty_networks(architecture, tell_preset(source, name=model.path.name, asked=preset, hint=hint))


def _empty_networks(architecture: Architecture, preset: Preset) -> tuple[dict[Component, Any], Preset]:
    networks = {name: build_empty(name, architecture, preset).to("meta") for name in components_of(preset)}
    return networks, at_size(preset, architecture)


def _components(loaded: LoadedNetworks) -> dict[str, Any]:
    preset = at_size(loaded.preset, loaded.architecture)
    return {
        **dict.fromkeys(COMPONENTS),  # None for those that the model is without
        **loaded.networks,
        "scheduler": DynamiCrafterScheduler.from_preset(preset),
        "preset": asdict(preset),
    }
