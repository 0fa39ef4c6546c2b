"""Where a pipeline's networks are: by a memory plan, by diffusers' and Accelerate's ways, or where they were put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import COMPONENTS
from dynamicrafter.memory.devices import total_memory
from dynamicrafter.memory.footprint import measure_footprint
from dynamicrafter.memory.offload import Networks, Offloader
from dynamicrafter.memory.plan import MemoryPlan, make_plan
from dynamicrafter.memory.reload import is_unloaded, load, source_of, unload
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.pipeline.absent import AbsentTextEncoder
from dynamicrafter.pipeline.base import PipelineBase


class OffloadedPipeline(PipelineBase):
    """A pipeline of five networks, each of which may be unloaded while it isn't needed."""

    unet: DynamiCrafterUNet
    offloader: Offloader

    @property
    def networks(self) -> Networks:
        """The networks by component, those that the model has; something without weights for a text encoder's lack."""
        found = {name: part for name in COMPONENTS if (part := getattr(self, name)) is not None}
        found.setdefault("text_encoder", AbsentTextEncoder(self.unet.config["cross_attention_dim"]))
        return found

    @property
    def _execution_device(self) -> torch.device:
        if self.offloader.device is not None:
            return self.offloader.device
        device = super()._execution_device
        return torch.device("cpu") if device.type == "meta" else device  # where what is unloaded is read to

    def apply_plan(self, plan: MemoryPlan | None, device: torch.device) -> None:
        """Run on a device as a plan says, from now on: networks leave and come, decode in tiles, …

        Args:
            plan: of `plan_memory`; None for all networks on the device.
        """
        self.offloader.apply_plan(self.networks, plan, device)

    def onload(self, *names: Component) -> None:
        """Have these networks on the device, with their weights read; each step calls it for its own."""
        self.offloader.onload(self.networks, *names)

    def plan_memory(
        self,
        *,
        height: int,
        width: int,
        num_frames: int,
        passes: int,
        videos: int = 1,
        decode_chunk_size: int = 1,
        budget: int | None = None,
        device: torch.device | None = None,
    ) -> MemoryPlan:
        """What a run takes, and what makes it fit; see `memory.plan.make_plan`.

        Args:
            height, width: pixels.
            passes: of a guided step, 1 to 3.
            videos: made as one batch.
            decode_chunk_size: frames decoded at a time.
            budget: bytes; None for all that the device has.
            device: to run on; None for where the pipeline is.
        """
        device = device or self._execution_device
        footprint = measure_footprint(
            self.networks,
            height=height,
            width=width,
            num_frames=num_frames,
            passes=passes,
            videos=videos,
            decode_chunk_size=decode_chunk_size,
            fixed=self.offloader.fixed(self.networks, device),
        )
        measures = self.offloader.measures(self.networks, device)
        return make_plan(footprint, device=device.type, budget=budget or total_memory(device), measures=measures)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast the networks, as in diffusers; a memory plan ends, and what is moved is read first.

        A cast alone leaves unloaded what is unloaded; it is read in the new number format.
        """
        self.offloader.end(self.networks)
        asked = [each for each in (*args, kwargs.get("device"), kwargs.get("dtype")) if each is not None]
        casts = [isinstance(each, torch.dtype) for each in asked]
        if not all(casts):
            for network in self.networks.values():
                load(network)
        same = [network for network in self.networks.values() if any(casts) and _is_as_read(network)]
        super().to(*args, **kwargs)
        for network in same:  # read again, they would be cast once, as now
            _note(network)
        return self

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Write a folder, as in diffusers; what is unloaded is read for it."""
        plan, device = self.offloader.plan, self.offloader.device
        away = [network for network in self.networks.values() if is_unloaded(network)]
        self._load_all()
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        for network in away:
            unload(network)
        if device is not None:
            self.apply_plan(plan, device)
        return saved

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> Any:
        """A pipeline of another one's components, as in diffusers; that one's memory plan ends."""
        if isinstance(pipeline, OffloadedPipeline):
            pipeline.offloader.end(pipeline.networks)
        return super().from_pipe(pipeline, **kwargs)

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Let Accelerate bring each network for its moment, as in diffusers; a memory plan ends."""
        self._load_all()
        super().enable_model_cpu_offload(*args, **kwargs)

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Let Accelerate bring each layer for its moment, as in diffusers; a memory plan ends."""
        self._load_all()
        super().enable_sequential_cpu_offload(*args, **kwargs)

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """Let diffusers bring groups of layers for their moment; a memory plan ends."""
        self._load_all()
        super().enable_group_offload(*args, **kwargs)

    def _load_all(self) -> None:
        """End the plan, and read what was not read."""
        self.offloader.end(self.networks)
        for network in self.networks.values():
            load(network)


def _is_as_read(network: nn.Module) -> bool:
    source = source_of(network)
    return source is not None and source.is_as_read(network)


def _note(network: nn.Module) -> None:
    source = source_of(network)
    assert source is not None
    source.note(network)
