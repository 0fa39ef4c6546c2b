"""The UNet's blocks on a device one by one: each is copied there for its moment, the next one while it works.

diffusers' group offloading does the same for networks whose blocks all run, one after the other, in every call. Here a
call may leave out the depth (`models.deep_features`), and what has no block of its own would be copied forth and back
in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dynamicrafter.memory.host_copies import HostCopies
from dynamicrafter.models.unet import DynamiCrafterUNet


class Copier:
    """Copies tensors to a device, and has them there when the call returns."""

    ahead = False  # whether copying the next block while one works saves time

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self, waiting: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """Begin to copy; returns the copies, and what `finish` takes."""
        return [tensor.to(self._device) for tensor in waiting], None

    def finish(self, ticket: Any) -> None:
        """Let what is computed from now on find the copies in place."""

    def keep(self, tensor: Tensor) -> Tensor:
        """A tensor in the processor's memory, as it is copied fastest."""
        return tensor


class StreamCopier(Copier):
    """Copies on a CUDA stream of its own from pinned memory, so that neither the host nor other work waits."""

    ahead = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stream = torch.cuda.Stream(device)

    def start(self, waiting: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        # Made on the stream of the computation, where they are let go of, too: so memory goes from one block to the
        # next without a detour. The copies wait for whoever had it before.
        copies = [torch.empty_like(tensor, device=self._device) for tensor in waiting]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for copy, tensor in zip(copies, waiting, strict=True):
                copy.copy_(tensor, non_blocking=True)
            return copies, self._stream.record_event()

    def finish(self, ticket: Any) -> None:
        torch.cuda.current_stream(self._device).wait_event(ticket)

    def keep(self, tensor: Tensor) -> Tensor:
        try:
            return tensor.pin_memory()
        except RuntimeError:  # the system lets no more be pinned; the copy is slower, not wrong
            return tensor


class BlockOffload:
    """Keeps a UNet's blocks in the processor's memory and copies each to a device for its moment.

    What has no block stays on the device from `load` to `unload`.

    Args:
        unet: with its weights in the processor's memory.
    """

    def __init__(self, unet: DynamiCrafterUNet, device: torch.device, copier: Copier | None = None) -> None:
        self._copier = copier or (StreamCopier(device) if device.type == "cuda" else Copier(device))
        self._blocks = blocks_of(unet)
        self._unet, self._device = unet, device
        self._rest = HostCopies()
        self._waiting: list[list[tuple[Tensor, Tensor]]] = []
        for block in self._blocks:
            for tensor in _tensors(block):
                tensor.data = self._copier.keep(tensor.data)
        self._there: dict[int, list[tuple[Tensor, Tensor]]] = {}  # by place, tensors with what they wait as
        self._tickets: dict[int, Any] = {}
        self._handles: list[Any] = []
        for place, block in enumerate(self._blocks):
            self._handles += [
                block.register_forward_pre_hook(self._entering(place)),
                block.register_forward_hook(self._leaving(place), always_call=True),
            ]

    def load(self) -> None:
        """Have on the device what has no block."""
        self._rest.onload(_rest(self._unet), self._device)

    def unload(self) -> None:
        """Have everything in the processor's memory."""
        for place in list(self._there):
            self._drop(place)
        self._rest.offload(_rest(self._unet))

    def remove(self) -> None:
        """Undo all of it; the weights stay in the processor's memory."""
        self.unload()
        for handle in self._handles:
            handle.remove()

    def _entering(self, place: int) -> Callable[..., None]:
        def before(*_: Any) -> None:
            for other in self._there.keys() - {place, place + 1}:  # brought, and then not called
                self._drop(other)
            self._bring(place)
            self._copier.finish(self._tickets[place])
            if self._copier.ahead and place + 1 < len(self._blocks):
                self._bring(place + 1)

        return before

    def _leaving(self, place: int) -> Callable[..., None]:
        def after(*_: Any) -> None:
            self._drop(place)

        return after

    def _bring(self, place: int) -> None:
        if place in self._there:
            return
        tensors = _tensors(self._blocks[place])
        waiting = [tensor.data for tensor in tensors]
        copies, self._tickets[place] = self._copier.start(waiting)
        self._there[place] = list(zip(tensors, waiting, strict=True))
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.data = copy

    def _drop(self, place: int) -> None:
        for tensor, waiting in self._there.pop(place, []):
            tensor.data = waiting
        self._tickets.pop(place, None)


def blocks_bytes(unet: DynamiCrafterUNet, size: Callable[[nn.Module], int]) -> int:
    """Bytes of a UNet's weights on the device at once: what always stays, a block, and the next on its way.

    Args:
        size: bytes of a module's weights.
    """
    sizes = [size(block) for block in blocks_of(unet)]
    together = max((one + other for one, other in pairwise(sizes)), default=0)
    return size(unet) - sum(sizes) + together


def blocks_of(unet: DynamiCrafterUNet) -> list[nn.Module]:
    """What comes and goes by itself, in the order of execution."""
    down, up = ([part for stage in stages for part in _parts(stage)] for stages in (unet.down, unet.up))
    return [*down, unet.middle, unet.middle_out, *up]


def _parts(stage: Any) -> list[nn.Module]:
    return [*stage.units, *([] if stage.resize is None else [stage.resize])]


def _tensors(module: nn.Module) -> list[Tensor]:
    return list(chain(module.parameters(), module.buffers()))


def _rest(unet: DynamiCrafterUNet) -> dict[str, Tensor]:
    """What has no block."""
    inside = {id(tensor) for block in blocks_of(unet) for tensor in _tensors(block)}
    named = chain(unet.named_parameters(), unet.named_buffers())
    return {name: tensor for name, tensor in named if id(tensor) not in inside}
