"""ToonCrafter's sketch encoder: drawings of the frames, turned into what is added to the UNet's features.

A copy of the UNet's way down and of its middle without any layer along time, as in a ControlNet (arXiv:2302.05543).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from dynamicrafter.kernels.layout import fold_frames
from dynamicrafter.models.attention import SpatialTransformer
from dynamicrafter.models.blocks import ResidualBlock

_HINT_WIDTHS = (1, 16, 16, 32, 32, 96, 96, 256)
_HALVINGS = (2, 4, 6)  # convolutions of the hint network that halve the picture, from pixels to latents


class SketchUnit(nn.Module):
    """A residual block and, where the level has attention, a spatial transformer."""

    def __init__(self, residual: ResidualBlock, spatial: SpatialTransformer | None) -> None:
        super().__init__()
        self.residual = residual
        self.spatial = spatial

    def forward(self, pictures: Tensor, embedding: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """(b·f, c, h, w) → (b·f, c′, h, w); `context` is (b, n, c)."""
        pictures = self.residual(pictures, embedding, num_frames)
        if self.spatial is None:
            return pictures
        return self.spatial(pictures, self.spatial.cross_attention.project_context(context, context))


class SketchEncoder(ModelMixin, ConfigMixin):
    """Reads noisy latents and a drawing for each frame.

    Args:
        in_channels: of the noisy latents.
        block_out_channels, layers_per_block, attention_levels, attention_head_dim, cross_attention_dim,
            norm_num_groups: of the UNet whose features it adds to; see there.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (True, True, True, False),
        attention_head_dim: int = 64,
        cross_attention_dim: int = 1024,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__()
        base, embedding = block_out_channels[0], 4 * block_out_channels[0]
        self.sinusoid = Timesteps(base, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(base, embedding)
        self.conv_in = nn.Conv2d(in_channels, base, 3, padding=1)
        self.hint = nn.ModuleList(
            nn.Conv2d(wide, out, 3, stride=2 if place in _HALVINGS else 1, padding=1)
            for place, (wide, out) in enumerate(pairwise((*_HINT_WIDTHS, base)))
        )

        def residual(wide: int, out: int) -> ResidualBlock:
            return ResidualBlock(wide, out, embedding=embedding, groups=norm_num_groups, dropout=0.0, along_time=False)

        def unit(wide: int, out: int, *, attends: bool) -> SketchUnit:
            spatial = SpatialTransformer(
                out,
                head_dim=attention_head_dim,
                context_width=cross_attention_dim,
                groups=norm_num_groups,
                learned_scale=False,
                read_image=False,
            )
            return SketchUnit(residual(wide, out), spatial if attends else None)

        self.down, width, widths = nn.ModuleList(), base, [base]
        for level, (out, attends) in enumerate(zip(block_out_channels, attention_levels, strict=True)):
            for _ in range(layers_per_block):
                self.down.append(unit(width, out, attends=attends))
                width = out
                widths.append(width)
            if level < len(block_out_channels) - 1:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                widths.append(width)
        self.middle = unit(width, width, attends=True)
        self.middle_out = residual(width, width)
        self.controls = nn.ModuleList(nn.Conv2d(width, width, 1) for width in (*widths, width))

    def forward(self, latents: Tensor, timestep: Tensor, context: Tensor, sketches: Tensor) -> list[Tensor]:
        """What to add to the UNet's skips, in the order in which it makes them, and to its middle.

        Args:
            latents: noisy, (b, 4, f, h, w).
            timestep: (b,).
            context: (b, n, c), the same for every frame.
            sketches: white lines on black, (b, 1, f, 8h, 8w) in [0, 1].

        Returns:
            (b·f, c, h′, w′) each.
        """
        num_frames = latents.shape[2]
        embedding = F.silu(self.time_embedding(self.sinusoid(timestep).to(latents.dtype)))
        hint = fold_frames(sketches)
        for place, conv in enumerate(self.hint):
            hint = conv(hint if place == 0 else F.silu(hint))
        hidden = self.conv_in(fold_frames(latents)) + hint
        features = [hidden]
        for part in self.down:
            hidden = part(hidden, embedding, context, num_frames) if isinstance(part, SketchUnit) else part(hidden)
            features.append(hidden)
        hidden = self.middle(hidden, embedding, context, num_frames)
        features.append(self.middle_out(hidden, embedding, num_frames))
        return [control(feature) for control, feature in zip(self.controls, features, strict=True)]
