"""Attention over space, over time, and to the text and the image.

Two transformers share one block shape, x += A(LN x); x += B(LN x); x += GEGLU(LN x). In the spatial one, A looks
around the frame and B at the text and the picture; in the temporal one both look along time. (arXiv:2310.12190, §3.2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from einops import rearrange
from torch import Tensor, is_grad_enabled, nn
from torch.nn import functional as F

from dynamicrafter.models.layout import from_time_planes, to_pictures, to_time_planes, to_tokens
from dynamicrafter.models.products import Linear, fuses, linear, multiplies_bfloat16
from dynamicrafter.models.relative import RelativePositions
from dynamicrafter.models.windows import Window, attend_in_windows

# From 32 MiB, glibc returns freed memory to the system, and the next tensor pays a page fault for every 4 KiB.
_INNER_BYTES = 24 * 2**20


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
        query, key, value = (
            project(tokens).unflatten(-1, (self.num_heads, -1)) for project in (self.to_q, self.to_k, self.to_v)
        )
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
        query, key, value = (
            rearrange(project(tokens), "b f n (h d) -> (b n) f h d", h=self.num_heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
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
        self.proj_in = Linear(width, 8 * width)
        self.proj_out = Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, c) in and out."""
        if is_grad_enabled():
            return self._gated(tokens)
        # Tokens don't depend on one another, and the eight times wider inside is the UNet's largest tensor: in parts it
        # stays small at any frame size. Training keeps every part for the backward pass, and so would gain nothing.
        rows = tokens.flatten(0, -2)
        num_rows = max(1, _INNER_BYTES // (8 * rows.shape[1] * rows.element_size()))
        return torch.cat([self._gated(part) for part in rows.split(num_rows)]).view(tokens.shape)

    def _gated(self, tokens: Tensor) -> Tensor:
        # What oneDNN's GELU and two products for one change, bfloat16 can't tell, but float32 can. An adapter in the
        # first layer's place has a product of its own.
        if fuses(tokens) and tokens.dtype is torch.bfloat16 and type(self.proj_in) is Linear:
            value_weight, gate_weight = self.proj_in.weight.chunk(2)
            value_bias, gate_bias = self.proj_in.bias.chunk(2)
            gate = linear(tokens, gate_weight, gate_bias, gelu=True)
            return self.proj_out(linear(tokens, value_weight, value_bias).mul_(gate))
        value, gate = self.proj_in(tokens).chunk(2, dim=-1)
        return self.proj_out(value * F.gelu(gate))


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
