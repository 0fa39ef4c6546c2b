"""Rows that don't depend on one another, some at a time, so that what is widened on the way stays small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, is_grad_enabled

# On a processor: from 32 MiB, glibc returns freed memory to the system, and the next tensor pays a page fault for every
# 4 KiB.
_INNER_BYTES = 24 * 2**20


def in_parts(call: Callable[[Tensor], Tensor], tokens: Tensor, *, inner: int) -> Tensor:
    """What a call makes of tokens, (…, c) → (…, c′), some rows at a time.

    With gradients all rows at once: the backward pass would keep every part.

    Args:
        inner: the width of the widest tensor within the call.
    """
    if is_grad_enabled():
        return call(tokens)
    rows = tokens.flatten(0, -2)
    num_rows = max(1, _INNER_BYTES // (inner * rows.element_size()))
    return torch.cat([call(part) for part in rows.split(num_rows)]).view(tokens.shape)
