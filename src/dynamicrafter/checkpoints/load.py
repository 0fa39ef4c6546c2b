"""From a source of published tensors to the five networks: checked whole first, then read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from dynamicrafter.architectures import NETWORKS, Architecture
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.keys import PREFIXES, REPEATED_TEXT_TABLES, Component, PublishedKey, published_shapes
from dynamicrafter.checkpoints.networks import (
    Dtypes,
    Misfit,
    TensorLike,
    TensorSource,
    build_empty,
    compare,
    components_of,
    dtype_for,
    fill,
    key_table,
    shapes,
)
from dynamicrafter.checkpoints.spellings import TransformersTowers, Weights, has_transformers_names
from dynamicrafter.checkpoints.variants import looks_like, tell_architecture, tell_network, tell_preset
from dynamicrafter.errors import CheckpointError
from dynamicrafter.hub import preset_from_filename
from dynamicrafter.presets import ENCODER_REPO, Preset

ENCODERS: tuple[Component, ...] = ("text_encoder", "image_encoder")
Encoders = str | Path | Sequence[str | Path] | None
_LISTED = 12  # keys named in a message before it counts the rest


@dataclass(slots=True)
class LoadedNetworks:
    """The filled networks, and what they are."""

    preset: Preset
    architecture: Architecture
    networks: dict[Component, nn.Module] = field(default_factory=dict)


class WithEncoders:
    """A checkpoint without text and image encoder, completed by a file that has them."""

    def __init__(self, checkpoint: TensorSource, *encoders: TensorSource) -> None:
        self._checkpoint = checkpoint
        network = tell_network(checkpoint)
        unread = PREFIXES["image_encoder"] if network and not NETWORKS[network].reads_image else "\0"
        self._places: dict[str, tuple[TensorSource, str]] = {}
        for source in encoders:
            tower = TransformersTowers(source) if has_transformers_names(source) else source
            self._places |= {
                name: (tower, key)
                for key in tower.keys()
                for name in _encoder_names(key)
                if not name.startswith(unread)
            }
        lacking = missing_encoders(self)
        if lacking:
            raise CheckpointError(
                f"the encoders have no {' and no '.join(lacking)}; they look like "
                f"{looks_like(key for source in encoders for key in source.keys())}. Pass open_clip_model.safetensors "
                f"of {ENCODER_REPO}, or the files of both towers."
            )

    def keys(self) -> list[str]:
        return [*self._checkpoint.keys(), *(name for name in self._places if name not in self._checkpoint)]

    def __contains__(self, key: object) -> bool:
        return key in self._checkpoint or key in self._places

    def info(self, key: str) -> TensorLike:
        if key in self._checkpoint:
            return self._checkpoint.info(key)
        source, place = self._places[key]
        return source.info(place)

    def __getitem__(self, key: str) -> Tensor:
        if key in self._checkpoint:
            return self._checkpoint[key]
        source, place = self._places[key]
        return source[place]


def load_file(
    path: str | Path,
    *,
    preset: str | None = None,
    dtype: Dtypes = None,
    encoders: Encoders = None,
    lazy: bool = False,
    weights: Weights = "trained",
) -> LoadedNetworks:
    """Load a published, pruned or fine-tuned checkpoint.

    Args:
        path: `.ckpt` or `.safetensors` in any of the layouts that `open_tensors` reads.
        preset: which released checkpoint it descends from, where the file alone can't tell.
        dtype: of the parameters; one, or by component with an optional "default"; None keeps the file's.
        encoders: a file with OpenCLIP's ViT-H/14 (or another checkpoint that has its towers), for a file without; or
            one for each tower, which may have transformers' names.
        lazy: leave the networks empty, for `load_network` to fill when they are needed.
        weights: the trained ones, or "ema" for their running average where the file keeps one.

    Raises:
        CheckpointError: unreadable, not DynamiCrafter, of unclear preset, or a misfit.
    """
    path = Path(path)
    with open_checkpoint(path, encoders=encoders, weights=weights) as source:
        architecture = tell_architecture(source, name=path.name)
        found = tell_preset(source, name=path.name, asked=preset, hint=preset_from_filename(path))
        return load_networks(source, architecture, found, dtype=dtype, name=path.name, lazy=lazy)


@contextmanager
def open_checkpoint(path: Path, *, encoders: Encoders = None, weights: Weights = "trained") -> Iterator[TensorSource]:
    """Open a checkpoint file, completed by a file of encoders where it lacks some.

    Raises:
        CheckpointError: unreadable, not DynamiCrafter, or encoders are lacking.
    """
    with open_tensors(path, weights=weights) as source:
        tell_architecture(source, name=path.name)  # a stranger is told that it is one before what it lacks
        _refuse_unet_alone(source, path.name)
        lacking = missing_encoders(source)
        if not lacking:
            yield source
            return
        if encoders is None:
            raise CheckpointError(
                f"{path.name} is a pruned file without {' and '.join(lacking)}; pass --encoders FILE "
                f"with the weights of {ENCODER_REPO}, or --download to fetch them."
            )
        files = [encoders] if isinstance(encoders, str | Path) else encoders
        with ExitStack() as stack:
            yield WithEncoders(source, *(stack.enter_context(open_tensors(file)) for file in files))


def _refuse_unet_alone(source: TensorSource, name: str) -> None:
    """Raises CheckpointError for a UNet without the networks that it was trained with, which no other file has."""
    needed = (PREFIXES["image_projector"], PREFIXES["vae"])
    if not any(key.startswith(needed) for key in source.keys()):
        raise CheckpointError(
            f"{name} holds the UNet alone, without the image projector and the autoencoder that belong to it; name the "
            f"complete checkpoint it was taken from, or write its tensors over those of that one and name the result."
        )


def load_networks(
    source: TensorSource, architecture: Architecture, preset: Preset, *, dtype: Dtypes, name: str, lazy: bool = False
) -> LoadedNetworks:
    """Build the five networks and, unless `lazy`, fill them from a source that was told apart already.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys, all listed at once.
    """
    loaded = LoadedNetworks(preset, architecture)
    filled: dict[Component, dict[str, PublishedKey]] = {}
    needed: dict[str, tuple[int, ...]] = {}
    for component in components_of(preset):
        network = build_empty(component, architecture, preset)
        table = key_table(component, network, architecture, preset)
        needed |= published_shapes(table, shapes(network))
        loaded.networks[component] = network
        filled[component] = table
    misfit = compare(needed, source, text_layers=architecture.text["num_hidden_layers"])
    if misfit:
        raise CheckpointError(describe_misfit(misfit, source, name=name, preset=preset))
    for component, table in filled.items():
        kind = dtype_for(component, dtype)
        if not lazy:
            fill(loaded.networks[component], table, source, dtype=kind)
        elif kind is not None:
            nn.Module.to(loaded.networks[component], kind)
    return loaded


def load_network(
    source: TensorSource, component: Component, architecture: Architecture, preset: Preset, *, dtype: Dtypes
) -> nn.Module:
    """Build and fill one network from a source that `load_networks` found to fit."""
    network = build_empty(component, architecture, preset)
    fill(network, key_table(component, network, architecture, preset), source, dtype=dtype_for(component, dtype))
    return network


def missing_encoders(source: TensorSource) -> list[str]:
    """The encoders of which a file holds nothing though its networks need them, as a pruned one does."""
    prefixes: dict[str, str] = {"text_encoder": PREFIXES["text_encoder"], "image_encoder": "embedder.model.visual."}
    keys = list(source.keys())
    network = tell_network(source)
    if network is not None and not NETWORKS[network].reads_image:
        del prefixes["image_encoder"]
    return [name for name, prefix in prefixes.items() if not any(key.startswith(prefix) for key in keys)]


def describe_misfit(misfit: Misfit, source: TensorSource, *, name: str, preset: Preset) -> str:
    """One message that lists every kind of misfit once, and says what the file seems to be."""
    parts = [
        f"{len(keys)} {kind}: {', '.join(keys[:_LISTED])}{f' and {len(keys) - _LISTED} more' * (len(keys) > _LISTED)}"
        for kind, keys in (
            ("missing", misfit.missing),
            ("unexpected", misfit.unexpected),
            ("misshapen", misfit.misshapen),
        )
        if keys
    ]
    return (
        f"{name} does not fit preset {preset.name}: {'; '.join(parts)}. It looks like {looks_like(source.keys())}; "
        f"use a complete checkpoint of this preset."
    )


def _encoder_names(key: str) -> Sequence[str]:
    """Published names under which one tensor of an encoder file serves."""
    text, image = (PREFIXES[name] for name in ENCODERS)
    if key.startswith((text, image)):
        return (key,)
    if key.startswith("visual."):
        return (image + key,)
    if key in REPEATED_TEXT_TABLES:
        return text + key, image + key
    return (text + key,) if key.startswith("transformer.") else ()
