"""Reading the golden files and measuring against them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
TINY = ("tiny256", "tiny512", "tiny1024")

MODULE_TOLERANCE = 3e-6  # ‖ours − golden‖ / ‖golden‖ of one network in float32
TRAJECTORY_TOLERANCE = 1.2e-5  # the same for a whole sampling run


def load(name: str) -> dict[str, torch.Tensor]:
    """The tensors of a golden file, and the pictures (3, h, w), uint8, that lie beside it without loss."""
    pictures = {
        path.name.removeprefix(f"{name}.").removesuffix(".webp"): path for path in GOLDEN.glob(f"{name}.*.webp")
    }
    read = {key: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for key, path in pictures.items()}
    return load_file(GOLDEN / f"{name}.safetensors") | read


def relative_error(ours: torch.Tensor, golden: torch.Tensor) -> float:
    assert ours.shape == golden.shape, f"{tuple(ours.shape)} against {tuple(golden.shape)}"
    return ((ours.double() - golden.double()).norm() / golden.double().norm()).item()
