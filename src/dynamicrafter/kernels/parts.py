"""Rows that don't depend on one another, some at a time, so that what is widened on the way stays small."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, is_grad_enabled
from torch.nn.utils import parametrize

# On a processor: from 32 MiB, glibc returns freed memory to the system, and the next tensor pays a page fault for every
# 4 KiB.
_INNER_BYTES = 24 * 2**20
# On an accelerator each part costs some launches: at 576×1024 two rows need 1,837 in parts of this size, and no more
# memory than elsewhere in the UNet; 6,270 in a processor's parts.
ROOMY_BYTES = 512 * 2**20


def part_bytes(device: torch.device | str) -> int:
    """Bytes of the widest tensor of a part on a device, where no plan says otherwise; counted as on a processor."""
    return _INNER_BYTES if torch.device(device).type in ("cpu", "meta") else ROOMY_BYTES


def in_parts(call: Callable[[Tensor], Tensor], tokens: Tensor, *, inner: int, num_bytes: int | None = None) -> Tensor:
    """What a call makes of tokens, (…, c) → (…, c′), some rows at a time.

    With gradients all rows at once: the backward pass would keep every part.

    Args:
        inner: the width of the widest tensor within the call.
        num_bytes: of that tensor, at most; None for what suits the device.
    """
    if is_grad_enabled():
        return call(tokens)
    rows = tokens.flatten(0, -2)
    most = part_bytes(tokens.device) if num_bytes is None else num_bytes
    parts = rows.split(max(1, most // (inner * rows.element_size())))
    if len(parts) == 1:
        return call(tokens)
    # Weights in 8 bits are widened once for all parts.
    with nullcontext() if torch.compiler.is_compiling() else parametrize.cached():
        return torch.cat([call(part) for part in parts]).view(tokens.shape)
