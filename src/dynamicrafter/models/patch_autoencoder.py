"""A small autoencoder for small budgets: patches through a linear map, mended by convolutions, and carried elsewhere.

The linear map can start as the principal components of patches, which alone give a usable picture; the convolutional
branches start at zero and learn what the components leave out. So it is a fair autoencoder before its first step,
where a convolutional one of the usual shape needs a day.

With displacements, a latent also says from where in the frame its patch is taken. A clip of a moving picture is then
that picture's latents on every frame, with displacements that grow: a denoiser which keeps the picture and answers with
a motion field keeps every edge, however far it is carried (as in latent flow diffusion, arXiv:2303.13744).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from dynamicrafter.models.tiles import OVERLAP, TILE, in_tiles

Way = Literal["encode", "decode"]
_LAST = 2  # pixels along the side of the patch that the decoder's last branch writes


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the encoder answers: a mean, and a standard deviation of zero, for this is no variational autoencoder."""

    mean: Tensor

    @property
    def std(self) -> Tensor:
        return torch.zeros_like(self.mean)

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean


class PlainResidual(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution zero at first: no change, and no norm to lose contrast."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = _zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """(n, c, h, w) in and out."""
        return features + self.conv2(F.silu(self.conv1(F.silu(features))))


class PatchAutoencoder(ModelMixin, ConfigMixin, AutoencoderMixin):
    """Patches of `patch_size`² pixels to `latent_channels` numbers and back.

    Args:
        patch_size: pixels along the side of a latent; a multiple of 4.
        latent_channels: numbers for each patch.
        encoder_width, encoder_depth: of the convolutional branch at the latents' resolution; no branch at width 0.
        decoder_width, decoder_depth: the same on the way back; at width 0 without the details' branch, too.
        detail_width, detail_depth: of the decoder's branch at half the pixels' resolution.
        scaling_factor: what the pipeline multiplies latents by; the latents' own statistics are in buffers.
        position_slope: how much the last two channels rise from each row to the next, and from each column to the next,
            about the frame's centre. A motion such as a zoom depends on the place, which a convolutional denoiser can
            otherwise only tell from the frame's borders (CoordConv, arXiv:1807.03247). Decoding takes it away again.
        displacement: how many pixels to the right and down a 1 in the last two channels looks for what it shows; they
            are 0 as encoded, and the positions stand before them. 0 for latents without displacements.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 8,
        latent_channels: int = 16,
        encoder_width: int = 128,
        encoder_depth: int = 2,
        decoder_width: int = 192,
        decoder_depth: int = 3,
        detail_width: int = 64,
        detail_depth: int = 2,
        scaling_factor: float = 1.0,
        position_slope: float = 0.0,
        displacement: float = 0.0,
    ) -> None:
        super().__init__()
        patch = 3 * patch_size**2
        coded = latent_channels - (2 if displacement else 0)
        ratio = patch_size // _LAST
        fine = 3 * _LAST**2
        self.linear_in = nn.Conv2d(patch, coded, 1)
        self.linear_out = nn.Conv2d(coded, patch, 1)
        self.branch_in = self.branch_out = None
        if encoder_width:
            self.branch_in = nn.Sequential(
                nn.Conv2d(patch, encoder_width, 1),
                *(PlainResidual(encoder_width) for _ in range(encoder_depth)),
                nn.SiLU(),
                _zero(nn.Conv2d(encoder_width, coded, 3, padding=1)),
            )
        if decoder_width:
            self.branch_out = nn.Sequential(
                nn.Conv2d(coded, decoder_width, 3, padding=1),
                *(PlainResidual(decoder_width) for _ in range(decoder_depth)),
                nn.SiLU(),
                nn.Conv2d(decoder_width, detail_width * ratio**2, 1),
                nn.PixelShuffle(ratio),
            )
            self.detail_in = nn.Conv2d(fine, detail_width, 1)
            self.detail = nn.Sequential(
                *(PlainResidual(detail_width) for _ in range(detail_depth)),
                nn.SiLU(),
                _zero(nn.Conv2d(detail_width, fine, 3, padding=1)),
            )
        self.use_slicing = self.use_tiling = False
        # Statistics of the latents, so that the UNet sees about unit variance, the small components lifted a little.
        self.register_buffer("latent_mean", torch.zeros(coded))
        self.register_buffer("latent_std", torch.ones(coded))

    def encode(self, pixels: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[Posterior]:
        """Pixels (n, 3, h, w) in [-1, 1] → the posterior of (n, c, h/p, w/p); as AutoencoderKL answers."""
        posterior = Posterior(self(pixels, way="encode"))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)  # pyrefly: ignore

    def decode(self, latents: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Latents (n, c, h, w) → pixels (n, 3, h·p, w·p), about [-1, 1]."""
        pixels = self(latents, way="decode")
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def forward(self, sample: Tensor, return_dict: bool = True, *, way: Way | None = None) -> Any:
        """There and back, as AutoencoderKL does it: pixels (n, 3, h, w) → pixels.

        Args:
            way: one way only, a tensor in and out. `encode` and `decode` come through here, for it is a network's own
                call that hooks of offloading bring its weights for.
        """
        if way is None:
            return self.decode(self(sample, way="encode"), return_dict=return_dict)
        work = self._encode if way == "encode" else self._decode
        return torch.cat([work(part) for part in sample.split(1)]) if self.use_slicing else work(sample)

    def _encode(self, pixels: Tensor) -> Tensor:
        latents = self._in_tiles(self.code, pixels, unit=self.config["patch_size"])
        scaled = (latents - _column(self.latent_mean)) / _column(self.latent_std)
        latents = scaled + self._positions(scaled)
        return F.pad(latents, (0, 0, 0, 0, 0, 2)) if self.carries else latents

    def _decode(self, latents: Tensor) -> Tensor:
        looks = latents[:, -2:] if self.carries else None
        scaled = latents if looks is None else latents[:, :-2]
        code = (scaled - self._positions(scaled)) * _column(self.latent_std) + _column(self.latent_mean)
        pixels = self._in_tiles(self.show, code, unit=1)
        return pixels if looks is None else looked_up(pixels, looks.float() * self.config["displacement"])

    def _in_tiles(self, work: Callable[[Tensor], Tensor], whole: Tensor, *, unit: int) -> Tensor:
        """In tiles where that is asked for; positions are of the whole frame, and so no part of the work."""
        if self.use_tiling and max(whole.shape[2:]) > TILE * unit:
            return in_tiles(work, whole, tile=TILE, overlap=OVERLAP, unit=unit)
        return work(whole)

    @property
    def carries(self) -> bool:
        """Whether latents have displacements."""
        return self.config["displacement"] > 0

    def stand_in(self, latents: Tensor) -> Tensor:
        """Latents (n, c, h, w) of a picture, for a frame that is to show it from elsewhere: its displacements are 1.

        Between two pictures a denoiser so has the nearer one at hand on every frame, and knows which frames they are.
        """
        return torch.cat([latents[:, :-2], torch.ones_like(latents[:, -2:])], dim=1)

    def code(self, pixels: Tensor) -> Tensor:
        """What the maps make of pixels (n, 3, h, w), before statistics and positions."""
        patches = F.pixel_unshuffle(pixels, self.config["patch_size"])
        latents = self.linear_in(patches)
        return latents if self.branch_in is None else latents + self.branch_in(patches)

    def show(self, code: Tensor) -> Tensor:
        """The way back from what `code` gave."""
        whole = F.pixel_shuffle(self.linear_out(code), self.config["patch_size"])
        if self.branch_out is None:
            return whole
        fine = F.pixel_unshuffle(whole, _LAST)
        features = self.branch_out(code) + self.detail_in(fine)
        return F.pixel_shuffle(fine + self.detail(features), _LAST)

    def _positions(self, latents: Tensor) -> Tensor:
        """What is added to latents (n, c, h, w) without displacements: (c, h, w), zero but in the last two channels."""
        channels, height, width = latents.shape[1:]
        slope = self.config["position_slope"]
        positions = latents.new_zeros(channels, height, width)
        positions[-2] = slope * (torch.arange(height).to(latents) - (height - 1) / 2)[:, None]
        positions[-1] = slope * (torch.arange(width).to(latents) - (width - 1) / 2)
        return positions

    @torch.no_grad()
    def start_from_components(self, mean: Tensor, components: Tensor, std: Tensor, *, power: float = 0.5) -> None:
        """Set the linear maps to principal components of patches.

        Args:
            mean: (3·p²,) of patches in the order of `pixel_unshuffle`.
            components: (3·p², c), orthonormal columns, the strongest first; channels beyond them hold nothing.
            std: (c,) of the patches along each.
            power: latent i gets the standard deviation std_i^(1 − power).
        """
        more = self.linear_in.out_channels - len(std)
        gain = F.pad(std, (0, more), value=1.0) ** -power
        components = F.pad(components, (0, more))
        self.linear_in.weight.copy_((components * gain).T[:, :, None, None])
        _bias(self.linear_in).copy_(-(components * gain).T @ mean)
        self.linear_out.weight.copy_((components / gain)[:, :, None, None])
        _bias(self.linear_out).copy_(mean)


def looked_up(pixels: Tensor, displacement: Tensor) -> Tensor:
    """Frames whose every place shows what stands at a distance from it; beyond the borders the frame is mirrored.

    Args:
        pixels: (n, 3, h, w).
        displacement: (n, 2, h/p, w/p), pixels to the right and down, at the patches' centres; linear between them.

    Returns:
        Like `pixels`; cubic where places fall between pixels, which blurs least.
    """
    height, width = pixels.shape[2:]
    # Beyond the outermost centres the field goes on as it came, or the borders would not follow zooms and rotations.
    patch = height // displacement.shape[2]
    field = _extended(_extended(displacement.float(), 2), 3)
    field = F.interpolate(field, scale_factor=float(patch), mode="bilinear")[:, :, patch:-patch, patch:-patch]
    x = (torch.arange(width, device=pixels.device) + 0.5 + field[:, 0]) * (2 / width) - 1
    y = (torch.arange(height, device=pixels.device)[:, None] + 0.5 + field[:, 1]) * (2 / height) - 1
    grid = torch.stack([x, y], dim=-1)
    found = F.grid_sample(pixels.float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return found.to(pixels.dtype)


def _extended(field: Tensor, dim: int) -> Tensor:
    """One more place on both sides of an axis, along the line through the two outermost."""
    first, second = (field.narrow(dim, min(place, field.shape[dim] - 1), 1) for place in (0, 1))
    last, before = (field.narrow(dim, max(field.shape[dim] - place, 0), 1) for place in (1, 2))
    return torch.cat([2 * first - second, field, 2 * last - before], dim=dim)


def _column(values: Any) -> Tensor:
    return values.view(-1, 1, 1)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(_bias(layer))
    return layer
