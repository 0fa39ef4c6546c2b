"""What stands for a text encoder where a pipeline has none, and takes embeddings instead of prompts."""

from __future__ import annotations

from types import SimpleNamespace

from torch import nn

from dynamicrafter.architectures import TEXT_LENGTH


class AbsentTextEncoder(nn.Module):
    """No weights; it tells those who reckon with its sizes the published ones.

    Args:
        width: of the embeddings that are given in its stead.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=TEXT_LENGTH, hidden_size=width)
