"""CLIP similarity of frames to their prompt and to a picture, with a full checkpoint's own towers.

The published files keep what conditioning doesn't read and similarity needs: the text tower's last layer, and both
projections into the space that the towers share. They are read from there; nothing stands in for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynamicrafter.checkpoints.keys import PREFIXES, published_shapes
from dynamicrafter.checkpoints.load import open_checkpoint
from dynamicrafter.checkpoints.networks import TensorSource, build_empty, fill, key_table, shapes
from dynamicrafter.checkpoints.published import open_folder
from dynamicrafter.checkpoints.variants import tell_architecture
from dynamicrafter.errors import CheckpointError
from dynamicrafter.evaluation.frames import check_clip
from dynamicrafter.media.clip_pixels import clip_pixels
from dynamicrafter.media.framing import to_tensor
from dynamicrafter.presets import USUAL_PRESET, get_preset
from dynamicrafter.text.tokenizer import tokenize

if TYPE_CHECKING:
    from dynamicrafter.hub import LocalModel

_TEXT, _IMAGE = PREFIXES["text_encoder"], PREFIXES["image_encoder"]
_TEXT_PROJECTION, _IMAGE_PROJECTION = f"{_TEXT}text_projection", f"{_IMAGE}visual.proj"
_LAYER = re.compile(re.escape(_TEXT) + r"transformer\.resblocks\.(\d+)\.ln_1\.weight")
_BATCH = 8  # frames that go through the tower at a time


@dataclass(frozen=True, slots=True)
class Similarity:
    """Mean cosine of a clip's frames to its prompt and to a picture, −1 … 1; None for what was not given."""

    text: float | None
    image: float | None


@dataclass(frozen=True, slots=True)
class ClipTowers:
    """Both towers and their projections, on one device."""

    text: nn.Module
    image: nn.Module
    text_projection: Tensor  # (c_text, c)
    image_projection: Tensor  # (c_image, c)

    @torch.no_grad()
    def embed_texts(self, prompts: list[str]) -> Tensor:
        """Unit vectors of prompts, (b, c): what the text tower holds at the end token."""
        ids = tokenize(prompts).ids.to(self.text_projection.device)
        states = self.text(ids).last_hidden_state.float()
        ends = states[torch.arange(len(ids)), ids.argmax(dim=1)]  # the end token has the highest number
        return F.normalize(ends @ self.text_projection, dim=-1)

    @torch.no_grad()
    def embed_frames(self, frames: np.ndarray) -> Tensor:
        """Unit vectors of frames (f, h, w, 3), uint8: (f, c)."""
        check_clip(frames)
        dtype, device = next(self.image.parameters()).dtype, self.image_projection.device
        found = []
        for part in np.array_split(frames, -(-len(frames) // _BATCH)):
            pixels = clip_pixels(to_tensor(part).transpose(0, 1).to(device)).to(dtype)
            pooled = self.image(pixel_values=pixels).pooler_output.float()
            found.append(F.normalize(pooled @ self.image_projection, dim=-1))
        return torch.cat(found)


def load_towers(model: LocalModel, *, encoders: Path | None = None, device: str = "cpu") -> ClipTowers:
    """Read the towers of a model on this machine: a complete checkpoint, a pruned one with `encoders`, or a folder.

    Raises:
        CheckpointError: unreadable, not DynamiCrafter, or without what similarity needs.
    """
    with _opened(model, encoders) as source:
        return towers_of(source, name=str(model.path), device=device)


def towers_of(source: TensorSource, *, name: str, device: str = "cpu") -> ClipTowers:
    """Build the towers from a source of published tensors.

    Args:
        source: a checkpoint's tensors by published name.
        name: how messages call it.
        device: where the towers go; in float32 on the CPU, else as they are stored.

    Raises:
        CheckpointError: a projection or the last text layer is not in the source.
    """
    architecture = tell_architecture(source, name=name)
    layers = [int(match[1]) for key in source.keys() if (match := _LAYER.fullmatch(key))]
    depth = architecture.text["num_hidden_layers"] + 1  # conditioning stops one layer before the end
    lacking = [key for key in (_TEXT_PROJECTION, _IMAGE_PROJECTION) if key not in source]
    if len(layers) < depth:
        lacking.append(f"{_TEXT}transformer.resblocks.{depth - 1}")
    if lacking:
        raise CheckpointError(
            f"{name} has no {', '.join(lacking)}, which CLIP similarity needs beside the towers; name a complete "
            f"published checkpoint, or a pruned one with --encoders."
        )
    architecture = replace(architecture, text=architecture.text | {"num_hidden_layers": depth})
    preset = get_preset(USUAL_PRESET)  # the towers are the same for all
    dtype = torch.float32 if device == "cpu" else None
    built = {}
    for component in ("text_encoder", "image_encoder"):
        network = build_empty(component, architecture, preset)
        table = key_table(component, network, architecture, preset)
        for key, shape in published_shapes(table, shapes(network)).items():
            if key not in source or tuple(source.info(key).shape) != shape:
                raise CheckpointError(f"{name} has no {key} of shape {shape}; name a complete published checkpoint.")
        fill(network, table, source, dtype=dtype)
        built[component] = network.to(device)
    return ClipTowers(
        text=built["text_encoder"],
        image=built["image_encoder"],
        text_projection=source[_TEXT_PROJECTION].float().to(device),
        image_projection=source[_IMAGE_PROJECTION].float().to(device),
    )


def measure_similarity(
    towers: ClipTowers, frames: np.ndarray, *, prompt: str = "", picture: np.ndarray | None = None
) -> Similarity:
    """Mean cosine of a clip's frames to its prompt and to a picture.

    Frames and picture are squashed to CLIP's square, as the pipeline does it for conditioning.

    Args:
        frames: (f, h, w, 3), uint8.
        prompt: empty for none.
        picture: (h, w, 3), uint8, of any size.
    """
    embedded = towers.embed_frames(frames)
    text = None if not prompt.strip() else float((embedded @ towers.embed_texts([prompt])[0]).mean())
    image = None if picture is None else float((embedded @ towers.embed_frames(picture[None])[0]).mean())
    return Similarity(text=text, image=image)


@contextmanager
def _opened(model: LocalModel, encoders: Path | None) -> Iterator[TensorSource]:
    if model.kind == "folder":
        with open_folder(model.path) as folder:
            yield folder
    else:
        with open_checkpoint(model.path, encoders=encoders) as file:
            yield file
