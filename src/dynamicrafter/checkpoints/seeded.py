"""Weights drawn from their published names: the same everywhere, with no file.

They make the golden tests and the benchmarks possible without a download. Their pictures are noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicrafter.architectures import Architecture
from dynamicrafter.checkpoints.keys import published_shapes
from dynamicrafter.checkpoints.networks import build_empty, components_of, key_table, shapes
from dynamicrafter.presets import Preset


def named_noise(name: str, shape: Iterable[int]) -> Tensor:
    """Standard normal float32 tensor whose CPU generator is seeded by the first 8 bytes of sha256(name)."""
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
    return torch.randn(tuple(shape), generator=generator)


def seeded_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float32 stand-in for the trained parameter `name`: variance 1/fan_in, gains near 1, biases near 0."""
    values = named_noise(name, shape)
    if len(shape) >= 2:
        return values / math.sqrt(math.prod(shape[1:]))
    if len(shape) == 1:
        return 1 + 0.1 * values if name.endswith(".weight") else 0.05 * values
    return 0.3 * values


@dataclass(frozen=True, slots=True)
class _Shape:
    shape: tuple[int, ...]
    dtype: str = "float32"


class SeededTensors:
    """A published checkpoint that is computed instead of read; fits wherever a file of tensors does."""

    def __init__(self, architecture: Architecture, preset: Preset) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        for component in components_of(preset):
            network = build_empty(component, architecture, preset)
            table = key_table(component, network, architecture, preset)
            self._shapes |= published_shapes(table, shapes(network))

    def keys(self) -> Iterable[str]:
        return self._shapes.keys()

    def __contains__(self, key: object) -> bool:
        return key in self._shapes

    def info(self, key: str) -> _Shape:
        return _Shape(self._shapes[key])

    def __getitem__(self, key: str) -> Tensor:
        return seeded_weight(key, self._shapes[key])
