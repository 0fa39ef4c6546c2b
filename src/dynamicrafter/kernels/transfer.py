"""Between a processor and its accelerator: copies that nobody waits for, and errors of its memory."""

from __future__ import annotations

import torch
from torch import Tensor

# Of Apple's GPU, and of the processor's allocators.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. To CUDA from pinned memory, so that both go on working while it is copied."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; of PyTorch's, only CUDA's has a class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _WORDS)
