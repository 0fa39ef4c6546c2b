"""ToonCrafter's autoencoder: its decoder sees the two pictures between which it draws, and its other frames.

Cartoons have flat areas and hard lines, which a decoder that works on each frame alone blurs and lets flicker. This one
gets the encoder's features of the first and the last picture: deep in the network every pixel of every frame attends to
both, near the surface they are added to the first and the last frame. Its residual blocks mix along time.
(arXiv:2405.17933, §3.3; blocks along time as in arXiv:2311.15127)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 diffusers' loader looks for it here
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.upsampling import Upsample2D
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F

from dynamicrafter.kernels.layout import to_pictures, to_tokens

CHUNK = 16  # frames that the decoder was trained on
_HEADS, _HEAD_DIM = 8, 64  # of the attention to the pictures, whatever the level's width
_EPS = 1e-6

SHORTEST_DECODED_TWICE = 6  # frames: of fewer, the second pass would leave out the middle itself

References = Sequence[Tensor]


class PictureAttention(nn.Module):
    """Lets every pixel attend to all pixels of both pictures."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_DIM
        self.norm = nn.GroupNorm(groups, channels, eps=_EPS)
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.Linear(inner, channels)

    def forward(self, frames: Tensor, reference: Tensor) -> Tensor:
        """Frames (f, c, h, w) and features of both pictures (2, c, h, w) → (f, c, h, w)."""
        pictures = to_tokens(reference).flatten(0, 1)[None]
        # All frames ask the same keys: they queue up as one long sequence.
        query = self.to_q(to_tokens(self.norm(frames))).flatten(0, 1)[None]
        split = (tokens.unflatten(-1, (_HEADS, -1)) for tokens in (query, self.to_k(pictures), self.to_v(pictures)))
        attended = self.to_out(dispatch_attention_fn(*split).flatten(-2)).unflatten(1, (len(frames), -1))[0]
        return frames + to_pictures(attended, *frames.shape[2:])


