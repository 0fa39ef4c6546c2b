"""Back to the published layout: our folder read under published names, and any such source written as one file.

A folder holds the networks in diffusers' layout and, where it was converted from a published file, the tensors of that
file which no network reads, in `published_extras.safetensors`. Together they are the file again, bit by bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynamicrafter.architectures import ARCHITECTURES, LATENT_CHANNELS, NETWORKS, TEXT_LENGTH, Architecture
from dynamicrafter.checkpoints.files import DTYPES, TensorFile, TensorInfo, open_tensors
from dynamicrafter.checkpoints.keys import (
    PREFIXES,
    REPEATED_TEXT_TABLES,
    SCHEDULE_BUFFERS,
    Component,
    PublishedKey,
    published_shape,
)
from dynamicrafter.checkpoints.networks import (
    COMPONENTS,
    Dtypes,
    TensorSource,
    build_empty,
    components_of,
    dtype_for,
    key_table,
    shapes,
)
from dynamicrafter.errors import CheckpointError
from dynamicrafter.hub.folders import PIPELINE_INDEX
from dynamicrafter.presets import NUM_TRAIN_TIMESTEPS, Preset, preset_from_dict
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.noise import SCALE_RAMP, noise_schedule

EXTRAS_FILE = "published_extras.safetensors"


class FolderTensors:
    """A folder's tensors under published names, mapped and unread; a context manager, made by `open_folder`.

    What the folder lacks of a published file is made again where that can be: the schedule buffers from the preset,
    the image encoder's repetition of text tables from the text encoder. What can't be made again are the text encoder's
    last layer, `text_projection` and `logit_scale`, and the image encoder's `visual.proj`: nothing reads them, and a
    folder made by training or from a pruned file may be without them.
    """

    def __init__(self, folder: Path, preset: Preset, architecture: Architecture) -> None:
        self.path = folder
        self.preset = preset
        self.architecture = architecture
        self._files: list[TensorFile] = []
        self._parts: dict[str, list[tuple[TensorFile, str, PublishedKey]]] = {}
        self._made: dict[str, Tensor] = {}
        self._same: dict[str, str] = {}  # repeated tables by the name that holds them
        self._extras: Mapping[str, Tensor] | TensorFile = {}

    def keys(self) -> list[str]:
        return [*self._parts, *self._extras, *self._same, *self._made]

    def __contains__(self, key: object) -> bool:
        return any(key in place for place in (self._parts, self._extras, self._same, self._made))

    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of one tensor; reads no data.

        Raises:
            KeyError: no such name.
        """
        if key in self._parts:
            file, name, place = self._parts[key][0]
            ours = file.info(name)
            return TensorInfo(published_shape(place, ours.shape), ours.dtype)
        if isinstance(self._extras, TensorFile) and key in self._extras:
            return self._extras.info(key)
        if key in self._same:
            return self.info(self._same[key])
        made = self._made[key]
        return TensorInfo(tuple(made.shape), str(made.dtype).removeprefix("torch."))

    def __getitem__(self, key: str) -> Tensor:
        if key in self._parts:
            tensors = [file[name] for file, name, _ in self._parts[key]]
            whole = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
            return whole.reshape(self.info(key).shape)
        if key in self._extras:
            return self._extras[key]
        return self[self._same[key]] if key in self._same else self._made[key]

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> FolderTensors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        for component in components_of(self.preset):
            network = build_empty(component, self.architecture, self.preset)
            table = key_table(component, network, self.architecture, self.preset)
            holders = self._component_files(component)
            _require(self.path / component, shapes(network), holders)
            # Query, key and value follow one another in a published matrix.
            for name, place in sorted(table.items(), key=lambda row: row[1].part or 0):
                self._parts.setdefault(place.key, []).append((holders[name], name, place))
        if (self.path / EXTRAS_FILE).exists():
            self._extras = self._kept(open_tensors(self.path / EXTRAS_FILE))
        text, image = PREFIXES["text_encoder"], PREFIXES["image_encoder"]
        pairs = ((image + name, text + name) for name in REPEATED_TEXT_TABLES)
        self._same = {copy: origin for copy, origin in pairs if origin in self and copy not in self}
        self._made = {key: table for key, table in schedule_buffers(self.preset).items() if key not in self._extras}

    def _component_files(self, component: str) -> dict[str, TensorFile]:
        """Which file holds each parameter of a component, be it sharded or not."""
        folder = self.path / component
        indices = sorted(folder.glob("*.safetensors.index.json"))
        if indices:
            names = sorted(set(_read_json(indices[0]).get("weight_map", {}).values()))
        else:
            names = sorted(path.name for path in folder.glob("*.safetensors"))
        if not names:
            raise CheckpointError(f"{folder} holds no .safetensors file; convert the checkpoint again.")
        return {name: file for file in (self._kept(open_tensors(folder / part)) for part in names) for name in file}

    def _kept(self, file: TensorFile) -> TensorFile:
        self._files.append(file)
        return file


