"""What a story's plan must know of a model before it is loaded, from its name, its keys and its files' fingerprints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dynamicrafter import hub
from dynamicrafter.animator.adapters import Adapter, parse_adapters
from dynamicrafter.hub.names import SEEDED, preset_from_filename
from dynamicrafter.presets import Preset

if TYPE_CHECKING:
    from dynamicrafter.architectures import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model on this machine.

    Attributes:
        name: as for `animate`.
        preset: with the frame size that the model is run at.
        hash: what `Animator.model_hash` will be.
        loras: adapters that it is to wear, their hashes filled in.
    """

    name: str
    preset: Preset
    hash: str
    loras: tuple[Adapter, ...] = ()


def know(name: str, *, preset: str | None = None, lora: Iterable[str] = (), download: bool = False) -> KnownModel:
    """Look a model up and read what its files say of it, but no weights. Imports torch.

    Args:
        name, preset, lora, download: as for `Animator.from_pretrained`.

    Raises:
        InputError: no such model on this machine, or it is unclear or contradicted what it descends from.
    """
    from dynamicrafter.checkpoints.files import fingerprint
    from dynamicrafter.pipeline.folders import read_preset
    from dynamicrafter.pipeline.loading import seeded_source
    from dynamicrafter.pipeline.lora import check_lora_file, lora_file, trained_motions
    from dynamicrafter.pipeline.trained_motion import with_trained_motion

    adapters, motions = [], Counter()
    for adapter in parse_adapters(lora):
        check_lora_file(adapter.path)
        adapters.append(replace(adapter, hash=fingerprint(lora_file(adapter.path))))
        motions += trained_motions(lora_file(adapter.path))
    loras = tuple(adapters)
    if name.startswith(SEEDED):
        _, architecture, found = seeded_source(name)
        found = with_trained_motion(_at_its_size(found, architecture), motions)
        return KnownModel(name=name, preset=found, hash="", loras=loras)
    model = hub.resolve(name, download=download)
    if model.kind == "folder":
        found = read_preset(model.path)
    else:
        hint = model.preset if model.path != Path(name).expanduser() else None  # of a file, its own name is a hint only
        found = _preset_of_file(model.path, asked=preset or hint)
    found = with_trained_motion(found, motions)
    return KnownModel(name=name, preset=found, hash=fingerprint(model.path), loras=loras)


def _preset_of_file(path: Path, *, asked: str | None) -> Preset:
    from dynamicrafter.checkpoints.files import open_tensors
    from dynamicrafter.checkpoints.variants import tell_architecture, tell_preset

    with open_tensors(path) as source:
        architecture = tell_architecture(source, name=path.name)
        found = tell_preset(source, name=path.name, asked=asked, hint=preset_from_filename(path))
    return _at_its_size(found, architecture)


def _at_its_size(preset: Preset, architecture: Architecture) -> Preset:
    if architecture.size is None:
        return preset
    height, width = architecture.size
    return replace(preset, height=height, width=width)
