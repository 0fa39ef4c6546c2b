"""Tensors that go to a device and come back without being copied back, as their copies wait in the host's memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dynamicrafter.memory.changes import TensorSnapshot, is_plain


class HostCopies:
    """The copies of tensors that are on a device for a while.

    Only what was changed there is copied back.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._snapshot: TensorSnapshot | None = None

    def onload(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Have tensors on a device."""
        if all(tensor.device == device for tensor in tensors.values()):
            return
        self.offload(tensors)
        self._copies = {name: tensor.data for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            tensor.data = self._copies[name].to(device, non_blocking=True)
        self._snapshot = TensorSnapshot({name: tensor for name, tensor in tensors.items() if is_plain(tensor)})

    def offload(self, tensors: Mapping[str, Tensor]) -> None:
        """Have tensors in the host's memory."""
        there = {name: tensor for name, tensor in tensors.items() if tensor.device.type != "cpu"}
        known = self._snapshot if set(self._copies) <= set(there) else None
        unchanged = set() if known is None else known.unchanged(there)
        for name, tensor in there.items():
            tensor.data = self._copies[name] if name in unchanged else tensor.data.cpu()
        self._copies, self._snapshot = {}, None
