"""Attention along time that knows how far apart two frames are (arXiv:1803.02155, eq. 3 and 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RelativePositions(nn.Module):
    """Attention whose scores and answers also hold a learned vector for the distance from query to key.

    Distances beyond `farthest` count as that, so that a sequence may be of any length. One table serves all heads.

    Args:
        head_dim: channels of one head.
        farthest: the largest distance that has a vector of its own, in either direction.
    """

    def __init__(self, head_dim: int, *, farthest: int) -> None:
        super().__init__()
        self.farthest = farthest
        self.key_table = nn.Parameter(torch.zeros(2 * farthest + 1, head_dim))
        self.value_table = nn.Parameter(torch.zeros(2 * farthest + 1, head_dim))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend within a sequence. (n, f, heads, d) thrice → (n, f, heads, d)."""
        places = torch.arange(query.shape[1], device=query.device)
        row = (places - places[:, None]).clamp(-self.farthest, self.farthest) + self.farthest  # (query, key)
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        scores = query @ key.mT + torch.einsum("nhqd,qkd->nhqk", query, self.key_table[row])
        weights = torch.softmax(scores * query.shape[-1] ** -0.5, dim=-1)
        attended = weights @ value + torch.einsum("nhqk,qkd->nhqd", weights, self.value_table[row])
        return attended.transpose(1, 2)
