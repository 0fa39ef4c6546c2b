"""Attention over space, over time, and to the text and the image.

Two transformers share one block shape, x += A(LN x); x += B(LN x); x += GEGLU(LN x). In the spatial one, A looks
around the frame and B at the text and the picture; in the temporal one both look along time. (arXiv:2310.12190, §3.2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from dynamicrafter.kernels.attention import attend
from dynamicrafter.kernels.layout import from_time_planes, to_pictures, to_time_planes, to_tokens
from dynamicrafter.kernels.parts import in_parts
from dynamicrafter.kernels.products import GatedLinear, Linear, geglu, joint_product
from dynamicrafter.models.relative import RelativePositions
from dynamicrafter.models.windows import Window, attend_in_windows


class ContextKeysValues(NamedTuple):
    """What one cross-attention needs of the text and the picture; constant over a whole sampling run.

    text_key, text_value: (b, n, heads, d), or (b·f, n, heads, d) where each frame has a text of its own.
    image_key, image_value: (b·f, m, heads, d), each frame its own tokens, or (b, m, heads, d), the same for all; m is 0
    where there is no picture.
    """

    text_key: Tensor
    text_value: Tensor
    image_key: Tensor
    image_value: Tensor


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself; q, k and v without biases, the output with one."""

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(width, width, bias=False)
        self.to_v = Linear(width, width, bias=False)
        self.to_out = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend along the last but one axis. (…, n, c) in and out, with one or two leading axes."""
        layers = (self.to_q, self.to_k, self.to_v)
        joint = joint_product(tokens, layers)
        projected = [layer(tokens) for layer in layers] if joint is None else joint.chunk(3, dim=-1)
        query, key, value = (each.unflatten(-1, (self.num_heads, -1)) for each in projected)
        return self.to_out(attend(query, key, value).flatten(-2))


class TimeSelfAttention(SelfAttention):
    """The same attention, each pixel to itself in the other frames.

    Args:
        farthest: distance of frames up to which attention tells them apart; None where it doesn't.
    """

    def __init__(self, width: int, *, num_heads: int, farthest: int | None = None) -> None:
        super().__init__(width, num_heads=num_heads)
        self.relative = None if farthest is None else RelativePositions(width // num_heads, farthest=farthest)

    # pyrefly: ignore [bad-override]
    def forward(self, tokens: Tensor, windows: Sequence[Window] | None = None) -> Tensor:
        """Attend along time, to all frames or within windows. (b, f, n, c) in and out; n pixels are independent."""
        batch = tokens.shape[0]
        layers = (self.to_q, self.to_k, self.to_v)
        joint = joint_product(tokens, layers)
        if joint is None:
            query, key, value = (
                rearrange(layer(tokens), "b f n (h d) -> (b n) f h d", h=self.num_heads) for layer in layers
            )
        else:
            query, key, value = rearrange(joint, "b f n (t h d) -> t (b n) f h d", t=3, h=self.num_heads)
        look = attend if self.relative is None else self.relative
        attended = look(query, key, value) if windows is None else attend_in_windows(look, query, key, value, windows)
        return self.to_out(rearrange(attended, "(b n) f h d -> b f n (h d)", b=batch))


class CrossAttention(nn.Module):
    """One query, two sources: A(q, K_text, V_text) + s·A(q, K_image, V_image).

    s is 1, or tanh(alpha) + 1 with a learned alpha where `learned_image_scale`. Where it doesn't `read_image`, the text
    is the only source.
    """

    def __init__(
        self, width: int, *, context_width: int, num_heads: int, learned_image_scale: bool, read_image: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k_text = Linear(context_width, width, bias=False)
        self.to_v_text = Linear(context_width, width, bias=False)
        self.to_k_image = Linear(context_width, width, bias=False) if read_image else None
        self.to_v_image = Linear(context_width, width, bias=False) if read_image else None
        self.to_out = Linear(width, width)
        self.alpha = nn.Parameter(torch.zeros(())) if learned_image_scale else None

    def project_context(self, text_context: Tensor, image_context: Tensor) -> ContextKeysValues:
        """Keys and values of text (b, n, c) and image tokens (b·f, m, c), or with one row for several frames."""
        key, value = self.to_k_text(text_context), self.to_v_text(text_context)
        if self.to_k_image is None or self.to_v_image is None:
            image_key, image_value = key[:, :0], value[:, :0]
        else:
            image_key, image_value = self.to_k_image(image_context), self.to_v_image(image_context)
        sources = (key, value, image_key, image_value)
        return ContextKeysValues(*(source.unflatten(-1, (self.num_heads, -1)) for source in sources))

    def forward(self, tokens: Tensor, context: ContextKeysValues) -> Tensor:
        """Let every token look at the text and at its frame's image tokens. (b·f, n, c) in and out."""
        query = self.to_q(tokens).unflatten(-1, (self.num_heads, -1))
        attended = _attend_shared(query, context.text_key, context.text_value)
        if context.image_key.shape[1] > 0:
            image = _attend_shared(query, context.image_key, context.image_value)
            if self.alpha is not None:
                image = image * (torch.tanh(self.alpha) + 1)
            attended = attended + image
        return self.to_out(attended.flatten(-2))


