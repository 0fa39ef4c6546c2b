"""Weights from which a fresh small network answers the picture itself on every frame: a still clip.

From random weights, a network of this kind spends its first days on copying the picture through norms that take its
contrast away, and hears of the caption only afterwards. Set so, the first thing that it can learn is what moves.

At the first level, each norm group but the last holds (+K, −K, z₁ … zₙ): the two constants are so large that they
alone decide the group's scale, and from what the norm leaves of them its mean can be told and added again. A bias keeps
the last activation where it is a straight line. What carries z is then exact, and `keep_carrying` holds it so; the last
group is free, and displacements are read from it alone, none at first, and written there only by layers whose input
has been through a norm: the raw stream is so strong that a step of its readers would throw the picture about.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dynamicrafter.errors import InputError
from dynamicrafter.models.blocks import TemporalConvolution, UNetBlock, Unit
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.unet import DynamiCrafterUNet

_CONSTANT = 31.75
_STRAIGHT = 12.0  # SiLU is a line to 2 % for what is up to 8 below
_GAIN = 2.0  # of displacements: how far a step of the layers before reaches
_NEAR = 0.35  # of the place in products, which reaches 3.75 at the borders of 128 pixels
_REACH = 0.25  # of products
_HUSHED = 0.15
_QUIET = 0.5  # of layers that write on a residual stream
DISPLACEMENTS = 2  # channels


class Layout(NamedTuple):
    """Where the first level holds what: channel numbers.

    carried: of each carried latent channel. constants, opposites: of each norm group. free: the rest, four at least.
    """

    carried: Tensor
    constants: Tensor
    opposites: Tensor
    free: Tensor

    @property
    def shown(self) -> Tensor:
        """A pair of free channels for each displacement, which is read as their difference."""
        return self.free[: 2 * DISPLACEMENTS]

    @property
    def unused(self) -> Tensor:
        """Free channels that hold nothing after the last unit; before it, whatever the network likes."""
        return self.free[2 * DISPLACEMENTS :]

    @property
    def fixed(self) -> Tensor:
        """All that no layer may write on."""
        return torch.cat([self.carried, self.constants, self.opposites])


def layout(unet: DynamiCrafterUNet) -> Layout:
    """The first level's channels.

    Raises:
        InputError: the latents are not as many as the groups but one have room for.
    """
    carried = unet.config["out_channels"] - DISPLACEMENTS
    base, groups = unet.config["block_out_channels"][0], unet.config["norm_num_groups"]
    width = base // groups
    if groups < 2 or width < 2 + 2 * DISPLACEMENTS or carried != (groups - 1) * (width - 2):
        raise InputError(
            f"a still-clip start needs {groups - 1} groups of {width - 2} carried channels and {DISPLACEMENTS} "
            f"displacements, got {unet.config['out_channels']} latent channels; choose block_out_channels[0] and "
            f"norm_num_groups to suit, or start from random weights."
        )
    places = torch.arange(base).view(groups, width)
    return Layout(
        carried=places[:-1, 2:].flatten(), constants=places[:, 0], opposites=places[:, 1], free=places[-1, 2:]
    )


@torch.no_grad()
def start_as_still_clip(unet: DynamiCrafterUNet) -> None:
    """Set the weights in place; the network then predicts x₀ = image latents, as exactly as the number format allows.

    Raises:
        InputError: see `layout`.
    """
    places = layout(unet)
    for name, layer in unet.named_modules():
        if name.endswith(("conv2", "temporal.convs.3", "proj_out")) and "feed_forward" not in name:
            for parameter in layer.parameters():
                parameter.mul_(_QUIET)
    _write_stream(unet, places)
    _carry_stream(unet, places)
    _read_stream(unet, places)


@torch.no_grad()
def start_with_products(unet: DynamiCrafterUNet) -> None:
    """Let the last unit multiply two channels that reach it from the depth with the place in the frame.

    A zoom displaces by a share of the place, (g·x, g·y), and a turn by (g·y, −g·x), with a g that is the same all over
    the frame. So what the depth has to learn for them is no harder than a pan. A product is a sum of SiLUs, for
    silu(a) + silu(−a) = a·tanh(a/2), about a²/2, and (g + x)² − (g − x)² = 4·g·x. Call after `start_as_still_clip`.
    """
    places, residual = layout(unet), _last_unit(unet).residual
    base = unet.config["block_out_channels"][0]
    below = residual.conv1.in_channels - base
    row, column = (int(place) + below for place in places.carried[-2:])
    zoom, turn = 0, 1  # channels from the depth
    gates = torch.tensor([zoom, turn])
    above = cast("UNetBlock", unet.up[-1]).each_unit()[-2]
    for layer in (above.residual.conv2, _temporal(above).convs[3], above.residual.shortcut):
        for parameter in layer.parameters():
            parameter[gates] = 0  # nothing is multiplied at first
    for channel in (row, column, zoom, turn):
        residual.norm1.bias[channel] = _STRAIGHT
        residual.conv1.weight[:, channel] = 0
    products = ((zoom, column, 0, 1.0), (zoom, row, 1, 1.0), (turn, row, 0, 1.0), (turn, column, 1, -1.0))
    for number, (gate, place, displacement, sign) in enumerate(products):
        for term, (by_gate, by_place) in enumerate(((1, 1), (-1, -1), (1, -1), (-1, 1))):
            unit = base - 16 + 4 * number + term
            residual.conv1.weight[unit] = 0
            residual.conv1.weight[unit, gate, 1, 1] = by_gate
            residual.conv1.weight[unit, place, 1, 1] = by_place * _NEAR
            _bias(residual.conv1)[unit] = -_STRAIGHT * (by_gate + by_place * _NEAR)
            residual.embedding.weight[unit] = 0
            residual.embedding.bias[unit] = 0
            reach = sign * _REACH * (1 if term < 2 else -1)
            plus, minus = places.shown[2 * displacement : 2 * displacement + 2]
            residual.conv2.weight[plus, unit], residual.conv2.weight[minus, unit] = 0, 0
            residual.conv2.weight[plus, unit, 1, 1], residual.conv2.weight[minus, unit, 1, 1] = reach, -reach


@torch.no_grad()
def quieten_content(unet: DynamiCrafterUNet) -> None:
    """Let the depth hear more of places and of what is displaced than of what the picture shows.

    A hundred channels of picture and noise, of which no camera's motion depends, would drown them.
    """
    places, latents = layout(unet), unet.config["out_channels"]
    content = places.carried[:-DISPLACEMENTS]
    entrance = cast("UNetBlock", unet.down[0])
    for layer in (entrance.each_unit()[0].residual.conv1, entrance.resize):
        assert isinstance(layer, nn.Conv2d)
        layer.weight[:, content] *= _HUSHED
    heard = torch.cat([torch.arange(len(content) + 2), latents + torch.arange(len(content))])
    unet.conv_in.weight[places.free[:, None], heard] *= _HUSHED


def keep_carrying(unet: DynamiCrafterUNet) -> None:
    """Let no gradient reach the weights that carry the picture, so that training leaves it sharp.

    Call once, before training; it lasts as long as the network's parameters do.
    """
    places = layout(unet)
    last = _last_unit(unet)
    for layer in (unet.conv_in, unet.init_temporal.proj_out):
        for parameter in layer.parameters():
            _hold(parameter, places.fixed)
    for layer in _last_writers(unet):
        for parameter in layer.parameters():
            _hold(parameter, torch.cat([places.fixed, places.unused]))
    for layer in _raw_readers(unet):
        _hold(layer.weight, _constants_in(layer, unet), dim=1)
    for layer in (last.residual.shortcut, unet.norm_out, unet.conv_out):
        for parameter in layer.parameters():
            _hold(parameter, torch.arange(len(parameter)))


@torch.no_grad()
def start_with_clock(projector: ImageProjector) -> None:
    """Let the queries begin as sines and cosines of the frame's number, so that neighbours in time look alike."""
    num_frames, width = projector.config["num_frames"], projector.config["width"]
    by_frame = projector.queries.view(num_frames, -1, width)
    by_frame.copy_(torch.randn(1, *by_frame.shape[1:]).expand_as(by_frame))
    phase = torch.arange(num_frames)[:, None] / num_frames * math.pi * 2 ** torch.arange(4)
    code = torch.cat([phase.sin(), phase.cos()], dim=1)
    by_frame[:, :, : code.shape[1]] = 1.5 * code[:, None]


