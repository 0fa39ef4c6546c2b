"""Whether this machine can compile, asked before a model is loaded for it."""

from __future__ import annotations

import torch

from dynamicrafter.errors import InputError


def check_compiler(device: torch.device) -> None:
    """Raises InputError where PyTorch's compiler lacks what it makes a device's kernels with."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton_package

    if device.type == "cuda" and not has_triton_package():
        raise InputError("compile needs Triton on a GPU, which is not installed; leave compile out, or install triton.")
    if device.type != "cuda":
        try:
            get_cpp_compiler()
        except (InvalidCxxCompiler, RuntimeError):
            raise InputError(
                "compile needs a C++ compiler, and none was found; leave compile out, or install one, such as g++."
            ) from None
