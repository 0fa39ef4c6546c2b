"""Whole published files of the golden models: their seeded weights under every published key, and schedule tables."""

from functools import cache

import torch
from torch import Tensor

from checkpoint_files import tiny_shapes
from dynamicrafter.checkpoints.keys import SCHEDULE_BUFFERS
from dynamicrafter.checkpoints.published import schedule_buffers
from dynamicrafter.checkpoints.seeded import seeded_weight
from dynamicrafter.presets import get_preset

ENCODERS = ("cond_stage_model.", "embedder.")


@cache
def published(golden: str) -> dict[str, Tensor]:
    """All tensors of the file that `tiny256`, `tiny512` or `tiny1024` stands for. Shared: leave them as they are."""
    tables = schedule_buffers(get_preset(golden.removeprefix("tiny")))
    return {
        key: tables[key] if key in SCHEDULE_BUFFERS else seeded_weight(key, shape)
        for key, shape in tiny_shapes(golden).items()
    }


def pruned(golden: str, *, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The same without encoders, as pruned copies circulate."""
    return {key: tensor.to(dtype) for key, tensor in published(golden).items() if not key.startswith(ENCODERS)}


def openclip(golden: str) -> dict[str, Tensor]:
    """The two towers as OpenCLIP itself names them, one file for both."""
    text = "cond_stage_model.model."
    image = "embedder.model.visual."
    names = {key: key.removeprefix(text) for key in published(golden) if key.startswith(text)}
    names |= {key: f"visual.{key.removeprefix(image)}" for key in published(golden) if key.startswith(image)}
    return {name: published(golden)[key] for key, name in names.items()}