def _write_stream(unet: DynamiCrafterUNet, places: Layout) -> None:
    conv = unet.conv_in
    weight, bias = conv.weight, _bias(conv)
    weight[places.fixed] = 0
    bias[places.fixed] = 0
    bias[places.constants], bias[places.opposites] = _CONSTANT, -_CONSTANT
    latents = unet.config["out_channels"]
    weight[places.carried, latents + torch.arange(len(places.carried)), 1, 1] = 1


def _carry_stream(unet: DynamiCrafterUNet, places: Layout) -> None:
    """The last unit passes the first skip on; norms on the stream undo their own division."""
    base = unet.config["block_out_channels"][0]
    first, last = cast("UNetBlock", unet.down[0]).each_unit()[0], _last_unit(unet)
    second = cast("UNetBlock", unet.up[-1]).each_unit()[0]
    for parameter in unet.init_temporal.proj_out.parameters():
        parameter[places.fixed] = 0
    for layer in _last_writers(unet):
        for parameter in layer.parameters():
            parameter.zero_()
    assert isinstance(last.residual.shortcut, nn.Conv2d)
    weight = last.residual.shortcut.weight
    below = weight.shape[1] - base
    for layer in _raw_readers(unet):
        layer.weight[:, _constants_in(layer, unet)] = 0
    weight.zero_()
    weight[places.fixed, below + places.fixed] = 1
    _bias(last.residual.shortcut).zero_()
    norms: list[Any] = [unet.init_temporal.norm, first.residual.norm1, _temporal(first).norms[0]]
    norms += [second.residual.norm1, last.residual.norm1, _temporal(last).norms[0]]
    scale = _scale(unet)
    for norm in norms:
        stream = slice(-base, None)
        norm.weight[stream] = scale
        norm.bias[stream][places.constants] = -_CONSTANT
        norm.bias[stream][places.opposites] = _CONSTANT


