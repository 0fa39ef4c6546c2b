"""Weights from which a fresh small network answers the picture itself on every frame: a still clip.

From random weights, a network of this kind spends its first days on copying the picture through norms that take its
contrast away, and hears of the caption only afterwards. Set so, the first thing that it can learn is what moves.

At the first level, each group of four channels holds (+K, −K, z, −z): the constants give the norm a fixed scale
whatever z is, and silu(a) − silu(−a) = a carries z through the last activation unchanged.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from dynamicrafter.errors import InputError
from dynamicrafter.models.blocks import UNetBlock
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.unet import DynamiCrafterUNet

_CONSTANT = 4.0
_QUIET = 0.5  # of layers that write on a residual stream
_QUIETEST = 0.05  # of those that write on the first level's


@torch.no_grad()
def start_as_still_clip(unet: DynamiCrafterUNet) -> None:
    """Set the weights in place; the network then predicts x₀ = image latents, as exactly as float allows.

    Raises:
        InputError: the first level is not four channels, and one norm group, for each latent channel.
    """
    latent = unet.config["out_channels"]
    base, groups = unet.config["block_out_channels"][0], unet.config["norm_num_groups"]
    if base != 4 * latent or groups != latent:
        raise InputError(
            f"a still-clip start needs block_out_channels[0] = {4 * latent} and norm_num_groups = {latent}, got {base} "
            f"and {groups}; choose others or start from random weights."
        )
    for name, layer in unet.named_modules():
        if name.endswith(("conv2", "temporal.convs.3", "proj_out")) and "feed_forward" not in name:
            _scale(layer, _QUIET)
    _write_stream(unet, latent)
    _carry_stream(unet, base)
    _read_stream(unet, latent)


@torch.no_grad()
def start_with_clock(projector: ImageProjector) -> None:
    """Let the queries begin as sines and cosines of the frame's number, so that neighbours in time look alike."""
    num_frames, width = projector.config["num_frames"], projector.config["width"]
    by_frame = projector.queries.view(num_frames, -1, width)
    by_frame.copy_(torch.randn(1, *by_frame.shape[1:]).expand_as(by_frame))
    phase = torch.arange(num_frames)[:, None] / num_frames * math.pi * 2 ** torch.arange(4)
    code = torch.cat([phase.sin(), phase.cos()], dim=1)
    by_frame[:, :, : code.shape[1]] = 1.5 * code[:, None]


def _write_stream(unet: DynamiCrafterUNet, latent: int) -> None:
    conv = unet.conv_in
    weight, bias = conv.weight, _bias(conv)
    weight.mul_(0.3)
    bias.zero_()
    channel = torch.arange(latent)
    bias[4 * channel], bias[4 * channel + 1] = _CONSTANT, -_CONSTANT
    for offset, sign in ((2, 1.0), (3, -1.0)):
        weight[4 * channel + offset] = 0
        weight[4 * channel + offset, latent + channel, 1, 1] = sign


def _carry_stream(unet: DynamiCrafterUNet, base: int) -> None:
    """The last unit passes the first skip on; norms on the stream undo their own division."""
    scale = (_CONSTANT**2 / 2 + 0.5) ** 0.5
    ends = ((unet.down, 0), (unet.up, -1))
    first, last = (cast("UNetBlock", blocks[place]).each_unit()[place] for blocks, place in ends)
    assert last.spatial is not None
    assert last.temporal is not None
    residual = last.residual
    assert isinstance(residual.shortcut, nn.Conv2d)
    shortcut = residual.shortcut.weight
    below = shortcut.shape[1] - base
    shortcut[:, :below].mul_(0.1)
    shortcut[:, below:] = torch.eye(base)[:, :, None, None]
    _bias(residual.shortcut).zero_()
    residual.norm1.weight[below:] = scale
    norms: list[Any] = [unet.init_temporal.norm, first.residual.norm1, unet.norm_out, residual.temporal.norms[0]]
    norms += [last.spatial.norm, last.temporal.norm]
    for norm in norms:
        norm.weight.fill_(scale)
    writers = [unet.init_temporal.proj_out, residual.conv2, residual.temporal.convs[3]]
    for layer in (*writers, last.spatial.proj_out, last.temporal.proj_out):
        _scale(layer, _QUIETEST)


def _read_stream(unet: DynamiCrafterUNet, latent: int) -> None:
    channel = torch.arange(latent)
    unet.conv_out.weight.zero_()
    _bias(unet.conv_out).zero_()
    unet.conv_out.weight[channel, 4 * channel + 2, 1, 1] = 1
    unet.conv_out.weight[channel, 4 * channel + 3, 1, 1] = -1


def _scale(layer: nn.Module, factor: float) -> None:
    for parameter in layer.parameters():
        parameter.mul_(factor)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
