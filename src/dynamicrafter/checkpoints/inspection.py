"""What a source of published tensors holds, read from names and shapes alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dynamicrafter.architectures import Architecture
from dynamicrafter.checkpoints.keys import PREFIXES, SCHEDULE_BUFFERS, Component, is_unused, published_shapes
from dynamicrafter.checkpoints.load import missing_encoders
from dynamicrafter.checkpoints.networks import (
    COMPONENTS,
    Misfit,
    TensorLike,
    TensorSource,
    build_empty,
    compare,
    components_of,
    key_table,
    shapes,
)
from dynamicrafter.checkpoints.published import bytes_as
from dynamicrafter.checkpoints.variants import possible_presets, tell_architecture
from dynamicrafter.presets import PRESETS, USUAL_PRESET, PresetName


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The tensors of one network.

    Attributes:
        parameters: numbers in the tensors that the network reads.
        unread: numbers in those under its prefix that nothing reads.
        dtypes: how many of the tensors that it reads have which dtype.
        num_bytes: of the tensors that it reads.
    """

    component: Component
    parameters: int
    unread: int
    dtypes: dict[str, int]
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a checkpoint file, a folder of ours or seeded weights hold.

    Attributes:
        architecture: the known size that its networks have; None for a size of its own, as only a folder can have.
        presets: which the tensors allow; several where only the user can tell, none where its rescale is no preset's.
        parts: in the order of `COMPONENTS`; one that is missing has no parameters.
        schedule_tables: how many of the noise schedule's tables are there; they are computed, not read.
        missing_encoders: the encoders of which there is nothing, as in a pruned file.
        misfit: how it differs, those encoders apart, from what the networks need.
        num_bytes: of all tensors.
    """

    architecture: Architecture | None
    presets: tuple[PresetName, ...]
    parts: tuple[Part, ...]
    schedule_tables: int
    missing_encoders: tuple[str, ...]
    misfit: Misfit
    num_bytes: int

    @property
    def dtypes(self) -> dict[str, int]:
        """How many of the tensors that networks read have which dtype, the most frequent first."""
        return dict(sum((Counter(part.dtypes) for part in self.parts), Counter()).most_common())


def inspect_source(source: TensorSource, *, name: str) -> Inspection:
    """Take stock of a source; reads no tensor but the end of its latent rescale.

    Args:
        name: how messages call the source.

    Raises:
        CheckpointError: it is not DynamiCrafter at all.
    """
    architecture = tell_architecture(source, name=name)
    presets = possible_presets(source)
    lacking = missing_encoders(source)
    preset = PRESETS[presets[0] if presets else USUAL_PRESET]
    layers = architecture.text["num_hidden_layers"]
    read: dict[Component, dict[str, tuple[int, ...]]] = {}
    for component in components_of(preset):
        network = build_empty(component, architecture, preset)
        read[component] = published_shapes(key_table(component, network, architecture, preset), shapes(network))
    needed = {key: shape for name, table in read.items() if name not in lacking for key, shape in table.items()}
    unread = [key for key in source.keys() if is_unused(key, text_layers=layers)]
    return Inspection(
        architecture=architecture,
        presets=tuple(presets),
        parts=tuple(_part(source, component, read.get(component, {}), unread) for component in COMPONENTS),
        schedule_tables=sum(key in SCHEDULE_BUFFERS for key in unread),
        missing_encoders=tuple(lacking),
        misfit=compare(needed, source, text_layers=layers),
        num_bytes=bytes_as(source),
    )


def _part(source: TensorSource, component: Component, needed: dict[str, tuple[int, ...]], unread: list[str]) -> Part:
    beside = [source.info(key) for key in unread if key.startswith(PREFIXES[component])]
    return describe_part(component, [source.info(key) for key in needed if key in source], beside)


def describe_part(component: Component, read: Sequence[TensorLike], unread: Sequence[TensorLike] = ()) -> Part:
    """Add up the tensors that a network reads, and those beside them that nothing reads."""
    return Part(
        component=component,
        parameters=sum(math.prod(info.shape) for info in read),
        unread=sum(math.prod(info.shape) for info in unread),
        dtypes=dict(Counter(info.dtype for info in read)),
        num_bytes=sum(math.prod(info.shape) * getattr(torch, info.dtype).itemsize for info in read),
    )
