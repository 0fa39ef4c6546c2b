"""One home for random streams: a draw depends on what is made, never on where or beside what.

A stream is named by (seed, item, sample). Its generator lives on the CPU, so that the same noise falls on every
device, and each sample owns one, so that neither its place in a batch nor the number of workers changes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynamicrafter.errors import InputError

if TYPE_CHECKING:
    import torch

MAX_SEED = 2**64 - 1  # as ComfyUI's, and all that a generator takes


def stream_seed(seed: int, *, item: str = "", sample: int = 0) -> int:
    """Fold (seed, item, sample) into one seed of 63 bits; the plain seed itself for the first sample of no named item.

    Args:
        seed: 0 … 2⁶⁴ − 1, the user's.
        item: a name for the job, such as its key in a list of jobs; empty for a job on its own.
        sample: 0 for the first video of that job, 1 for the second, …

    Raises:
        InputError: seed or sample out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed must be between 0 and {MAX_SEED}, got {seed}; try 0.")
    if sample < 0:
        raise InputError(f"sample must not be negative, got {sample}; the first one is 0.")
    if not item and sample == 0:
        return seed
    digest = hashlib.sha256(f"{seed}\n{sample}\n{item}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def generator_for(seed: int, *, item: str = "", sample: int = 0) -> torch.Generator:
    """CPU generator at the start of the stream (seed, item, sample). See `stream_seed`."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, item=item, sample=sample))


def draw(shape: Sequence[int], generators: torch.Generator | Sequence[torch.Generator] | None) -> torch.Tensor:
    """Standard normal float32 tensor on the CPU; with one generator a sample, each sample draws from its own.

    Args:
        shape: with the batch first.
        generators: one for the whole batch, or as many as the batch is large; None for PyTorch's global one.

    Raises:
        InputError: the number of generators is not the batch.
    """
    import torch

    def normal(size: Sequence[int], generator: torch.Generator | None) -> torch.Tensor:
        device = "cpu" if generator is None else generator.device
        return torch.randn(tuple(size), generator=generator, device=device, dtype=torch.float32).cpu()

    if generators is None or isinstance(generators, torch.Generator):
        return normal(shape, generators)
    if len(generators) != shape[0]:
        raise InputError(f"generator must be one or as many as there are videos, {shape[0]}, got {len(generators)}.")
    return torch.stack([normal(shape[1:], generator) for generator in generators])
