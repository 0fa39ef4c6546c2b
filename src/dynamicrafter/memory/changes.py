"""Whether tensors are still what they were: by their versions, and by a sum over their bytes.

PyTorch counts the changes of a tensor, but not those that are made through `tensor.data`, as when adapters are fused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class TensorSnapshot:
    """What tensors are at one moment.

    Args:
        tensors: by any names; plain ones with values, on any devices.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._kept = {name: (id(tensor), _version(tensor), tensor.dtype) for name, tensor in tensors.items()}
        self._sums = _checksums(tensors.values())

    def looks_like(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether nothing tells that one of the tensors was changed or exchanged; reads no values."""
        return all(name in tensors and self._looks_same(name, tensors) for name in self._kept)

    def _looks_same(self, name: str, tensors: Mapping[str, Tensor]) -> bool:
        tensor = tensors[name]
        return (id(tensor), _version(tensor), tensor.dtype) == self._kept[name] and not tensor.is_meta

    def unchanged(self, tensors: Mapping[str, Tensor]) -> set[str]:
        """Names of those that are what they were; each must be there still."""
        same = (_checksums(tensors[name] for name in self._kept) == self._sums).tolist()
        return {name for name, each in zip(self._kept, same, strict=True) if each and self._looks_same(name, tensors)}

    def still_holds(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether all are what they were."""
        return self.looks_like(tensors) and len(self.unchanged(tensors)) == len(self._kept)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is of PyTorch's own kind and has values."""
    return type(tensor.data) is Tensor and not tensor.is_meta


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _checksums(tensors: Iterable[Tensor]) -> Tensor:
    """One sum for each tensor, (n,), int64, on the processor; a GPU adds up before it is waited for."""
    sums = [_checksum(tensor.detach()) for tensor in tensors]
    return torch.stack(sums).cpu() if sums else torch.empty(0, dtype=torch.int64)


def _checksum(tensor: Tensor) -> Tensor:
    """Sum of a tensor's bytes, taken by eights in the order that they have in memory."""
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    data = tensor.contiguous().flatten().view(torch.uint8)
    whole = len(data) // 8 * 8
    if data.storage_offset() % 8:
        data = data.clone()
    return data[:whole].view(torch.int64).sum() + data[whole:].sum()
