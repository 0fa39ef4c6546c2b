"""What a float32 product is on CUDA: float32, unless a user chooses TF32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch


@contextmanager
def full_float32(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Within, float32 convolutions on CUDA keep all of their 24 bits.

    PyTorch lets cuDNN round their factors to the 11 bits of TF32 by default, and those of matrix products not. Here the
    user's choice for products, `torch.set_float32_matmul_precision("high")`, is the choice for both.

    Args:
        dtype: of the networks; others than float32 are left alone.
    """
    if dtype is not torch.float32 or device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.get_float32_matmul_precision() != "highest"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


P = ParamSpec("P")
R = TypeVar("R")


def in_full_float32(run: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Let a pipeline's method keep float32 whole where its UNet works in it."""

    @functools.wraps(run)
    def kept(self: Any, *args: P.args, **options: P.kwargs) -> R:
        with full_float32(self.unet.dtype, self._execution_device):
            return run(self, *args, **options)

    return kept
