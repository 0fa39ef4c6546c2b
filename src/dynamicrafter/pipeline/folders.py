"""A pipeline's folder, looked through before diffusers and transformers load it.

Both libraries take a folder at its word: its tables name the classes to load, its settings may name further files,
repositories and kernels to fetch, its weights may be pickles, and a parameter that no file holds is drawn at random
with no more than a warning. So a folder is held against what `save_pretrained` writes, by its tables of contents alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import nn
from transformers import CLIPTextModel, CLIPVisionModel

from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.inspection import Inspection, describe_part
from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import COMPONENTS, OF_PICTURES, Dtypes, Misfit, dtype_for, shapes
from dynamicrafter.checkpoints.sniff import printable
from dynamicrafter.errors import CheckpointError
from dynamicrafter.hub.folders import PIPELINE_INDEX, shortened
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.toon_autoencoder import ToonAutoencoder
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.pipeline.absent import AbsentTextEncoder
from dynamicrafter.presets import Preset, preset_from_dict
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler

SCHEDULER = "scheduler"
CLASSES: dict[str, tuple[type[Any], ...]] = {
    "vae": (AutoencoderKL, AutoencoderTiny, PatchAutoencoder, ToonAutoencoder),
    "text_encoder": (CLIPTextModel,),
    "image_encoder": (CLIPVisionModel,),
    "image_projector": (ImageProjector,),
    "unet": (DynamiCrafterUNet,),
    SCHEDULER: (DynamiCrafterScheduler,),
}
OPTIONAL = OF_PICTURES | {"text_encoder"}  # components that a pipeline may be without
# Settings by which transformers and diffusers come to run or read something else than the network and its weights.
_LEAD_ASTRAY = ("attn_implementation", "auto_map", "kernel", "quantization_config", "transformers_weights")
_ADAPTER = "adapter_config.json"  # transformers would load the model that it names, from the hub if need be
# Names before those of transformers' parameters, which some of its versions write and all read.
_OLD_PREFIXES = ("text_model.", "vision_model.")
_ABSENT = [None, None]  # how diffusers notes a component that a pipeline is without
_REMEDY = "convert the checkpoint again"


def check_folder(folder: Path, *, given: Collection[str] = (), variant: str | None = None) -> None:
    """Hold a folder against what `save_pretrained` writes; imports nothing that it names and reads no weights.

    Args:
        given: components that the caller brings, and that are not loaded from the folder.
        variant: of the weights' files, as in diffusers.

    Raises:
        CheckpointError: other classes than ours, settings that no network can be built from or that lead elsewhere, or
            parameters that are missing, misshapen, left over or kept in anything but safetensors.
    """
    kinds = _check_classes(folder, _read_json(folder / PIPELINE_INDEX))
    read_preset(folder)
    for name, kind in kinds.items():
        if name in given:
            continue
        network = _build(kind, folder / name)
        if isinstance(network, nn.Module):
            _check_weights(folder / name, shapes(network), variant)


def read_preset(folder: Path) -> Preset:
    """What a folder says of its size, sampling and motion number.

    Raises:
        CheckpointError: no table of contents that can be read.
        InputError: a preset that can't be read.
    """
    return preset_from_dict(_read_json(folder / PIPELINE_INDEX).get("preset"))


def empty_networks(folder: Path) -> dict[Component, Any]:
    """The networks of a folder by its settings, on the meta device; reads no weights.

    Raises:
        CheckpointError: other classes than ours, or settings that no network can be built from.
    """
    kinds = _check_classes(folder, _read_json(folder / PIPELINE_INDEX))
    networks: dict[Component, Any] = {
        name: _build(kinds[name], folder / name).to("meta").eval() for name in COMPONENTS if name in kinds
    }
    networks.setdefault("text_encoder", AbsentTextEncoder(networks["unet"].config["cross_attention_dim"]))
    return networks


def empty_components(folder: Path, *, dtype: Dtypes, given: Collection[str] = ()) -> dict[str, Any]:
    """What a pipeline is made of but for what is given, its networks empty; `load_component` reads them.

    Raises:
        CheckpointError: other classes than ours, or settings that no network can be built from.
    """
    kinds = _check_classes(folder, _read_json(folder / PIPELINE_INDEX))
    needed = [name for name in COMPONENTS if name in kinds and name not in given]
    components: dict[str, Any] = {name: _build(kinds[name], folder / name).eval() for name in needed}
    for name, network in components.items():
        nn.Module.to(network, dtype_for(name, dtype))
    if SCHEDULER not in given:
        components[SCHEDULER] = DynamiCrafterScheduler.from_pretrained(folder, subfolder=SCHEDULER)
    return dict.fromkeys(OPTIONAL - kinds.keys()) | components | {"preset": asdict(read_preset(folder))}


def load_component(folder: Path, name: Component, *, dtype: Dtypes, variant: str | None = None) -> nn.Module:
    """One network of a folder that `check_folder` found to be in order; still mapped where its number format stays."""
    network = _build(_check_classes(folder, _read_json(folder / PIPELINE_INDEX))[name], folder / name)
    kind = dtype_for(name, dtype)
    known = {_without_old_prefix(key): key for key in network.state_dict()}
    state = {}
    for file in _weights(folder / name, variant):
        with open_tensors(file) as tensors:
            state |= {known[_without_old_prefix(key)]: tensors[key].to(kind) for key in tensors}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def inspect_folder(folder: Path) -> Inspection:
    """Take stock of a folder whose networks may be of any size; reads no tensor.

    Raises:
        CheckpointError: what `check_folder` refuses.
    """
    check_folder(folder)
    kinds = _check_classes(folder, _read_json(folder / PIPELINE_INDEX))
    parts = []
    for name in COMPONENTS:
        infos = []
        for file in _weights(folder / name, None) if name in kinds else ():
            with open_tensors(file) as tensors:
                infos += [tensors.info(key) for key in tensors]
        parts.append(describe_part(name, infos))
    return Inspection(
        architecture=None,
        presets=(read_preset(folder).name,),
        parts=tuple(parts),
        schedule_tables=0,
        missing_encoders=(),
        misfit=Misfit(),
        num_bytes=sum(part.num_bytes for part in parts),
    )


def _check_classes(folder: Path, index: Mapping[str, Any]) -> dict[str, type[Any]]:
    """The class of each component that there is, all of them ours."""
    if index.get("_class_name") != "DynamiCrafterPipeline":
        said = printable(str(index.get("_class_name")))
        raise CheckpointError(f"{folder} holds a {said}, not a DynamiCrafterPipeline; name another folder.")
    named = {name: entry for name, entry in index.items() if not name.startswith("_") and name != "preset"}
    found: dict[str, type[Any]] = {}
    for name, kinds in CLASSES.items():
        entry = named.pop(name, None)
        if name in OPTIONAL and entry == _ABSENT:
            continue
        kind = next((kind for kind in kinds if [_library(kind), kind.__name__] == entry), None)
        if kind is None:
            ours = " or ".join(f"{kind.__name__} of {_library(kind)}" for kind in kinds)
            raise CheckpointError(
                f"{folder} must name {ours} as its {name}, got "
                f"{printable(json.dumps(index.get(name)))}; nothing was loaded; {_REMEDY}."
            )
        found[name] = kind
    if named:
        raise CheckpointError(
            f"{folder} names components that a DynamiCrafterPipeline doesn't have: "
            f"{printable(shortened(sorted(named)))}; nothing was loaded; {_REMEDY}."
        )
    return found


def _library(kind: type) -> str:
    """How diffusers names the place of a class in its table."""
    library = kind.__module__.partition(".")[0]
    return kind.__module__ if library == "dynamicrafter" else library


def _build(kind: type[Any], folder: Path) -> Any:
    """A component by its settings, with parameters that take no memory."""
    if (folder / _ADAPTER).exists():
        raise CheckpointError(f"{folder} holds an adapter ({_ADAPTER}), which is not read here; remove the file.")
    path = folder / ("scheduler_config.json" if kind is DynamiCrafterScheduler else "config.json")
    settings = _read_json(path)
    astray = [name for name in settings if any(word in name for word in _LEAD_ASTRAY)]
    if astray:
        raise CheckpointError(f"{path} sets {printable(astray[0])}, which is not obeyed here; remove it, or {_REMEDY}.")
    try:
        with init_empty_weights(include_buffers=False):
            if issubclass(kind, ConfigMixin):
                return kind.from_config(settings)
            return kind(kind.config_class.from_dict(settings))
    except Exception as error:  # settings of wrong names, types and sums fail anywhere in the libraries
        reason = printable(str(error) or type(error).__name__, limit=200)
        raise CheckpointError(f"{path} holds settings that don't work ({reason}); {_REMEDY}.") from error


def _check_weights(folder: Path, needed: Mapping[str, tuple[int, ...]], variant: str | None) -> None:
    found: dict[str, tuple[int, ...]] = {}
    for file in _weights(folder, variant):
        with open_tensors(file) as tensors:
            found |= {_without_old_prefix(name): tensors.info(name).shape for name in tensors}
    wanted = {_without_old_prefix(name): shape for name, shape in needed.items()}
    misshapen = [name for name in wanted if name in found and tuple(found[name]) != wanted[name]]
    for kind, names in (
        ("lacks", [name for name in wanted if name not in found]),
        ("has in other shapes", misshapen),
        ("has and shouldn't have", [name for name in found if name not in wanted]),
    ):
        if names:
            raise CheckpointError(f"{folder} {kind} {printable(shortened(names), limit=300)}; {_REMEDY}.")


def _weights(folder: Path, variant: str | None) -> list[Path]:
    """A component's safetensors files, of one piece or several, in the libraries' order of preference."""
    middle = f".{variant}" if variant else ""
    for base in ("diffusion_pytorch_model", "model"):
        if (whole := folder / f"{base}{middle}.safetensors").exists():
            return [whole]
        if (index := folder / f"{base}.safetensors.index{middle}.json").exists():
            places = _read_json(index).get("weight_map")
            names = set(places.values()) if isinstance(places, dict) and places else {None}
            if not all(isinstance(name, str) and name == Path(name).name for name in names):
                raise CheckpointError(f"{index} must name files beside it; {_REMEDY}.")
            return [folder / name for name in sorted(names)]
    kind = f"{variant} .safetensors" if variant else ".safetensors"
    raise CheckpointError(f"{folder} holds no {kind} file, and weights are read from no other kind; {_REMEDY}.")


def _without_old_prefix(name: str) -> str:
    for prefix in _OLD_PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}; {_REMEDY}, or name another folder.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read ({printable(str(error))}); {_REMEDY}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object; {_REMEDY}.")
    return value
