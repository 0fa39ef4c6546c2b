"""Devices of this machine: which one runs a model, in which number format, and how much memory it has."""

from __future__ import annotations

import psutil
import torch

from dynamicrafter.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | None = None) -> torch.device:
    """The named device, or the best there is: CUDA, then Apple's GPU, then the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name is None:
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be cpu, cuda, cuda:N or mps, got {name!r}.") from None
    there = {"cpu": True, "cuda": cuda and (device.index or 0) < torch.cuda.device_count(), "mps": mps}
    if not there.get(device.type, False):
        found = ", ".join(kind for kind, present in (("cuda", cuda), ("mps", mps), ("cpu", True)) if present)
        raise InputError(f"device {name} is not on this machine; there is {found}.")
    return device


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
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16


def total_memory(device: torch.device) -> int:
    """Total memory of a device. The total, not what is free, so that the same run is planned alike every time."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def free_memory(device: torch.device) -> int:
    """What other programs leave of a device's memory, with what this process holds of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss
