"""The sketch encoder's file, beside the model's: `sketch_encoder.ckpt`, or its half-precision copy."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import init_empty_weights

from dynamicrafter.architectures import Architecture
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.keys import PublishedKey, published_shapes, sketch_rows, translate
from dynamicrafter.checkpoints.networks import TensorSource, compare, fill, shapes
from dynamicrafter.errors import CheckpointError
from dynamicrafter.models.sketch_encoder import SketchEncoder

_OF_UNET = ("block_out_channels", "layers_per_block", "attention_levels", "attention_head_dim", "cross_attention_dim")


def empty_sketch_encoder(architecture: Architecture) -> SketchEncoder:
    """The encoder for a UNet of this size, its parameters on the meta device."""
    with init_empty_weights(include_buffers=False):
        encoder = SketchEncoder(**{name: architecture.unet[name] for name in _OF_UNET})
    return encoder.eval()


def sketch_table(encoder: SketchEncoder) -> dict[str, PublishedKey]:
    """Where each of its parameters stands in a published file."""
    config = encoder.config
    rows = sketch_rows(num_levels=len(config["block_out_channels"]), layers_per_block=config["layers_per_block"])
    return translate(encoder.state_dict(), rows)


def load_sketch_encoder(path: Path, architecture: Architecture, *, dtype: torch.dtype | None = None) -> SketchEncoder:
    """Read a sketch encoder's file.

    Raises:
        CheckpointError: unreadable, or something else than a sketch encoder for a UNet of this size.
    """
    with open_tensors(path) as source:
        return fill_sketch_encoder(source, architecture, name=path.name, dtype=dtype)


def fill_sketch_encoder(
    source: TensorSource, architecture: Architecture, *, name: str, dtype: torch.dtype | None = None
) -> SketchEncoder:
    """The same from any source of tensors; `name` is how messages call it."""
    encoder = empty_sketch_encoder(architecture)
    table = sketch_table(encoder)
    misfit = compare(published_shapes(table, shapes(encoder)), source, text_layers=0)
    if misfit:
        astray = [*misfit.missing, *misfit.unexpected, *misfit.misshapen]
        raise CheckpointError(
            f"{name} is no sketch encoder for a UNet of this size: {len(misfit.missing)} tensors are missing, "
            f"{len(misfit.unexpected)} unexpected and {len(misfit.misshapen)} misshapen, among them {astray[0]}; name "
            f"sketch_encoder.ckpt of Doubiiu/ToonCrafter."
        )
    fill(encoder, table, source, dtype=dtype)
    return encoder
