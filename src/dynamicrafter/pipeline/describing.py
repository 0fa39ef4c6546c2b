"""What can be told of a model before it is loaded: from its name, its keys and its files' fingerprints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from dynamicrafter import hub
from dynamicrafter.architectures import at_size
from dynamicrafter.modes import ANIMATE, Mode
from dynamicrafter.presets import Preset
from dynamicrafter.specs.model import ModelDescription, ModelSpec


def describe(spec: ModelSpec, *, modes: Collection[Mode] = (ANIMATE,)) -> ModelDescription:
    """Look a model up and read what its files say of it, but no weights. Imports torch.

    Args:
        modes: what it is for, where the best on this machine is meant.

    Raises:
        InputError: no such model on this machine, or it is unclear or contradicted what it descends from; adapters or
            encoders that are not there.
    """
    from dynamicrafter.checkpoints.files import fingerprint
    from dynamicrafter.pipeline.folders import read_preset
    from dynamicrafter.pipeline.loading import seeded_source
    from dynamicrafter.pipeline.lora import check_lora_file, lora_file, trained_motions
    from dynamicrafter.pipeline.trained_motion import with_trained_motion

    adapters, motions = [], Counter()
    for adapter in spec.lora:
        check_lora_file(adapter.path)
        adapters.append(replace(adapter, hash=fingerprint(lora_file(adapter.path))))
        motions += trained_motions(lora_file(adapter.path))
    spec = replace(spec.chosen(modes), lora=tuple(adapters))
    name = str(spec.name)
    encoders = None if spec.encoders is None else fingerprint(hub.find_encoders(str(spec.encoders)))
    if name.startswith(hub.SEEDED):
        _, architecture, found = seeded_source(name)
        preset = with_trained_motion(at_size(found, architecture), motions)
        return ModelDescription(spec=spec, preset=preset, path=None, encoders_hash=encoders)
    model = hub.resolve(name, download=spec.download)
    if model.kind == "folder":
        found = read_preset(model.path)
    else:
        hint = model.preset if model.path != Path(name).expanduser() else None  # of a file, its own name is a hint only
        found = _preset_of_file(model.path, asked=spec.preset or hint)
    preset = with_trained_motion(found, motions)
    return ModelDescription(
        spec=spec, preset=preset, path=model.path, hash=fingerprint(model.path), encoders_hash=encoders
    )


def _preset_of_file(path: Path, *, asked: str | None) -> Preset:
    from dynamicrafter.checkpoints.files import open_tensors
    from dynamicrafter.checkpoints.variants import tell_architecture, tell_preset

    with open_tensors(path) as source:
        architecture = tell_architecture(source, name=path.name)
        found = tell_preset(source, name=path.name, asked=asked, hint=hub.preset_from_filename(path))
    return at_size(found, architecture)