def _attend_shared(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of frames (b·f, n, heads, d) to rows (b, m, heads, d) that several of them may share."""
    # Frames that share their keys queue up as one long sequence against them.
    by_row = query.unflatten(0, (key.shape[0], -1)).flatten(1, 2)
    return attend(by_row, key, value).reshape(query.shape)


class GatedFeedForward(nn.Module):
    """GEGLU (arXiv:2002.05202) with an inner width of four times the outer, and the exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj_in = GatedLinear(width, 8 * width)
        self.proj_out = Linear(4 * width, width)
        self.part_bytes: int | None = None  # see `DynamiCrafterUNet.set_part_bytes`

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, c) in and out; tokens don't depend on one another, and the inside is the UNet's largest tensor."""
        return in_parts(self._gated, tokens, inner=8 * tokens.shape[-1], num_bytes=self.part_bytes)

    def _gated(self, tokens: Tensor) -> Tensor:
        return self.proj_out(geglu(self.proj_in, tokens))


class SpatialTransformer(nn.Module):
    """Attention within each frame, and from each frame to the text and its image tokens."""

    def __init__(
        self,
        channels: int,
        *,
        head_dim: int,
        context_width: int,
        groups: int,
        learned_scale: bool,
        read_image: bool = True,
    ) -> None:
        super().__init__()
        num_heads = channels // head_dim
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.self_attention = SelfAttention(channels, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.cross_attention = CrossAttention(
            channels,
            context_width=context_width,
            num_heads=num_heads,
            learned_image_scale=learned_scale,
            read_image=read_image,
        )
        self.norm3 = nn.LayerNorm(channels)
        self.feed_forward = GatedFeedForward(channels)
        self.proj_out = Linear(channels, channels)

    def forward(self, pictures: Tensor, context: ContextKeysValues) -> Tensor:
        """(b·f, c, h, w) in and out."""
        tokens = self.proj_in(to_tokens(self.norm(pictures)))
        tokens = tokens + self.self_attention(self.norm1(tokens))
        tokens = tokens + self.cross_attention(self.norm2(tokens), context)
        tokens = tokens + self.feed_forward(self.norm3(tokens))
        return pictures + to_pictures(self.proj_out(tokens), *pictures.shape[2:])


class TemporalTransformer(nn.Module):
    """Attention of every pixel to itself in the other frames: no mask, and no positional code but `farthest`'s."""

    def __init__(
        self, channels: int, *, num_heads: int, head_dim: int, groups: int, farthest: int | None = None
    ) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = Linear(channels, width)
        self.norm1 = nn.LayerNorm(width)
        self.attention1 = TimeSelfAttention(width, num_heads=num_heads, farthest=farthest)
        self.norm2 = nn.LayerNorm(width)
        self.attention2 = TimeSelfAttention(width, num_heads=num_heads, farthest=farthest)
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = GatedFeedForward(width)
        self.proj_out = Linear(width, channels)

    def forward(self, pictures: Tensor, num_frames: int, windows: Sequence[Window] | None = None) -> Tensor:
        """(b·f, c, h, w) in and out; attention sees all frames, or those within `windows`."""
        # Normalise before splitting: the released weights expect statistics over all frames together.
        planes = self.norm(to_time_planes(pictures, num_frames))
        tokens = self.proj_in(planes.permute(0, 2, 3, 1))
        tokens = tokens + self.attention1(self.norm1(tokens), windows)
        tokens = tokens + self.attention2(self.norm2(tokens), windows)
        tokens = tokens + self.feed_forward(self.norm3(tokens))
        planes = self.proj_out(tokens).permute(0, 3, 1, 2)
        return pictures + from_time_planes(planes, *pictures.shape[2:])
