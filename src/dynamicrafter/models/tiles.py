"""A picture through a network in overlapping tiles, blended where they overlap.

Tiles are even in size, so that none is a sliver whose norms see little of the picture, and each fades into the next
over the whole overlap: their weights sum to 1 at every pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TILE, OVERLAP = 48, 12  # latents; the overlap is wider than an autoencoder's convolutions see


def in_tiles(
    call: Callable[..., Tensor],
    picture: Tensor,
    *,
    tile: int,
    overlap: int,
    unit: int = 1,
    beside: Sequence[Tensor] = (),
) -> Tensor:
    """What `call` makes of a picture, made tile by tile.

    Args:
        call: (n, c, h, w) → (n, c′, s·h, s·w) for one s, larger or smaller than 1.
        picture: (n, c, h, w).
        tile: longest side of a tile, in units.
        overlap: the least that neighbours share, in units; at most a third of the tile.
        unit: elements of the picture; borders of tiles are multiples of it.
        beside: other pictures of the same view, by whole factors larger; `call` gets their parts after the picture's.
    """
    rows, columns = (spans(side // unit, tile, overlap) for side in picture.shape[2:])
    whole: Tensor | None = None
    for row, (top, bottom) in enumerate(rows):
        for column, (left, right) in enumerate(columns):
            cuts = []
            for view in (picture, *beside):
                each = view.shape[2] // rows[-1][1]  # elements of this view for each unit
                cuts.append(view[:, :, each * top : each * bottom, each * left : each * right])
            part = call(*cuts)
            high, wide = part.shape[2:]
            scale = high // (bottom - top)  # elements of the result for each unit
            if whole is None:
                whole = part.new_zeros(*part.shape[:2], scale * rows[-1][1], scale * columns[-1][1])
            weight = fade(rows, row, high)[:, None] * fade(columns, column, wide)
            whole[:, :, scale * top : scale * bottom, scale * left : scale * right] += part * weight.to(part)
    assert whole is not None
    return whole


def spans(length: int, most: int, overlap: int) -> list[tuple[int, int]]:
    """Beginnings and ends of as few even pieces of a length as are needed.

    Args:
        most: of a piece.
        overlap: the least that neighbours share.
    """
    count = max(1, math.ceil((length - overlap) / (most - overlap)))
    size = math.ceil((length + (count - 1) * overlap) / count)
    starts = [round(index * (length - size) / max(1, count - 1)) for index in range(count)]
    return [(start, start + size) for start in starts]


def fade(pieces: list[tuple[int, int]], index: int, size: int) -> Tensor:
    """Weights of one piece's elements, (size,): 1, but rising and falling in a straight line where pieces overlap."""
    begin, end = pieces[index]
    places = begin + (torch.arange(size) + 0.5) * (end - begin) / size
    weight = torch.ones(size)
    if index > 0:
        weight *= ((places - begin) / (pieces[index - 1][1] - begin)).clamp(0, 1)
    if index < len(pieces) - 1:
        weight *= ((end - places) / (end - pieces[index + 1][0])).clamp(0, 1)
    return weight
