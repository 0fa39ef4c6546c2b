"""The five networks, built empty and filled tensor by tensor from any source of named tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from dynamicrafter.architectures import (
    CLIP_PIXELS,
    LATENT_CHANNELS,
    NETWORKS,
    TEXT_LENGTH,
    TEXT_VOCABULARY,
    VAE_SCALING,
    Architecture,
)
from dynamicrafter.checkpoints import keys as tables
from dynamicrafter.checkpoints.keys import PREFIXES, Component, PublishedKey
from dynamicrafter.presets import Preset

_READERS = 4  # threads

_FLOATING = ("float", "bfloat")
Dtypes = torch.dtype | Mapping[str, torch.dtype] | None


class TensorLike(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...  # torch's name, as "float32"


class TensorSource(Protocol):
    """Anything that knows tensors by published name: a file, or seeded weights."""

    def keys(self) -> Iterable[str]: ...

    def __contains__(self, key: object) -> bool: ...

    def info(self, key: str) -> TensorLike: ...

    def __getitem__(self, key: str) -> Tensor: ...


@dataclass(slots=True)
class Misfit:
    """How a source differs from what the networks need; empty when it fits."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)  # "key: (has) instead of (needs)"

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)


def build_empty(component: Component, architecture: Architecture, preset: Preset) -> nn.Module:
    """One network with its parameters on the meta device, where they take no memory, in evaluation mode."""
    # Parameters only: a few buffers (position numbers) are computed at construction and in no file.
    with init_empty_weights(include_buffers=False):
        network = _BUILDERS[component](architecture, preset)
    return network.eval()


def key_table(
    component: Component, network: nn.Module, architecture: Architecture, preset: Preset
) -> dict[str, PublishedKey]:
    """Where each parameter of `network` stands in a published file."""
    names = network.state_dict().keys()
    match component:
        case "unet":
            rows = tables.unet_rows(
                num_levels=len(architecture.unet["block_out_channels"]),
                layers_per_block=architecture.unet["layers_per_block"],
                attention_levels=architecture.unet["attention_levels"],
                motion_key=preset.motion_key,
            )
        case "image_projector":
            rows = tables.PROJECTOR_ROWS
        case "vae":
            toon = NETWORKS[preset.network].decodes_with_pictures
            rows = (tables.toon_rows if toon else tables.vae_rows)(len(architecture.vae["block_out_channels"]))
        case "text_encoder":
            rows = tables.TEXT_ROWS
        case "image_encoder":
            rows = tables.IMAGE_ROWS
    return tables.translate(names, rows, prefix=PREFIXES[component])


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by name."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def compare(needed: Mapping[str, tuple[int, ...]], source: TensorSource, *, text_layers: int) -> Misfit:
    """Hold the published names and shapes that the networks need against what a source has; reads no tensor."""
    misfit = Misfit()
    for key, shape in needed.items():
        if key not in source:
            misfit.missing.append(key)
        elif tuple(source.info(key).shape) != shape:
            misfit.misshapen.append(f"{key}: {tuple(source.info(key).shape)} instead of {shape}")
        elif not source.info(key).dtype.startswith(_FLOATING):
            misfit.misshapen.append(f"{key}: {source.info(key).dtype} instead of a floating-point type")
    misfit.unexpected = [
        key for key in source.keys() if key not in needed and not tables.is_unused(key, text_layers=text_layers)
    ]
    return misfit


def fill(
    network: nn.Module, table: Mapping[str, PublishedKey], source: TensorSource, *, dtype: torch.dtype | None
) -> None:
    """Give an empty network its parameters, cast one by one as they are read.

    Args:
        dtype: of the parameters afterwards; None keeps the source's, still mapped from the file where it is.
    """
    expected = shapes(network)
    names: dict[str, list[str]] = {}
    for name, place in table.items():
        names.setdefault(place.key, []).append(name)  # query, key and value share one published matrix

    def read(key: str) -> dict[str, Tensor]:
        whole = source[key]
        tensors = {}
        for name in names[key]:
            part = table[name].part
            tensor = whole if part is None else whole.chunk(3)[part]
            tensors[name] = (tensor if dtype is None else tensor.to(dtype)).reshape(expected[name])
        return tensors

    # Reading waits for the disk and casting for the processor; side by side neither waits for the other.
    state: dict[str, Tensor] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for tensors in pool.map(read, names):
            state |= tensors
    network.load_state_dict(state, strict=True, assign=True)


def dtype_for(component: str, dtypes: Dtypes) -> torch.dtype | None:
    """The dtype that one component gets; a mapping may hold a "default".

    The autoencoder stays in float32 where the rest is float16: its activations overflow there into black pictures.
    """
    if isinstance(dtypes, Mapping):
        return dtypes.get(component, dtypes.get("default"))
    if component == "vae" and dtypes is torch.float16:
        return torch.float32
    return dtypes


def _unet(architecture: Architecture, preset: Preset) -> nn.Module:
    from dynamicrafter.models.unet import DynamiCrafterUNet

    return DynamiCrafterUNet(**architecture.unet_config(preset))


def _projector(architecture: Architecture, preset: Preset) -> nn.Module:
    from dynamicrafter.models.projector import ImageProjector

    return ImageProjector(**architecture.projector_config(preset))


def _vae(architecture: Architecture, preset: Preset) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from dynamicrafter.models.toon_autoencoder import ToonAutoencoder

    levels = len(architecture.vae["block_out_channels"])
    kind = ToonAutoencoder if NETWORKS[preset.network].decodes_with_pictures else AutoencoderKL
    return kind(
        **architecture.vae,
        latent_channels=LATENT_CHANNELS,
        scaling_factor=VAE_SCALING,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        sample_size=preset.height,
    )


def _text_encoder(architecture: Architecture, preset: Preset) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    config: dict[str, Any] = architecture.text
    return CLIPTextModel(
        CLIPTextConfig(
            **config,
            intermediate_size=4 * config["hidden_size"],
            vocab_size=TEXT_VOCABULARY,
            max_position_embeddings=TEXT_LENGTH,
            hidden_act="gelu",
        )
    )


def _image_encoder(architecture: Architecture, preset: Preset) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config: dict[str, Any] = architecture.image
    return CLIPVisionModel(
        CLIPVisionConfig(
            **config, intermediate_size=4 * config["hidden_size"], image_size=CLIP_PIXELS, hidden_act="gelu"
        )
    )


_BUILDERS: dict[Component, Callable[[Architecture, Preset], nn.Module]] = {
    "unet": _unet,
    "image_projector": _projector,
    "vae": _vae,
    "text_encoder": _text_encoder,
    "image_encoder": _image_encoder,
}
COMPONENTS: tuple[Component, ...] = tuple(_BUILDERS)
OF_PICTURES: frozenset[Component] = frozenset({"image_encoder", "image_projector"})


def components_of(preset: Preset) -> tuple[Component, ...]:
    """The networks that a preset's checkpoint has: all five, or those that make clips from text alone."""
    if NETWORKS[preset.network].reads_image:
        return COMPONENTS
    return tuple(name for name in COMPONENTS if name not in OF_PICTURES)
