"""Shapes of the networks: the published size, and the small one that tests and benchmarks run on.

Both sizes are instances of the same classes. Which one a file holds is read from the width of its first convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from dynamicrafter.presets import NetworkName, Preset

LATENT_CHANNELS = 4
TEXT_VOCABULARY = 49408
TEXT_LENGTH = 77  # tokens that the text encoder reads, start and end among them
CLIP_PIXELS = 224  # along each side of the picture that the image encoder reads
VAE_SCALING = 0.18215


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkKind:
    """How the networks of one member of the family differ from DynamiCrafter's.

    Attributes:
        unet, projector: constructor arguments that differ.
        reads_image: whether there are an image encoder and a projector at all.
        decodes_with_pictures: whether the autoencoder's decoder sees the first and the last picture.
        rescale_entries: length of the table of latent rescales in its files.
    """

    unet: dict[str, Any] = field(default_factory=dict)
    projector: dict[str, Any] = field(default_factory=dict)
    reads_image: bool = True
    decodes_with_pictures: bool = False
    rescale_entries: int = 1400


_FROM_TEXT = {"in_channels": LATENT_CHANNELS, "reads_image": False}
_RELATIVE = {"temporal_convolutions": False, "relative_positions": 16}

NETWORKS: dict[NetworkName, NetworkKind] = {
    "dynamicrafter": NetworkKind(),
    "dynamicrafter_toon": NetworkKind(decodes_with_pictures=True),
    "videocrafter1_image": NetworkKind(unet={"in_channels": LATENT_CHANNELS}, projector={"num_frames": 1}),
    "videocrafter1_text": NetworkKind(unet=_FROM_TEXT | _RELATIVE | {"reads_motion": False}, reads_image=False),
    "videocrafter1_text_fps": NetworkKind(unet=_FROM_TEXT | _RELATIVE, reads_image=False, rescale_entries=1000),
    "videocrafter2_text": NetworkKind(unet=_FROM_TEXT, reads_image=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Constructor arguments of the five networks, and the frame size they are run at where a preset's is too large."""

    name: str
    unet: dict[str, Any]
    projector: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    image: dict[str, Any]
    size: tuple[int, int] | None = None  # pixels, (height, width); None: the preset's

    @property
    def base_channels(self) -> int:
        return self.unet["block_out_channels"][0]

    def unet_config(self, preset: Preset) -> dict[str, Any]:
        """Arguments of the UNet for one preset."""
        return (
            self.unet
            | NETWORKS[preset.network].unet
            | {"learned_image_scale": preset.learned_image_scale, "default_motion": preset.motion.default}
        )

    def projector_config(self, preset: Preset) -> dict[str, Any]:
        """Arguments of the image projector for one preset whose networks read a picture."""
        return self.projector | NETWORKS[preset.network].projector


FULL = Architecture(
    name="full",
    unet={
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "attention_levels": (True, True, True, False),
        "attention_head_dim": 64,
        "cross_attention_dim": 1024,
    },
    projector={"image_width": 1280, "width": 1024, "output_width": 1024, "depth": 4, "num_heads": 12, "head_dim": 64},
    vae={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    text={"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 23},  # of 24 that the files hold
    image={"hidden_size": 1280, "num_attention_heads": 16, "num_hidden_layers": 32, "patch_size": 14},
)

TINY = Architecture(
    name="tiny",
    unet={
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "attention_levels": (True, True),
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
    },
    projector={"image_width": 48, "width": 32, "output_width": 32, "depth": 2, "num_heads": 2, "head_dim": 16},
    vae={"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
    text={"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2},
    image={"hidden_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 32},
    size=(64, 64),
)

ARCHITECTURES = (FULL, TINY)


def at_size(preset: Preset, architecture: Architecture) -> Preset:
    """A preset at the frame size that an architecture is run at."""
    if architecture.size is None:
        return preset
    return replace(preset, height=architecture.size[0], width=architecture.size[1])
