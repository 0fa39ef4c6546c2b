"""Which networks are on the device, and how the others come and go: the part of a memory plan that moves weights.

On CUDA, networks wait in the processor's memory. Where the device shares that memory (CPU, Apple's GPU), they are
forgotten and read again, so that only what comes from a file, a folder or seeded weights can leave. Both are exact.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.memory.blocks import offload_blocks, remove_block_offload
from dynamicrafter.memory.int8 import quantize, restore
from dynamicrafter.memory.malloc import keep_freed_memory, return_freed_memory, trim_heap
from dynamicrafter.memory.pages import drop_pages
from dynamicrafter.memory.plan import Measure, MemoryPlan, measures_on

Reload = Callable[[Component], nn.Module]
Networks = Mapping[Component, Any]

_CONVOLVING = ("unet", "vae")
_OF_UNET = frozenset({"blocks", "int8"})


class Offloader:
    """Brings a pipeline's networks to their device when they are asked for.

    Every method takes the networks by component, those that there are, which a pipeline's user may exchange at any
    time.

    Args:
        origin: makes one of them anew, filled, in its number format; None where the weights come from elsewhere.
    """

    def __init__(self, origin: Reload | None = None) -> None:
        self.origin = origin
        self.device: torch.device | None = None  # None: wherever the user put them
        self.plan: MemoryPlan | None = None
        self._leaving: frozenset[Component] = frozenset()
        self._measures: frozenset[str] = frozenset()
        self._at_work: tuple[Component, ...] = ()
        self._waiting: dict[Tensor, Tensor] = {}  # by parameter on CUDA, what it is in the processor's memory

    def fixed(self, networks: Networks, device: torch.device) -> frozenset[Component]:
        """Networks that can't leave a device, for they would be forgotten and can't be read again as they are.

        Those are all without an origin, and those with adapters on them.
        """
        if device.type == "cuda":
            return frozenset()
        if self.origin is None:
            return frozenset(networks)
        return frozenset(name for name in networks if getattr(networks[name], "peft_config", None))

    def measures(self, device: torch.device) -> tuple[Measure, ...]:
        """What can be done on a device and undone again; to be exact again, 8 bits need an origin."""
        return tuple(name for name in measures_on(device.type) if name != "int8" or self.origin is not None)

    def apply_plan(self, networks: Networks, plan: MemoryPlan | None, device: torch.device) -> None:
        """Do what a plan says from now on, and undo what one before it said; None for no measures at all."""
        measures = frozenset(plan.measures if plan else ())
        leaving = (plan.leaving if plan else frozenset()) & networks.keys() - self.fixed(networks, device)
        if "int8" in measures and device.type != "cuda":
            leaving -= {"unet"}
        self.device, self.plan, self._leaving = device, plan, leaving
        networks["unet"].set_part_bytes(plan.part_bytes if plan else None)
        if measures & _OF_UNET != self._measures & _OF_UNET:
            self._treat_unet(networks, measures)
        self._measures = measures
        for name in leaving:
            self._leave(networks, name)
        if device.type == "cpu":
            self._tune_heap()

    def onload(self, networks: Networks, *names: Component) -> None:
        """Have these networks on the device, as far as there are any; of the others, those leave that don't stay."""
        names = tuple(name for name in names if name in networks)
        for name in self._leaving.difference(names):
            self._leave(networks, name)
        for name in names:
            self._come(networks, name)
        if names != self._at_work:
            self._at_work = names
            if next(networks[names[0]].parameters()).device.type == "cpu":
                self._tune_heap()

    def _tune_heap(self) -> None:
        """Give back what reading weights, or the phase before, left free; tensors of the next are of other sizes."""
        return_freed_memory() if "heap" in self._measures else keep_freed_memory()
        trim_heap()

    def _treat_unet(self, networks: Networks, measures: frozenset[str]) -> None:
        """Change between whole and in blocks, between exact and 8 bits, with the weights off the device."""
        unet = networks["unet"]
        assert self.device is not None
        if "blocks" in self._measures:
            remove_block_offload(unet)
        self._fill(networks, "unet")
        if self.device.type == "cuda":
            unet.to("cpu")
            self._waiting.clear()
        if "int8" in self._measures:
            assert self.origin is not None
            restore(unet, self.origin("unet"))
        _lay_out(networks, "unet")
        if "int8" in measures:
            quantize(unet)
        if "blocks" in measures:
            offload_blocks(unet, self.device)

    def _come(self, networks: Networks, name: Component) -> None:
        network = networks[name]
        self._fill(networks, name)
        _lay_out(networks, name)
        if self.device is None or (name == "unet" and "blocks" in self._measures):
            return
        for tensor in chain(network.parameters(), network.buffers()):
            if tensor.device != self.device:
                if self.device.type == "cuda" and name in self._leaving:
                    self._waiting[tensor] = tensor.data
                tensor.data = tensor.data.to(self.device, non_blocking=True)

    def _leave(self, networks: Networks, name: Component) -> None:
        network = networks[name]
        if self.device is not None and self.device.type == "cuda":
            for tensor in chain(network.parameters(), network.buffers()):
                if tensor.device.type == "cuda":
                    waiting = self._waiting.pop(tensor, None)
                    tensor.data = tensor.data.cpu() if waiting is None else waiting
        elif not is_unloaded(network):
            empty = {key: tensor.to("meta") for key, tensor in network.state_dict().items()}
            network.load_state_dict(empty, assign=True)
            trim_heap()

    def _fill(self, networks: Networks, name: Component) -> None:
        """Read a network that was forgotten, or never read."""
        network = networks[name]
        if not is_unloaded(network):
            return
        assert self.origin is not None
        network.load_state_dict(self.origin(name).state_dict(), assign=True)


def _lay_out(networks: Networks, name: Component) -> None:
    """Turn convolutions' weights to the layout that videos have on their way, which spares copies of both.

    Not while loading: a conversion would copy what is only mapped from a file.
    """
    if name not in _CONVOLVING:
        return
    network = networks[name]
    otherwise = [
        tensor
        for tensor in network.parameters()
        if tensor.ndim == 4 and not tensor.is_contiguous(memory_format=torch.channels_last)
    ]
    if otherwise:
        left = [(each.data_ptr(), each.data_ptr() + each.nbytes) for each in otherwise if each.device.type == "cpu"]
        for tensor in otherwise:  # one by one, as a network's own method would stumble over kernels along time
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        drop_pages(left)


def is_unloaded(network: nn.Module) -> bool:
    """Whether a network's weights were forgotten, or never read."""
    return any(parameter.device.type == "meta" for parameter in network.parameters())


def free_cached_memory(device: torch.device) -> None:
    """Free what a run that failed leaves behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim_heap()
