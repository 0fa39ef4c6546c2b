"""Softmax attention by the fastest way that a device has for its shapes."""

from __future__ import annotations

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, is_grad_enabled

from dynamicrafter.kernels.products import multiplies_bfloat16

# Keys; beyond, the matrix of all weights takes more memory than the fused kernel's slower backward pass is worth.
_FEW_KEYS = 1024
# Queries, keys and values, and softmax weights, at once: few enough to stay in a processor's cache between products.
_SEQUENCE_BYTES = 2 * 2**20
_WEIGHTS_BYTES = 8 * 2**20


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention. (b, n, heads, d) and twice (b, m, heads, d) → (b, n, heads, d).

    diffusers chooses the backend. Only a CPU takes the plain formula where it needs half the time of PyTorch's fused
    kernel (docs/benchmarks.md): short sequences forth and back while training, and everything in bfloat16.
    """
    if query.requires_grad and query.device.type == "cpu" and key.shape[1] <= _FEW_KEYS:
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        weights = torch.softmax((query * query.shape[-1] ** -0.5) @ key.mT, dim=-1)
        return (weights @ value).transpose(1, 2)
    if multiplies_bfloat16(query) and not is_grad_enabled():
        return _attend_in_parts(query, key, value)
    return dispatch_attention_fn(query, key, value)


def _attend_in_parts(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The plain formula on as many sequences at a time as a processor's cache holds with their weights."""
    attended = torch.empty_like(query)  # in the query's layout, as views that callers take back into theirs expect
    bytes_each = (query[0].numel() + key[0].numel() + value[0].numel()) * query.element_size()
    size = max(1, _SEQUENCE_BYTES // bytes_each)
    for place, *some in zip(*(tensor.split(size) for tensor in (attended, query, key, value)), strict=True):
        rows = _attend_rows(*(tensor.transpose(1, 2).flatten(0, 1).contiguous() for tensor in some))
        place.copy_(rows.unflatten(0, (-1, query.shape[2])).transpose(1, 2))
    return attended


def _attend_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(r, n, d) and twice (r, m, d) → (r, n, d); some rows at a time, and of long ones some queries."""
    _, num_queries, width = query.shape
    bytes_a_query = key.shape[1] * query.element_size()
    rows, queries = (max(1, _WEIGHTS_BYTES // size) for size in (num_queries * bytes_a_query, bytes_a_query))
    attended = torch.empty_like(query)
    unused = query.new_empty(())
    for places, asking, keys, values in zip(*(each.split(rows) for each in (attended, query, key, value)), strict=True):
        for place, few in zip(places.split(queries, dim=1), asking.split(queries, dim=1), strict=True):
            scores = torch.baddbmm(unused, few, keys.mT, beta=0, alpha=width**-0.5)
            place.copy_(torch.softmax(scores, dim=-1) @ values)
    return attended
