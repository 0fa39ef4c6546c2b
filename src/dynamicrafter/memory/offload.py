"""Which networks are on the device, and how the others leave and come: the part of a memory plan that moves weights.

On a GPU with memory of its own, networks wait in the host's memory. Where the device shares that memory (CPU, Apple's
GPU), they are dropped and read again, so that only what comes from a file, a folder or seeded weights can leave. Both
are exact, and what was changed meanwhile stays changed.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.memory.blocks import BlockOffload
from dynamicrafter.memory.changes import TensorSnapshot
from dynamicrafter.memory.devices import has_own_memory, indexed
from dynamicrafter.memory.host_copies import HostCopies
from dynamicrafter.memory.int8 import dequantize, quantize, restore
from dynamicrafter.memory.malloc import keep_freed_memory, return_freed_memory, trim_heap
from dynamicrafter.memory.pages import drop_pages
from dynamicrafter.memory.plan import Measure, MemoryPlan, measures_on
from dynamicrafter.memory.reload import can_unload, is_hooked, is_unloaded, load, source_of, unload

logger = logging.getLogger(__name__)

Networks = Mapping[Component, Any]

_CONVOLVING = ("unet", "vae")
_UNET: frozenset[Component] = frozenset({"unet"})
_OF_UNET = frozenset({"blocks", "int8"})


class Offloader:
    """Brings a pipeline's networks to their device when they are asked for.

    Every method takes the networks by component, those that there are, which a pipeline's user may exchange at any
    time.
    """

    def __init__(self) -> None:
        self.device: torch.device | None = None  # None: wherever the user put them
        self.plan: MemoryPlan | None = None
        self._leaving: frozenset[Component] = frozenset()
        self._measures: frozenset[str] = frozenset()
        self._at_work: tuple[Any, ...] = ()
        self._copies: dict[Component, HostCopies] = {}
        self._unet: _TreatedUNet | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Offloader, ()  # hooks and copies belong to this process

    def __deepcopy__(self, memo: dict[int, Any]) -> Offloader:
        return Offloader()

    def fixed(self, networks: Networks, device: torch.device) -> frozenset[Component]:
        """Networks that can't leave a device, for they would be dropped and can't be read again as they are."""
        if has_own_memory(device):
            return frozenset()
        return frozenset(name for name in networks if not can_unload(networks[name]))

    def measures(self, networks: Networks, device: torch.device) -> tuple[Measure, ...]:
        """What can be done on a device and undone again; to be exact again, 8 bits need weights that can be read."""
        unet, source = networks["unet"], source_of(networks["unet"])
        treated = self._unet is not None and self._unet.is_of(unet) and self._unet.quantized
        exact = source is not None and (is_unloaded(unet) or treated or source.looks_right(unet))
        return tuple(name for name in measures_on(device.type) if name != "int8" or exact)

    def apply_plan(self, networks: Networks, plan: MemoryPlan | None, device: torch.device) -> None:
        """Do what a plan says from now on, and undo what one before it said; None for no measures at all."""
        device = indexed(device)
        self.plan, self._at_work = plan, ()
        measures = frozenset(plan.measures if plan else ())
        self._treat_unet(networks, measures & _OF_UNET, device)
        if device != self.device:
            self._copies.clear()
        self.device, self._measures = device, measures
        leaving: frozenset[Component] = frozenset(plan.leaving & networks.keys()) if plan else frozenset()
        leaving -= self.fixed(networks, device)
        if measures & _OF_UNET:
            leaving = leaving.union(_UNET) if has_own_memory(device) else leaving - _UNET
        self._leaving = leaving
        self._copies = {name: copies for name, copies in self._copies.items() if name in leaving}
        networks["unet"].set_part_bytes(plan.part_bytes if plan else None)
        for name in leaving:
            self._leave(networks, name)
        if device.type == "cpu":
            self._tune_heap()

    def end(self, networks: Networks) -> None:
        """Undo all measures and leave the networks, read or not, to whoever moves them next."""
        self._treat_unet(networks, frozenset(), torch.device("cpu"))
        networks["unet"].set_part_bytes(None)
        self.device = self.plan = None
        self._leaving, self._measures, self._at_work = frozenset(), frozenset(), ()
        self._copies.clear()

    def onload(self, networks: Networks, *names: Component) -> None:
        """Have these networks on the device, as far as there are any; of the others, those leave that don't stay."""
        names = tuple(name for name in names if name in networks)
        at_work = tuple((name, id(networks[name])) for name in names)
        devices = {_device_of(networks[name]) for name in names} - {None}  # absent encoders have no weights
        if at_work == self._at_work and (self.device is None or devices <= {self.device}):
            return  # as in every step of a run
        for name in self._leaving.difference(names):
            self._leave(networks, name)
        for name in names:
            self._come(networks, name)
        self._at_work = at_work
        if torch.device("cpu") in {_device_of(networks[name]) for name in names}:
            self._tune_heap()

    def _tune_heap(self) -> None:
        """Give back what reading weights, or the phase before, left free; tensors of the next are of other sizes."""
        return_freed_memory() if "heap" in self._measures else keep_freed_memory()
        trim_heap()

    def _treat_unet(self, networks: Networks, measures: frozenset[str], device: torch.device) -> None:
        """Change between whole and in blocks, between exact and 8 bits, with the weights off the device."""
        treated = self._unet
        if treated is not None:
            if treated.is_of(networks["unet"]) and (treated.measures, treated.device) == (measures, device):
                return
            treated.undo()
            self._unet = None
        if measures:
            if has_own_memory(device):
                self._to_host(networks, "unet")
            _load(networks, "unet")
            self._unet = _TreatedUNet(networks["unet"], measures, device)

    def _come(self, networks: Networks, name: Component) -> None:
        network = networks[name]
        _load(networks, name)
        if self.device is None or is_hooked(network):
            return
        if self._blocks(network) is not None:
            self._blocks(network).load()
        elif name in self._leaving and has_own_memory(self.device):
            self._copies.setdefault(name, HostCopies()).onload(_tensors(network), self.device)
        else:
            for tensor in _tensors(network).values():
                if tensor.device != self.device:
                    tensor.data = tensor.data.to(self.device, non_blocking=True)

    def _leave(self, networks: Networks, name: Component) -> None:
        network = networks[name]
        if self.device is None or is_hooked(network):
            return
        if self._blocks(network) is not None:
            self._blocks(network).unload()
        elif has_own_memory(self.device):
            self._to_host(networks, name)
        elif not is_unloaded(network):
            if unload(network):
                trim_heap()
            else:
                self._leaving -= {name}

    def _to_host(self, networks: Networks, name: Component) -> None:
        """Have a network in the host's memory; one that is unloaded stays so."""
        if not is_unloaded(networks[name]):
            self._copies.pop(name, HostCopies()).offload(_tensors(networks[name]))

    def _blocks(self, network: nn.Module) -> Any:
        """What moves the network's blocks; None where it moves as a whole."""
        return self._unet.blocks if self._unet is not None and self._unet.is_of(network) else None


