"""The convolutional half of the UNet: residual blocks with a temporal tail, and the change of scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from dynamicrafter.kernels.convolution import FrameConvolution, TimeConvolution
from dynamicrafter.kernels.layout import from_time_planes, to_time_planes
from dynamicrafter.models.attention import ContextKeysValues, SpatialTransformer, TemporalTransformer
from dynamicrafter.models.windows import Window


class TemporalConvolution(nn.Module):
    """Four times [GroupNorm over all frames together, SiLU, convolution over three frames], added to the input.

    The kernel (3, 1, 1) over f, h, w is a (3, 1) one over the plane of time and pixels, which needs no 3-D code path.
    """

    def __init__(self, channels: int, *, groups: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels, eps=1e-5) for _ in range(4))
        self.convs = nn.ModuleList(TimeConvolution(channels, channels, (3, 1), padding=(1, 0)) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, pictures: Tensor, num_frames: int) -> Tensor:
        """(b·f, c, h, w) in and out."""
        planes = to_time_planes(pictures, num_frames)
        for index, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            planes = F.silu(norm(planes))
            if index > 0:  # the released model drops nothing before the first convolution
                planes = self.dropout(planes)
            planes = conv(planes)
        return pictures + from_time_planes(planes, *pictures.shape[2:])


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around the embedding of time and motion, then the temporal convolution, if any."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding: int,
        groups: int,
        dropout: float,
        along_time: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-5)
        self.conv1 = FrameConvolution(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-5)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = FrameConvolution(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.temporal = TemporalConvolution(out_channels, groups=groups, dropout=dropout) if along_time else None

    def forward(self, pictures: Tensor, embedding: Tensor, num_frames: int) -> Tensor:
        """(b·f, c, h, w) and the activated embedding (b, e) → (b·f, c′, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(pictures)))
        embedded = self.embedding(embedding)[:, None, :, None, None]
        hidden = (hidden.unflatten(0, (-1, num_frames)) + embedded).flatten(0, 1)
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        hidden = self.shortcut(pictures) + hidden
        return hidden if self.temporal is None else self.temporal(hidden, num_frames)


class Unit(nn.Module):
    """A residual block and, where the level has attention, a spatial and a temporal transformer."""

    def __init__(
        self, residual: ResidualBlock, *, channels: int, attention: dict | None, farthest: int | None = None
    ) -> None:
        super().__init__()
        self.residual = residual
        self.spatial: SpatialTransformer | None = None
        self.temporal: TemporalTransformer | None = None
        if attention is not None:
            head_dim, groups = attention["head_dim"], attention["groups"]
            self.spatial = SpatialTransformer(channels, **attention)
            self.temporal = TemporalTransformer(
                channels, num_heads=channels // head_dim, head_dim=head_dim, groups=groups, farthest=farthest
            )

    def project_context(self, text: Tensor, image: Tensor) -> ContextKeysValues:
        """Keys and values of its cross-attention, as `CrossAttention.project_context` takes and gives them.

        By way of the unit's own call, for which offloading brings its weights.
        """
        return self(None, None, (text, image))

    def forward(
        self,
        pictures: Tensor | None,
        embedding: Tensor | None,
        context: ContextKeysValues | tuple[Tensor, Tensor] | None,
        num_frames: int = 1,
        windows: Sequence[Window] | None = None,
    ) -> Tensor | ContextKeysValues:
        """(b·f, c, h, w) → (b·f, c′, h, w); `context` is None exactly where the unit has no attention.

        Without pictures, text and image context go in, and their keys and values come out.
        """
        if pictures is None or embedding is None:
            assert self.spatial is not None
            text, image = cast("tuple[Tensor, Tensor]", context)
            return self.spatial.cross_attention.project_context(text, image)
        pictures = self.residual(pictures, embedding, num_frames)
        if self.spatial is not None and self.temporal is not None:
            pictures = self.spatial(pictures, cast("ContextKeysValues", context))
            pictures = self.temporal(pictures, num_frames, windows)
        return pictures


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = FrameConvolution(channels, channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c, 2h, 2w)."""
        return self.conv(F.interpolate(pictures, scale_factor=2.0, mode="nearest"))


class UNetBlock(nn.Module):
    """The units of one level, and the change of scale after them, if any."""

    def __init__(self, units: Iterable[Unit], resize: nn.Module | None) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.resize = resize

    def each_unit(self) -> list[Unit]:
        """The units in the order of execution."""
        return cast("list[Unit]", list(self.units))