def open_folder(folder: str | Path) -> FolderTensors:
    """Open a folder that `DynamiCrafterPipeline.save_pretrained` wrote, as a source of published tensors.

    Raises:
        CheckpointError: another kind of folder, or one that is incomplete.
    """
    folder = Path(folder).expanduser()
    index = _read_json(folder / PIPELINE_INDEX)
    if index.get("_class_name") != "DynamiCrafterPipeline":
        raise CheckpointError(
            f"{folder} holds a {index.get('_class_name')}, not a DynamiCrafterPipeline; name another folder."
        )
    preset = preset_from_dict(index.get("preset"))
    architecture = published_architecture(folder)
    if architecture is None:
        raise CheckpointError(
            f"{folder} holds a model of a size of its own, for which the published layout has no names; use it as the "
            f"folder that it is."
        )
    source = FolderTensors(folder, preset, architecture)
    try:
        source._open()
    except BaseException:
        source.close()
        raise
    return source


def published_architecture(folder: Path) -> Architecture | None:
    """The size that a folder's networks have, if the published layout knows it; by their settings alone.

    Raises:
        CheckpointError: settings that can't be read.
    """
    files = {name: folder / name / "config.json" for name in COMPONENTS}
    said = {name: _read_json(file) if file.exists() else {} for name, file in files.items()}
    return next((known for known in ARCHITECTURES if _is_of(said, known)), None)


def _is_of(said: Mapping[Component, Mapping[str, Any]], known: Architecture) -> bool:
    wanted: dict[Component, dict[str, Any]] = {
        "unet": {"in_channels": 2 * LATENT_CHANNELS, "norm_num_groups": 32, "init_attention_heads": 8, **known.unet},
        "image_projector": {"num_queries": 16, **known.projector},
        "vae": {"_class_name": "AutoencoderKL", "latent_channels": LATENT_CHANNELS, **known.vae},
        "text_encoder": {"max_position_embeddings": TEXT_LENGTH, **known.text},
        "image_encoder": known.image,
    }
    # Settings that a folder leaves out have the networks' own defaults, which are those of the published size.
    return all(
        name not in said[component] or said[component][name] == (list(value) if isinstance(value, tuple) else value)
        for component, settings in wanted.items()
        for name, value in settings.items()
    )


def schedule_buffers(preset: Preset) -> dict[str, Tensor]:
    """The noise-schedule tables of a published file, float32 as there; names in `SCHEDULE_BUFFERS`.

    Of DDPM (arXiv:2006.11239, eq. 4, 6 and 7), from betas rescaled to zero terminal SNR where the preset has it. With
    v prediction the two tables that divide by ᾱ are zeros, as its last entry may be 0.
    """
    config = DynamiCrafterScheduler.from_preset(preset).config
    schedule = noise_schedule(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
        zero_terminal_snr=preset.zero_terminal_snr,
        base_scale=preset.base_scale,
    )
    bar = schedule.alphas**2
    before = torch.cat([torch.ones_like(bar[:1]), bar[:-1]])
    betas = 1 - bar / before
    variance = betas * (1 - before) / (1 - bar)
    divides = preset.prediction == "epsilon"
    tables = {
        "betas": betas,
        "alphas_cumprod": bar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": schedule.alphas,
        "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - bar).log(),
        "sqrt_recip_alphas_cumprod": (1 / bar).sqrt() if divides else torch.zeros_like(bar),
        "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt() if divides else torch.zeros_like(bar),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),  # 0 at the first timestep
        "posterior_mean_coef1": betas * before.sqrt() / (1 - bar),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - bar),
    }
    if preset.base_scale is not None:
        ramp = torch.linspace(1, preset.base_scale, SCALE_RAMP, dtype=torch.float64)
        rest = NETWORKS[preset.network].rescale_entries - SCALE_RAMP
        tables["scale_arr"] = torch.cat([ramp, torch.full((rest,), preset.base_scale, dtype=torch.float64)])
    return {key: table.float() for key, table in tables.items()}