class _TreatedUNet:
    """A UNet in 8 bits, in blocks, or both.

    Args:
        unet: with its weights in the host's memory.
        measures: one or two of them.
    """

    def __init__(self, unet: Any, measures: frozenset[str], device: torch.device) -> None:
        self.measures, self.device = measures, device
        self._network = unet
        self._codes: TensorSnapshot | None = None
        self.blocks: BlockOffload | None = None
        source = source_of(unet)
        if "int8" in measures:
            if source is None or not source.is_right(unet):
                logger.warning("The denoiser was changed since it was read, and is not turned into 8 bits.")
            else:
                quantize(unet)
                self._codes = TensorSnapshot(_tensors(unet))
        if "blocks" in measures:
            self.blocks = BlockOffload(unet, device)

    @property
    def quantized(self) -> bool:
        return self._codes is not None

    def is_of(self, unet: nn.Module) -> bool:
        return unet is self._network

    def undo(self) -> None:
        """Have the exact weights again, or, where somebody changed those in 8 bits, these."""
        if self.blocks is not None:
            self.blocks.remove()
        if self._codes is None:
            return
        source = source_of(self._network)
        assert source is not None
        if self._codes.still_holds(_tensors(self._network)):
            restore(self._network, source.read())
            source.note(self._network)
        else:
            logger.warning("The denoiser was changed while it was in 8 bits, and keeps their precision.")
            dequantize(self._network)
            source.forget()


def _device_of(network: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in network.parameters()), None)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(chain(network.named_parameters(), network.named_buffers()))


def _load(networks: Networks, name: Component) -> None:
    """Have a network's weights read and in the layout that it works in."""
    network = networks[name]
    if name not in _CONVOLVING:
        load(network)
    elif is_unloaded(network):
        load(network, finish=_lay_out)
    elif _in_other_layouts(network):
        source = source_of(network)
        known = source is not None and source.is_right(network)
        _lay_out(network)
        if source is not None and known:
            source.note(network)


def _in_other_layouts(network: nn.Module) -> list[Tensor]:
    """Weights of convolutions that are not laid out as videos are on their way, which spares copies of both."""
    return [
        tensor
        for tensor in network.parameters()
        if tensor.ndim == 4 and not tensor.is_meta and not tensor.is_contiguous(memory_format=torch.channels_last)
    ]


def _lay_out(network: nn.Module) -> None:
    """Turn convolutions' weights; not while they are read, for it would copy what is only mapped from a file."""
    otherwise = _in_other_layouts(network)
    left = [(each.data_ptr(), each.data_ptr() + each.nbytes) for each in otherwise if each.device.type == "cpu"]
    for tensor in otherwise:  # one by one, as a network's own method would stumble over kernels along time
        tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    drop_pages(left)


def free_cached_memory(device: torch.device) -> None:
    """Free what a run that failed leaves behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    trim_heap()
