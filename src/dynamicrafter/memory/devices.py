"""Devices of this machine: which one runs a model, in which number format, and how much memory it has."""

from __future__ import annotations

import psutil
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.units import FREE, parse_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """The named device, or the best there is: CUDA, then Apple's GPU, then the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    device = named_device(name)
    if not has_device(device):
        raise InputError(f"device {name} is not on this machine; there is {', '.join(_found())}.")
    return device


def named_device(name: str | None = None) -> torch.device:
    """The named device, on this machine or not; None for the best there is.

    Raises:
        InputError: no name of a device.
    """
    try:
        device = torch.device(_found()[0] if name is None else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device must be cpu, cuda, cuda:N or mps, got {name!r}.")
    return device


def has_device(device: torch.device) -> bool:
    """Whether this machine has the device."""
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type in _found()


def _found() -> list[str]:
    """Kinds of devices on this machine, the best one first."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    return [kind for kind, there in (("cuda", cuda), ("mps", mps), ("cpu", True)) if there]


def indexed(device: torch.device) -> torch.device:
    """The device as tensors name it: "cuda" alone means the current one, and equals no tensor's device."""
    if device.index is not None or not has_own_memory(device):
        return device
    return torch.empty(0, device=device).device


def has_own_memory(device: torch.device) -> bool:
    """Whether a device has memory beside the processor's; Apple's GPU has not."""
    return device.type not in ("cpu", "mps")


def all_devices() -> list[str]:
    """Every GPU of this machine that PyTorch can use, or else the CPU."""
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["mps" if torch.backends.mps.is_available() else "cpu"]


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The named number format, or the fastest that keeps float32's range, else float16 on a GPU without it.

    Raises:
        InputError: unknown name.
    """
    if name is not None:
        if name not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}.")
        return DTYPES[name]
    if device.type == "cpu":
        # Without instructions for it, bfloat16 is emulated and slower than float32. Only a build with oneDNN can be
        # asked; those for Apple's processors have none.
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if not has_device(device):  # for a plan alone, which counts bytes: any such GPU has a format of two
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16


def total_memory(device: torch.device) -> int:
    """Total memory of a device, in bytes. Not what is free, so that the same run is planned alike every time.

    Apple's GPU may use a part of the machine's memory, which Metal names.

    Raises:
        InputError: the device is not on this machine.
    """
    if not has_device(device):
        raise InputError(
            f"device {device} is not on this machine; say how much memory it has with --memory, as in 8GB."
        )
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return psutil.virtual_memory().total


def free_memory(device: torch.device) -> int:
    """What other programs leave of a device's memory, with what this process holds of it, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free = psutil.virtual_memory().available
    if device.type == "mps":
        return min(torch.mps.recommended_max_memory(), free + torch.mps.driver_allocated_memory())
    return free + psutil.Process().memory_info().rss


def budget_bytes(memory: str | int | None, device: torch.device) -> int:
    """Bytes that a run may take on a device.

    Args:
        memory: such as 8GB, or bytes; "free" for what other programs leave at this moment; None for all of it.

    Raises:
        InputError: no size, or the memory of a device that is not on this machine.
    """
    if memory is None:
        return total_memory(device)
    if memory == FREE:
        return free_memory(device)
    return parse_memory(memory) if isinstance(memory, str) else memory
