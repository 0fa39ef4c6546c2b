"""Tiles: they cover a picture evenly, blend without a seam, and come close to the whole."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dynamicrafter.memory import tiles
from dynamicrafter.memory.tiles import tile_pixels
from dynamicrafter.models.tiles import fade, in_tiles, spans
from dynamicrafter.pipeline import autoencoder
from dynamicrafter.pipeline.autoencoder import decode_frames, encode_pictures
from tiny import network


@given(st.integers(1, 600), st.integers(12, 90), st.data())
def test_pieces_are_even_cover_all_and_overlap_by_what_was_asked(length, most, data):
    overlap = data.draw(st.integers(1, most // 3))
    pieces = spans(length, most, overlap)
    assert (pieces[0][0], pieces[-1][1]) == (0, length)
    assert len({end - begin for begin, end in pieces}) == 1
    assert pieces[0][1] - pieces[0][0] <= max(most, length if len(pieces) == 1 else 0)
    for (_, end), (begin, _) in pairwise(pieces):
        assert end - begin >= overlap - 1  # begins are rounded to whole elements
    for (_, end), (begin, _) in zip(pieces, pieces[2:], strict=False):
        assert end <= begin  # no element lies in three


@given(st.integers(1, 600), st.integers(12, 90), st.integers(1, 8))
def test_weights_add_up_to_one_everywhere(length, most, scale):
    pieces = spans(length, most, most // 4 or 1)
    total = torch.zeros(length * scale)
    for index, (begin, end) in enumerate(pieces):
        total[begin * scale : end * scale] += fade(pieces, index, (end - begin) * scale)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


@pytest.mark.parametrize("unit", [1, 2])
def test_what_looks_only_at_its_own_place_is_the_same_in_tiles(unit):
    picture = torch.rand(2, 3, 40, 56)
    doubled = in_tiles(lambda part: F.interpolate(part, scale_factor=2.0), picture, tile=8, overlap=2)
    assert torch.allclose(doubled, F.interpolate(picture, scale_factor=2.0), atol=1e-6)
    halved = in_tiles(lambda part: F.avg_pool2d(part, 2), picture, tile=8, overlap=2, unit=2)
    assert torch.allclose(halved, F.avg_pool2d(picture, 2), atol=1e-6)


def test_a_convolution_narrower_than_the_overlap_shows_no_seam():
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 1, 3, padding=1)
    flat = torch.ones(1, 1, 64, 64)
    with torch.no_grad():
        whole, tiled = conv(flat), in_tiles(conv, flat, tile=32, overlap=8)
    # A tile's own border, where the convolution sees zeros, has next to no weight.
    assert (tiled - whole).abs().max() < 0.1 * (whole[0, 0, 0, 0] - whole[0, 0, 5, 5]).abs()


@torch.no_grad()
def test_the_autoencoder_in_tiles_comes_close_to_the_whole_and_shows_no_seam(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 16)
    monkeypatch.setattr(autoencoder, "TILE", 16)
    monkeypatch.setattr(autoencoder, "OVERLAP", 4)
    vae = network("vae", "tiny512")
    assert tile_pixels(vae) == 128
    latents = torch.randn(1, 4, 2, 24, 24, generator=torch.Generator().manual_seed(1))
    whole, tiled = (decode_frames(vae, latents, chunk_size=1, tiled=tiled) for tiled in (False, True))
    assert tiled.shape == whole.shape
    assert relative(tiled, whole) < 0.2
    # Steps between neighbouring pixels are no larger at the borders of tiles than elsewhere.
    steps = (tiled - whole).diff(dim=-1).abs().mean(dim=(0, 1, 2, 3))
    assert steps.max() < 6 * steps.mean()

    pixels = torch.rand(2, 3, 192, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    encoded, parts = (encode_pictures(vae, pixels, None, tiled=tiled) for tiled in (False, True))
    assert parts.shape == encoded.shape
    assert relative(parts, encoded) < 0.2


@torch.no_grad()
def test_what_fits_one_tile_is_not_cut():
    vae = network("vae", "tiny512")
    latents = torch.randn(1, 4, 1, 8, 8)
    assert torch.equal(decode_frames(vae, latents, chunk_size=1, tiled=True), decode_frames(vae, latents, chunk_size=1))


def relative(one, two):
    return ((one - two).norm() / two.norm()).item()