def lacking_extras(source: TensorSource, architecture: Architecture) -> list[str]:
    """Tensors of a published file that no network reads and that a source is without; schedule buffers apart."""
    text, image = PREFIXES["text_encoder"], PREFIXES["image_encoder"]
    first, last = (f"{text}transformer.resblocks.{n}." for n in (0, architecture.text["num_hidden_layers"]))
    unread = [
        *(last + key.removeprefix(first) for key in source.keys() if key.startswith(first)),
        *(text + name for name in ("text_projection", "logit_scale")),
        *(image + name for name in REPEATED_TEXT_TABLES),
        f"{image}visual.proj",
    ]
    return [key for key in unread if key not in source]


def write_lightning(source: TensorSource, path: Path) -> None:
    """Write a source as a torch.save file under "state_dict", as the published files are; casts nothing."""
    torch.save({"state_dict": {key: source[key] for key in source.keys()}}, path)


def write_tensors(source: TensorSource, path: Path, *, keys: Sequence[str] | None = None, dtype: Dtypes = None) -> None:
    """Write tensors into a safetensors file, one by one as they are read; the library would take them all at once.

    Args:
        keys: which; None for all.
        dtype: of the weights; one, or by component. Schedule buffers are never cast.
    """
    chosen = source.keys() if keys is None else keys
    targets = {key: _dtype_of(key, source.info(key).dtype, dtype) for key in chosen}
    chosen = sorted(chosen, key=lambda key: -targets[key].itemsize)  # keeps every tensor aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key in chosen:
        shape = source.info(key).shape
        end = offset + math.prod(shape) * targets[key].itemsize
        header[key] = {"dtype": _CODES[targets[key]], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the first tensor
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in chosen:
            tensor = source[key].to(targets[key]).contiguous()
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def bytes_as(source: TensorSource, *, keys: Sequence[str] | None = None, dtype: Dtypes = None) -> int:
    """Bytes of a source's tensors once cast."""
    chosen = source.keys() if keys is None else keys
    infos = ((key, source.info(key)) for key in chosen)
    return sum(math.prod(info.shape) * _dtype_of(key, info.dtype, dtype).itemsize for key, info in infos)


_CODES = {getattr(torch, name): code for code, name in DTYPES.items() if hasattr(torch, name)}


def _dtype_of(key: str, own: str, dtypes: Dtypes) -> torch.dtype:
    """The dtype that a published tensor is written in."""
    kept: torch.dtype = getattr(torch, own)
    if key in SCHEDULE_BUFFERS or not kept.is_floating_point:
        return kept
    component = next((name for name, prefix in PREFIXES.items() if key.startswith(prefix)), "default")
    return dtype_for(component, dtypes) or kept


def _require(folder: Path, needed: Mapping[str, tuple[int, ...]], holders: Mapping[str, TensorFile]) -> None:
    missing = [name for name in needed if name not in holders]
    misshapen = [name for name in needed if name in holders and holders[name].info(name).shape != needed[name]]
    for kind, names in (("lacks", missing), ("has in other shapes", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" * (len(names) > 3)
            raise CheckpointError(f"{folder} {kind} {', '.join(names[:3])}{more}; convert the checkpoint again.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}; name a folder with {PIPELINE_INDEX} in it.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); convert the checkpoint again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object; convert the checkpoint again.")
    return value
