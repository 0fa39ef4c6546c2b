"""Softmax attention by the fastest way that a device has for its shapes."""

from __future__ import annotations

from math import ceil

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, is_grad_enabled

from dynamicrafter.kernels.products import multiplies_bfloat16

# Keys; beyond, the matrix of all weights takes more memory than the fused kernel's slower backward pass is worth.
_FEW_KEYS = 1024
# Queries, keys and values, and softmax weights, at once: few enough to stay in a processor's cache between products,
_SEQUENCE_BYTES = 2 * 2**20
_WEIGHTS_BYTES = 8 * 2**20
# and on Apple's GPU few enough for its memory, and for tensors of less than 2³¹ elements.
_MPS_BYTES = 512 * 2**20
# Sequences of one launch on CUDA: a grid's second and third side are no longer; and elements, padded to the tiles of
# the fused kernels, that their backward pass can number.
_MOST_SEQUENCES = 65_535
_MOST_ELEMENTS = 2**31
_TILE = (128, 64)  # queries, channels of a head


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention. (b, n, heads, d) and twice (b, m, heads, d) → (b, n, heads, d).

    diffusers chooses the backend, but where PyTorch's fused kernel is slow or missing:

    - a CPU takes the plain formula where it needs half the time (docs/benchmarks.md): short sequences forth and back
      while training, and everything in bfloat16;
    - Apple's GPU, where PyTorch keeps the matrix of all scores, takes it in parts, with scores in float32;
    - CUDA gets no more sequences at once than its kernels can number.
    """
    kind = device_kind(query)
    if query.requires_grad and kind == "cpu" and key.shape[1] <= _FEW_KEYS:
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        weights = torch.softmax((query * query.shape[-1] ** -0.5) @ key.mT, dim=-1)
        return (weights @ value).transpose(1, 2)
    if kind == "cuda":
        return _attend_by_sequences(query, key, value)
    if not is_grad_enabled():
        if multiplies_bfloat16(query):
            return _attend_in_parts(query, key, value, sequences=_SEQUENCE_BYTES, weights=_WEIGHTS_BYTES)
        if kind == "mps" and _score_bytes(query, key) > _MPS_BYTES:
            return _attend_in_parts(
                query, key, value, sequences=_MPS_BYTES, weights=_MPS_BYTES, scores_in=torch.float32
            )
    return dispatch_attention_fn(query, key, value)


def device_kind(tensor: Tensor) -> str:
    """The kind of device that a tensor is on: cpu, cuda, mps, meta, …"""
    return tensor.device.type


def _score_bytes(query: Tensor, key: Tensor) -> int:
    batch, queries, heads, _ = query.shape
    return batch * heads * queries * key.shape[1] * torch.float32.itemsize


def _attend_by_sequences(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """diffusers' choice, on no more sequences at once than CUDA's kernels can number."""
    most, batch = _MOST_SEQUENCES, query.shape[0]
    if is_grad_enabled():
        tokens, channels = (tile * ceil(side / tile) for side, tile in zip(query.shape[1::2], _TILE, strict=True))
        most = max(1, min(most, (_MOST_ELEMENTS - 1) // (query.shape[2] * tokens * channels)))
    if batch <= most:
        return dispatch_attention_fn(query, key, value)
    parts = zip(*(tensor.split(most) for tensor in (query, key, value)), strict=True)
    return torch.cat([dispatch_attention_fn(*part) for part in parts])


def _attend_in_parts(
    query: Tensor, key: Tensor, value: Tensor, *, sequences: int, weights: int, scores_in: torch.dtype | None = None
) -> Tensor:
    """The plain formula on some sequences at a time.

    Args:
        sequences: bytes of queries, keys and values at once.
        weights: bytes of scores at once.
        scores_in: their number format; None for the queries'.
    """
    attended = torch.empty_like(query)  # in the query's layout, as views that callers take back into theirs expect
    bytes_each = (query[0].numel() + key[0].numel() + value[0].numel()) * query.element_size()
    size = max(1, sequences // bytes_each)
    for place, *some in zip(*(tensor.split(size) for tensor in (attended, query, key, value)), strict=True):
        rows = (tensor.transpose(1, 2).flatten(0, 1).contiguous() for tensor in some)
        done = _attend_rows(*rows, most=weights, scores_in=scores_in or query.dtype)
        place.copy_(done.unflatten(0, (-1, query.shape[2])).transpose(1, 2))
    return attended


def _attend_rows(query: Tensor, key: Tensor, value: Tensor, *, most: int, scores_in: torch.dtype) -> Tensor:
    """(r, n, d) and twice (r, m, d) → (r, n, d); some rows at a time, and of long ones some queries."""
    _, num_queries, width = query.shape
    bytes_a_query = key.shape[1] * scores_in.itemsize
    rows, queries = (max(1, most // size) for size in (num_queries * bytes_a_query, bytes_a_query))
    attended = torch.empty_like(query)
    unused = query.new_empty((), dtype=scores_in)
    for places, asking, keys, values in zip(*(each.split(rows) for each in (attended, query, key, value)), strict=True):
        keys = keys.to(scores_in).mT
        for place, few in zip(places.split(queries, dim=1), asking.split(queries, dim=1), strict=True):
            scores = torch.baddbmm(unused, few.to(scores_in), keys, beta=0, alpha=width**-0.5)
            place.copy_(torch.softmax(scores, dim=-1).to(values.dtype) @ values)
    return attended
