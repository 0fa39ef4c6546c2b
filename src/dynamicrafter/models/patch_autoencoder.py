"""A small autoencoder for small budgets: patches through a linear map, mended by convolutions.

The linear map can start as the principal components of patches, which alone give a usable picture; the convolutional
branches start at zero and learn what the components leave out. So it is a fair autoencoder before its first step,
where a convolutional one of the usual shape needs a day.
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
        encoder_width, encoder_depth: of the convolutional branch at the latents' resolution.
        decoder_width, decoder_depth: the same on the way back.
        detail_width, detail_depth: of the decoder's branch at half the pixels' resolution.
        scaling_factor: what the pipeline multiplies latents by; the latents' own statistics are in buffers.
        position_slope: how much the last two channels rise from each row to the next, and from each column to the next,
            about the frame's centre. A motion such as a zoom depends on the place, which a convolutional denoiser can
            otherwise only tell from the frame's borders (CoordConv, arXiv:1807.03247). Decoding takes it away again.
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
    ) -> None:
        super().__init__()
        patch = 3 * patch_size**2
        ratio = patch_size // _LAST
        fine = 3 * _LAST**2
        self.linear_in = nn.Conv2d(patch, latent_channels, 1)
        self.branch_in = nn.Sequential(
            nn.Conv2d(patch, encoder_width, 1),
            *(PlainResidual(encoder_width) for _ in range(encoder_depth)),
            nn.SiLU(),
            _zero(nn.Conv2d(encoder_width, latent_channels, 3, padding=1)),
        )
        self.linear_out = nn.Conv2d(latent_channels, patch, 1)
        self.branch_out = nn.Sequential(
            nn.Conv2d(latent_channels, decoder_width, 3, padding=1),
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
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

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
        def encode(part: Tensor) -> Tensor:
            patches = F.pixel_unshuffle(part, self.config["patch_size"])
            return self.linear_in(patches) + self.branch_in(patches)

        latents = self._in_tiles(encode, pixels, unit=self.config["patch_size"])
        scaled = (latents - _column(self.latent_mean)) / _column(self.latent_std)
        return scaled + self._positions(scaled)

    def _decode(self, latents: Tensor) -> Tensor:
        def decode(part: Tensor) -> Tensor:
            fine = F.pixel_unshuffle(F.pixel_shuffle(self.linear_out(part), self.config["patch_size"]), _LAST)
            features = self.branch_out(part) + self.detail_in(fine)
            return F.pixel_shuffle(fine + self.detail(features), _LAST)

        latents = (latents - self._positions(latents)) * _column(self.latent_std) + _column(self.latent_mean)
        return self._in_tiles(decode, latents, unit=1)

    def _in_tiles(self, work: Callable[[Tensor], Tensor], whole: Tensor, *, unit: int) -> Tensor:
        """In tiles where that is asked for; positions are of the whole frame, and so no part of the work."""
        if self.use_tiling and max(whole.shape[2:]) > TILE * unit:
            return in_tiles(work, whole, tile=TILE, overlap=OVERLAP, unit=unit)
        return work(whole)

    def _positions(self, latents: Tensor) -> Tensor:
        """What is added to latents (n, c, h, w): (c, h, w), zero but in the last two channels."""
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
            components: (3·p², c), orthonormal columns, the strongest first.
            std: (c,) of the patches along each.
            power: latent i gets the standard deviation std_i^(1 − power).
        """
        gain = std**-power
        self.linear_in.weight.copy_((components * gain).T[:, :, None, None])
        _bias(self.linear_in).copy_(-(components * gain).T @ mean)
        self.linear_out.weight.copy_((components / gain)[:, :, None, None])
        _bias(self.linear_out).copy_(mean)


def _column(values: Any) -> Tensor:
    return values.view(-1, 1, 1)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(_bias(layer))
    return layer
