"""Decoding latents in chunks, slices and tiles, and by an autoencoder in half precision."""

import pytest
import torch

from dynamicrafter import generator_for
from tiny import pipeline


@pytest.fixture
def pipe():
    return pipeline("tiny512")


def decibels(one, two):
    return 10 * torch.log10((two.max() - two.min()) ** 2 / (one - two).square().mean()).item()


def test_chunked_sliced_and_tiled_decoding_agree(pipe):
    latents = torch.randn(1, 4, 4, 8, 8, generator=generator_for(1))
    whole = pipe.decode_latents(latents, chunk_size=4)
    assert decibels(pipe.decode_latents(latents, chunk_size=1), whole) > 100
    pipe.vae.enable_slicing()
    try:
        assert decibels(pipe.decode_latents(latents, chunk_size=4), whole) > 100
    finally:
        pipe.vae.disable_slicing()
    pipe.vae.enable_tiling()
    try:
        assert pipe.decode_latents(latents).shape == whole.shape
    finally:
        pipe.vae.disable_tiling()


def test_a_half_precision_autoencoder_works_in_float32_and_is_left_as_it_was(pipe):
    latents = torch.randn(1, 4, 2, 8, 8, generator=generator_for(1))
    want = pipe.decode_latents(latents)
    weights = {name: tensor.clone() for name, tensor in pipe.vae.state_dict().items()}
    pipe.vae.to(torch.float16)
    try:
        seen = []
        hook = pipe.vae.decoder.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
        got = pipe.decode_latents(latents)
        hook.remove()
        assert set(seen) == {torch.float32}
        assert pipe.vae.dtype == torch.float16
        assert decibels(got, want) > 50
    finally:
        pipe.vae.to(torch.float32).load_state_dict(weights)
