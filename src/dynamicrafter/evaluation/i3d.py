"""I3D (Inception inflated to video, arXiv:1705.07750), whose answers the Fréchet video distance compares.

The files in circulation are TorchScript, which is a program that loading would run, or plain state dicts. This is the
network for the latter, under the names of the widely used PyTorch port (`rgb_imagenet.pt`:
`Conv3d_1a_7x7.conv3d.weight`, `Mixed_3b.b1a.bn.weight`, …), so that its weights can be read as data.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from torch import Tensor, nn

from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.errors import CheckpointError

SIZE = 224  # pixels along each side
LEAST_FRAMES = 9  # fewer leave no two steps of time to average over
NUM_CLASSES = 400  # of Kinetics

# Widths of the four branches: 1×1; 1×1 then 3×3; 1×1 then 3×3; 1×1 after pooling. Table in arXiv:1409.4842.
_MIXED = {
    "3b": (64, (96, 128), (16, 32), 32),
    "3c": (128, (128, 192), (32, 96), 64),
    "4b": (192, (96, 208), (16, 48), 64),
    "4c": (160, (112, 224), (24, 64), 64),
    "4d": (128, (128, 256), (24, 64), 64),
    "4e": (112, (144, 288), (32, 64), 64),
    "4f": (256, (160, 320), (32, 128), 128),
    "5b": (256, (160, 320), (32, 128), 128),
    "5c": (384, (192, 384), (48, 128), 128),
}


def pad_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Pad (b, c, t, h, w) with zeros so that each axis comes out as ⌈n / stride⌉, the odd one at the end."""
    pads: list[int] = []
    for length, size, step in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        lacking = max((-(-length // step) - 1) * step + size - length, 0)
        pads += [lacking // 2, lacking - lacking // 2]
    return F.pad(x, pads)


class Unit3D(nn.Module):
    """Convolution, batch norm (of the stored statistics) and ReLU."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inner, outer, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outer, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(pad_same(x, self.kernel, self.stride))))


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, inner: int, widths: tuple[int, tuple[int, int], tuple[int, int], int]) -> None:
        super().__init__()
        first, (second_in, second), (third_in, third), fourth = widths
        self.b0 = Unit3D(inner, first, 1)
        self.b1a, self.b1b = Unit3D(inner, second_in, 1), Unit3D(second_in, second, 3)
        self.b2a, self.b2b = Unit3D(inner, third_in, 1), Unit3D(third_in, third, 3)
        self.b3b = Unit3D(inner, fourth, 1)
        self.width = first + second + third + fourth

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class I3D(nn.Module):
    """Videos (b, 3, f, h, w) in [-1, 1], best 224×224, at least 9 frames → answers for 400 classes, (b, 400)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3D(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit3D(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, 3)
        width = 192
        for name, widths in _MIXED.items():
            mixed = Mixed(width, widths)
            self.add_module(f"Mixed_{name}", mixed)
            width = mixed.width
        self.logits = nn.Module()
        self.logits.conv3d = nn.Conv3d(width, NUM_CLASSES, 1)

    def forward(self, video: Tensor) -> Tensor:
        x = _pool(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in _MIXED:
            if name == "4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2))
            elif name == "5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(f"Mixed_{name}")(x)
        x = F.avg_pool3d(x, (2, *x.shape[3:]), stride=1)
        answers: Tensor = self.logits.get_submodule("conv3d")(x)
        return answers.mean(dim=(2, 3, 4))


def load_i3d(path: str | Path) -> I3D:
    """Read I3D's weights from a state dict, `.safetensors` or torch.save's; nothing in the file is run.

    Raises:
        CheckpointError: no such file, no state dict (as TorchScript is none), or not I3D's.
    """
    with init_empty_weights(include_buffers=True):
        network = I3D()
    needed = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    with open_tensors(path) as file:
        counters = {name for name in needed if name.endswith("num_batches_tracked")}  # older files have none
        wrong = [
            name
            for name, shape in needed.items()
            if name not in counters and (name not in file or tuple(file.info(name).shape) != shape)
        ]
        if wrong:
            raise CheckpointError(
                f"{path} holds no I3D: {len(wrong)} of {len(needed) - len(counters)} tensors are missing or of another "
                f"shape, such as {wrong[0]}; name a state dict in the layout of rgb_imagenet.pt."
            )
        state = {name: torch.tensor(0) if name in counters else file[name].float() for name in needed}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Largest of each window; zeros at the border don't count against what ReLU has left."""
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)
