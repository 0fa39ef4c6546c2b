"""From nothing to the bundled model: fresh small networks, and clips of known motion in the order of a curriculum.

The autoencoder is fitted first, in seconds, and kept in the run's folder; the other networks train together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from dynamicrafter.architectures import CLIP_PIXELS, TEXT_VOCABULARY
from dynamicrafter.data.stream import Sample
from dynamicrafter.data.synthetic.clips import SyntheticClips
from dynamicrafter.data.synthetic.motions import Kind
from dynamicrafter.data.synthetic.wordings import vocabulary
from dynamicrafter.files.atomic import replacing_folder
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.presets import BUNDLED, NUM_FRAMES
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.text.tokenizer import tokenize
from dynamicrafter.training.config import Stage, TrainConfig, stage_start
from dynamicrafter.training.patch_autoencoder import fit_autoencoder
from dynamicrafter.training.still_clip import (
    DISPLACEMENTS,
    quieten_content,
    start_as_still_clip,
    start_with_clock,
    start_with_products,
)

AUTOENCODER = "autoencoder"  # its folder in the run's
COMPONENTS = 96  # of the 192 that a patch has
DISPLACEMENT = 8.0  # pixels
LATENT_CHANNELS = COMPONENTS + 2 + DISPLACEMENTS  # positions between them
CONTEXT_WIDTH = 64
POSITION_SLOPE = 0.5  # with 0.18, zooms and rotations did not begin
TEXT_LENGTH = 24  # tokens: of more, padding would drown the words
_IMAGE_WIDTH = 96


def fresh_pipeline(config: TrainConfig) -> DynamiCrafterPipeline:
    """The pipeline that a run from scratch begins with; the same for the same seed and autoencoder."""
    torch.manual_seed(config.seed)
    networks = fresh_networks()
    return DynamiCrafterPipeline(
        vae=_autoencoder(config.output / AUTOENCODER, photos=config.photos, seed=config.seed),
        scheduler=DynamiCrafterScheduler.from_preset(BUNDLED),
        preset=asdict(BUNDLED),
        **networks,
    )


def fresh_networks() -> dict[str, Any]:
    """UNet, projector and towers before the first step: they answer with a still clip, whatever the caption."""
    unet = DynamiCrafterUNet(
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(128, 128, 128),
        layers_per_block=1,
        attention_levels=(False, True, True),
        attention_head_dim=32,
        init_attention_heads=4,
        cross_attention_dim=CONTEXT_WIDTH,
        norm_num_groups=8,
        dropout=0.0,
        default_motion=BUNDLED.motion.default,
        max_frames=NUM_FRAMES,
    )
    start_as_still_clip(unet)
    start_with_products(unet)
    quieten_content(unet)
    projector = ImageProjector(
        image_width=_IMAGE_WIDTH,
        width=64,
        output_width=CONTEXT_WIDTH,
        depth=2,
        num_heads=2,
        head_dim=32,
        num_queries=4,
        num_frames=NUM_FRAMES,
    )
    start_with_clock(projector)
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=CONTEXT_WIDTH,
            num_attention_heads=2,
            num_hidden_layers=2,
            intermediate_size=4 * CONTEXT_WIDTH,
            vocab_size=TEXT_VOCABULARY,
            max_position_embeddings=TEXT_LENGTH,
            hidden_act="gelu",
        )
    )
    image = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=_IMAGE_WIDTH,
            num_attention_heads=3,
            num_hidden_layers=2,
            intermediate_size=4 * _IMAGE_WIDTH,
            patch_size=32,
            image_size=CLIP_PIXELS,
            hidden_act="gelu",
        )
    )
    _start_with_words(text)
    return {"unet": unet, "image_projector": projector, "text_encoder": text, "image_encoder": image}


def curriculum(config: TrainConfig) -> Curriculum:
    """The clips of a run's stages."""
    return Curriculum(stages=config.stages, seed=config.seed, photos=config.photos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """A `ClipStream` that goes through stages, each with its own motions, frame size and captions."""

    stages: tuple[Stage, ...]
    seed: int = 0
    photos: Path | None = None

    def __len__(self) -> int:
        return sum(stage.clips for stage in self.stages)

    def draw(self, position: int) -> Sample:
        """The clip at a position. See `ClipStream`."""
        number, start = stage_start(self.stages, position)
        stage = self.stages[number]
        clips = SyntheticClips(
            shares=cast("Mapping[Kind, float]", dict(stage.motions)),
            size=stage.size or BUNDLED.height,
            seed=self.seed + number,
            returning=stage.returning,
            bare=stage.bare,
            variations=stage.variations,
            motion_numbers=stage.motion_numbers,
            photos=self.photos,
        )
        return clips.draw(position - start)


def fresh_autoencoder() -> PatchAutoencoder:
    """The bundled model's autoencoder before it is fitted."""
    return PatchAutoencoder(
        latent_channels=LATENT_CHANNELS,
        encoder_width=0,
        decoder_width=0,
        position_slope=POSITION_SLOPE,
        displacement=DISPLACEMENT,
    )


def _autoencoder(folder: Path, *, photos: Path | None, seed: int) -> PatchAutoencoder:
    """The run's autoencoder: read from its folder, or fitted and kept there."""
    if not (folder / "config.json").is_file():
        autoencoder = fresh_autoencoder()
        fit_autoencoder(autoencoder, photos=photos, seed=seed)
        with replacing_folder(folder) as aside:
            autoencoder.save_pretrained(aside)
    return PatchAutoencoder.from_pretrained(folder).eval()


@torch.no_grad()
def _start_with_words(text: nn.Module) -> None:
    """Give the curriculum's words vectors that differ, and all other tokens none, so that unknown words say nothing."""
    table = next(parameter for name, parameter in text.named_parameters() if name.endswith("token_embedding.weight"))
    known = tokenize(["", *vocabulary()]).ids.unique()
    table.zero_()
    table[known] = torch.randn(len(known), table.shape[1])
