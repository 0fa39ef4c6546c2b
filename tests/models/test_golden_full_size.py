"""The networks at their published size, one call each: built, checked and freed in turn, about 6 GB at most."""

import gc

import pytest
import torch

from dynamicrafter.architectures import FULL
from dynamicrafter.checkpoints.networks import build_empty, fill, key_table
from dynamicrafter.checkpoints.seeded import SeededTensors
from dynamicrafter.media.clip_pixels import clip_pixels
from dynamicrafter.presets import get_preset
from goldens import MODULE_TOLERANCE, load, relative_error

pytestmark = [pytest.mark.full_size, pytest.mark.xdist_group("full_size")]
PRESET = get_preset("512")


@pytest.fixture(scope="module")
def want():
    return load("full512")


@pytest.fixture(autouse=True)
def _freed_afterwards():
    yield
    gc.collect()


def build(component):
    network = build_empty(component, FULL, PRESET)
    table = key_table(component, network, FULL, PRESET)
    fill(network, table, SeededTensors(FULL, PRESET), dtype=torch.float32)
    return network


@torch.no_grad()
def test_text_encoder_of_published_size(want):
    tokens = load("tiny512.conditioning")["tokens"]
    ours = build("text_encoder")(tokens).last_hidden_state
    assert relative_error(ours, want["text_embedding"]) < MODULE_TOLERANCE


@torch.no_grad()
def test_image_encoder_of_published_size(want):
    ours = build("image_encoder")(pixel_values=clip_pixels(want["image"])).last_hidden_state
    assert relative_error(ours, want["image_tokens"]) < MODULE_TOLERANCE


@torch.no_grad()
def test_projector_of_published_size(want):
    ours = build("image_projector")(want["image_tokens"]).flatten(1, 2)
    assert relative_error(ours, want["image_context"]) < MODULE_TOLERANCE


@torch.no_grad()
def test_autoencoder_of_published_size(want):
    vae = build("vae")
    posterior = vae.encode(want["image"]).latent_dist
    assert relative_error(posterior.mean, want["vae_mean"]) < MODULE_TOLERANCE
    assert relative_error(posterior.logvar, want["vae_logvar"]) < MODULE_TOLERANCE
    assert relative_error(vae.decode(want["vae_z"]).sample, want["vae_decoded"]) < MODULE_TOLERANCE


@torch.no_grad()
def test_unet_of_published_size(want):
    unet = build("unet")
    text, image = want["text_embedding"], want["image_context"].unflatten(1, (16, 16))
    ours = unet(want["unet_x"], want["unet_t"], text, image, want["unet_fs"])
    assert relative_error(ours, want["unet_out"]) < MODULE_TOLERANCE