class PictureSum(nn.Module):
    """Adds the first picture to the first frame, and the last to the last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, frames: Tensor, reference: Tensor) -> Tensor:
        """Frames (f, c, h, w) and features of both pictures (2, c, h, w) → (f, c, h, w)."""
        first, last = self.conv(reference)
        added = frames.clone()
        added[0] += first
        added[-1] += last
        return added


class ToonLevel(nn.Module):
    """Residual blocks along space and time, the pictures of this size, and the doubling after them, if any."""

    def __init__(
        self, in_channels: int, out_channels: int, *, num_blocks: int, groups: int, attends: bool, doubles: bool
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.resnets = nn.ModuleList(_block(*pair) for pair in pairwise(widths))
        self.fusion = PictureAttention(out_channels, groups=groups) if attends else PictureSum(out_channels)
        self.upsamplers = nn.ModuleList([Upsample2D(out_channels, use_conv=True)] if doubles else [])

    def forward(self, frames: Tensor, reference: Tensor | None) -> Tensor:
        """(f, c, h, w) → (f, c′, h′, w′)."""
        for block in self.resnets:
            frames = block(frames, image_only_indicator=_all_moving(frames))
        if reference is not None:
            frames = self.fusion(frames, reference)
        for double in self.upsamplers:
            frames = double(frames)
        return frames


class ToonDecoder(nn.Module):
    """From latents of one clip to its frames, with the features of the two pictures that it begins and ends on.

    Args:
        widths: of each level, from full resolution down.
        blocks_per_level: residual blocks.
    """

    def __init__(self, *, latent_channels: int, widths: Sequence[int], blocks_per_level: int, groups: int) -> None:
        super().__init__()
        deepest, shallowest = widths[-1], widths[0]
        self.conv_in = nn.Conv2d(latent_channels, deepest, 3, padding=1)
        self.mid_in = _block(deepest, deepest)
        self.mid_attention = Attention(
            deepest,
            heads=1,
            dim_head=deepest,
            eps=_EPS,
            norm_num_groups=groups,
            residual_connection=True,
            bias=True,
            upcast_softmax=True,
            _from_deprecated_attn_block=True,
        )
        self.mid_out = _block(deepest, deepest)
        self.levels = nn.ModuleList()
        width = deepest
        for level, out in reversed(list(enumerate(widths))):
            self.levels.append(
                ToonLevel(width, out, num_blocks=blocks_per_level, groups=groups, attends=level >= 2, doubles=level > 0)
            )
            width = out
        self.norm_out = nn.GroupNorm(groups, shallowest, eps=_EPS)
        self.fusion_out = PictureSum(shallowest)
        self.conv_out = nn.Conv2d(shallowest, 3, 3, padding=1)
        self.time_out = nn.Conv3d(3, 3, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, latents: Tensor, references: References | None) -> Tensor:
        """Latents (f, 4, h, w) and references as `encode_with_references` gives them → frames (f, 3, 8h, 8w)."""
        num_levels = len(self.levels)
        given: Sequence[Tensor | None] = [None] * (num_levels + 1) if references is None else references
        frames = self.conv_in(latents)
        frames = self.mid_in(frames, image_only_indicator=_all_moving(frames))
        frames = self.mid_attention(frames)
        frames = self.mid_out(frames, image_only_indicator=_all_moving(frames))
        for level, reference in zip(self.levels, reversed(given[:num_levels]), strict=True):
            frames = level(frames, reference)
        frames = F.silu(self.norm_out(frames))
        if given[num_levels] is not None:
            frames = self.fusion_out(frames, given[num_levels])
        clip = self.conv_out(frames).transpose(0, 1)[None]
        return self.time_out(clip)[0].transpose(0, 1)


class ToonAutoencoder(AutoencoderKL):
    """The usual autoencoder with ToonCrafter's decoder; clips are decoded one by one, in chunks of `CHUNK` frames.

    Args: as of AutoencoderKL.
    """

    @wraps(AutoencoderKL.__init__)  # from whose signature diffusers reads what a folder's settings may say
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        config = self.config
        # pyrefly: ignore [bad-assignment] in place of the usual decoder
        self.decoder = ToonDecoder(
            latent_channels=config["latent_channels"],
            widths=config["block_out_channels"],
            blocks_per_level=config["layers_per_block"] + 1,
            groups=config["norm_num_groups"],
        )

    @apply_forward_hook
    def encode_with_references(self, pictures: Tensor) -> tuple[DiagonalGaussianDistribution, list[Tensor]]:
        """Encode the first and the last picture of one clip, and keep what the decoder wants of them.

        Args:
            pictures: (2, 3, h, w) in [-1, 1].

        Returns:
            The posterior of both, and the encoder's features: of each level from full resolution down, then of the
            first convolution; (2, c, h′, w′) each.
        """
        encoder: Any = self.encoder  # whose parts diffusers builds in lists of unnamed kinds
        hidden = encoder.conv_in(pictures)
        features, surface = [], hidden
        for level in encoder.down_blocks:
            for block in level.resnets:
                hidden = block(hidden, temb=None)
            features.append(hidden)
            for shrink in level.downsamplers or ():
                hidden = shrink(hidden)
        hidden = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(hidden))))
        assert self.quant_conv is not None
        return DiagonalGaussianDistribution(self.quant_conv(hidden)), [*features, surface]

    @apply_forward_hook
    # pyrefly: ignore [bad-override]
    def decode(self, latents: Tensor, references: References | None = None, *, return_dict: bool = False) -> tuple:
        """Decode one clip's latents, not scaled: (f, 4, h, w) → ((f, 3, 8h, 8w),).

        Frames go through the decoder `CHUNK` at a time, each chunk with the pictures at its own ends, as published.
        `post_quant_conv`, which the files hold, is not applied, as published.
        """
        parts = [self.decoder(chunk, references) for chunk in latents.split(CHUNK)]
        return (torch.cat(parts),)

    @apply_forward_hook
    def decode_twice(self, latents: Tensor, references: References) -> Tensor:
        """The published decoding of a clip: the two middle frames come from a second pass, without frames 1 and f − 2.

        Args:
            latents: (f, 4, h, w), not scaled; of fewer than `SHORTEST_DECODED_TWICE` frames, they are decoded once.

        Returns:
            (f, 3, 8h, 8w).
        """
        (frames,) = self.decode(latents, references)
        num_frames = len(latents)
        if num_frames >= SHORTEST_DECODED_TWICE:
            kept = [index for index in range(num_frames) if index not in (1, num_frames - 2)]
            (again,) = self.decode(latents[kept], references)
            middle = num_frames // 2
            frames[middle - 1 : middle + 1] = again[middle - 2 : middle]
        return frames


def _block(in_channels: int, out_channels: int) -> SpatioTemporalResBlock:
    return SpatioTemporalResBlock(
        in_channels,
        out_channels,
        temb_channels=None,  # pyrefly: ignore[bad-argument-type] annotated as int, read as optional
        eps=_EPS,
        temporal_eps=1e-5,
        merge_strategy="learned",
        switch_spatial_to_temporal_mix=True,
    )


def _all_moving(frames: Tensor) -> Tensor:
    """How diffusers' block learns that its batch is the frames of one clip."""
    return frames.new_zeros(1, len(frames))