def _read_stream(unet: DynamiCrafterUNet, places: Layout) -> None:
    """Each carried channel, and the mean that the norm took, which both constants now show with its sign turned."""
    norm, conv = unet.norm_out, unet.conv_out
    norm.weight.fill_(_scale(unet))
    norm.bias.zero_()
    norm.bias[torch.cat([places.carried, places.shown])] = _STRAIGHT
    norm.bias[places.constants] = _STRAIGHT - _CONSTANT
    norm.bias[places.opposites] = _STRAIGHT + _CONSTANT
    latent = torch.arange(len(places.carried))
    group = latent // (len(places.carried) // (len(places.constants) - 1))
    weight, bias = conv.weight, _bias(conv)
    weight[latent] = 0
    weight[latent, places.carried, 1, 1] = 1
    weight[latent, places.constants[group], 1, 1] = -0.5
    weight[latent, places.opposites[group], 1, 1] = -0.5
    weight[len(latent) :] = 0
    for number in range(DISPLACEMENTS):
        plus, minus = places.shown[2 * number : 2 * number + 2]
        weight[len(latent) + number, plus, 1, 1], weight[len(latent) + number, minus, 1, 1] = _GAIN, -_GAIN
    bias.zero_()


def _last_writers(unet: DynamiCrafterUNet) -> list[nn.Module]:
    """The last layers of all branches that the last unit adds to the stream."""
    last = _last_unit(unet)
    writers: list[nn.Module] = [last.residual.conv2, _temporal(last).convs[3]]
    if last.spatial is not None and last.temporal is not None:
        writers += [last.spatial.proj_out, last.temporal.proj_out]
    return writers


def _temporal(unit: Unit) -> TemporalConvolution:
    """The convolutions over time of a unit that has them."""
    assert unit.residual.temporal is not None
    return unit.residual.temporal


def _last_unit(unet: DynamiCrafterUNet) -> Unit:
    return cast("UNetBlock", unet.up[-1]).each_unit()[-1]


def _scale(unet: DynamiCrafterUNet) -> float:
    """A group's standard deviation, where what it carries has unit variance."""
    width = unet.config["block_out_channels"][0] // unet.config["norm_num_groups"]
    return ((2 * _CONSTANT**2 + width - 2) / width) ** 0.5


def _raw_readers(unet: DynamiCrafterUNet) -> list[nn.Conv2d]:
    """The layers that read the stream without a norm before them, in which the constants would drown all else."""
    level, units = cast("UNetBlock", unet.down[0]), cast("UNetBlock", unet.up[-1]).each_unit()
    readers = [level.resize, *(unit.residual.shortcut for unit in units)]
    return [reader for reader in readers if isinstance(reader, nn.Conv2d)]


def _constants_in(layer: nn.Conv2d, unet: DynamiCrafterUNet) -> Tensor:
    """The input channels of a layer, whose last ones are the stream, that hold constants."""
    places = layout(unet)
    return torch.cat([places.constants, places.opposites]) + layer.in_channels - unet.config["block_out_channels"][0]


def _hold(parameter: Tensor, places: Tensor, *, dim: int = 0) -> None:
    if parameter.requires_grad:
        parameter.register_hook(lambda gradient: gradient.index_fill(dim, places.to(gradient.device), 0))


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
