"""From the picture's CLIP tokens to a few context tokens for every frame (arXiv:2310.12190, §3.2).

Learned queries, ordered by frame, read the image tokens in alternating attention and feed-forward layers, as in a
Perceiver resampler (arXiv:2204.14198).
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from dynamicrafter.errors import InputError


class QueryAttention(nn.Module):
    """Queries look at the image tokens and at one another, through one shared projection of keys and values."""

    def __init__(self, width: int, *, num_heads: int, head_dim: int) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.norm_image = nn.LayerNorm(width)
        self.norm_queries = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, image: Tensor, queries: Tensor) -> Tensor:
        """Image tokens (b, n, c) and queries (b, q, c) → (b, q, c)."""
        image, queries = self.norm_image(image), self.norm_queries(queries)
        key, value = self.to_kv(torch.cat([image, queries], dim=1)).chunk(2, dim=-1)
        split = (tokens.unflatten(-1, (self.num_heads, -1)) for tokens in (self.to_q(queries), key, value))
        return self.to_out(dispatch_attention_fn(*split).flatten(-2))


class QueryFeedForward(nn.Module):
    """LayerNorm, then two Linears without biases around a GELU, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.proj_in = nn.Linear(width, 4 * width, bias=False)
        self.proj_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, queries: Tensor) -> Tensor:
        """(b, q, c) in and out."""
        return self.proj_out(F.gelu(self.proj_in(self.norm(queries))))


class ImageProjector(ModelMixin, ConfigMixin):
    """Turns the tokens of one picture into `num_queries` context tokens for each frame.

    Args:
        image_width: width of the image encoder's tokens.
        width: of the queries inside.
        output_width: of the context tokens; the UNet's cross_attention_dim.
        depth: pairs of attention and feed-forward.
        num_heads, head_dim: of the attention.
        num_queries: context tokens of one frame.
        num_frames: frames that queries were learned for; with 1, all frames of a clip share its tokens.
    """

    _no_split_modules = ("QueryAttention", "QueryFeedForward")

    @register_to_config
    def __init__(
        self,
        image_width: int = 1280,
        width: int = 1024,
        output_width: int = 1024,
        depth: int = 4,
        num_heads: int = 12,
        head_dim: int = 64,
        num_queries: int = 16,
        num_frames: int = 16,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_frames * num_queries, width) / width**0.5)
        self.proj_in = nn.Linear(image_width, width)
        self.attentions = nn.ModuleList(
            QueryAttention(width, num_heads=num_heads, head_dim=head_dim) for _ in range(depth)
        )
        self.feed_forwards = nn.ModuleList(QueryFeedForward(width) for _ in range(depth))
        self.proj_out = nn.Linear(width, output_width)
        self.norm_out = nn.LayerNorm(output_width)

    def forward(self, image_tokens: Tensor, num_frames: int | None = None) -> Tensor:
        """Project one picture's tokens for a clip.

        Args:
            image_tokens: (b, n, image_width), all tokens of the image encoder before its last norm.
            num_frames: length of the clip, 1 to the number learned; None for that number.

        Returns:
            (b, f, num_queries, output_width); (b, 1, num_queries, output_width) where frames share them.

        Raises:
            InputError: num_frames out of range.
        """
        learned = self.config["num_frames"]
        num_frames = learned if num_frames is None or learned == 1 else num_frames
        if not 1 <= num_frames <= learned:
            raise InputError(f"num_frames must be between 1 and {learned}, got {num_frames}; try {learned}.")
        image = self.proj_in(image_tokens)
        queries = self._queries_for(num_frames).flatten(0, 1).expand(image.shape[0], -1, -1)
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            queries = queries + attention(image, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries)).unflatten(1, (num_frames, -1))

    def _queries_for(self, num_frames: int) -> Tensor:
        """The learned queries resampled along time, (f, q, c): first frame on first, last on last, linear between."""
        by_frame = self.queries[0].unflatten(0, (self.config["num_frames"], -1))
        if num_frames == self.config["num_frames"]:
            return by_frame
        along_time = by_frame.permute(1, 2, 0)
        return F.interpolate(along_time, size=num_frames, mode="linear", align_corners=True).permute(2, 0, 1)
