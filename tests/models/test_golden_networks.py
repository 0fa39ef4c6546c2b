"""Every network against the outputs of the published implementation, module by module."""

import json

import pytest
import torch

from dynamicrafter.kernels.layout import fold_frames, unfold_frames
from dynamicrafter.media.clip_pixels import clip_pixels
from goldens import GOLDEN, MODULE_TOLERANCE, TINY, load, relative_error
from tiny import network, tensors


@pytest.fixture(params=TINY)
def golden(request):
    return request.param


def close(ours, theirs):
    return relative_error(ours, theirs) < MODULE_TOLERANCE


def contexts(context):
    """Split a published context, text then image tokens frame by frame."""
    return context[:, :77], context[:, 77:].unflatten(1, (16, 16))


def test_seeded_names_and_shapes_are_those_of_the_published_file(golden):
    manifest = json.loads((GOLDEN / f"{golden}.manifest.json").read_text())["manifest"]
    ours = tensors(golden)
    assert {key: list(ours.info(key).shape) for key in ours.keys()}.items() <= manifest.items()


@torch.no_grad()
def test_unet_matches_published_output(golden):
    want, unet = load(f"{golden}.unet"), network("unet", golden)
    text, image = contexts(want["context"])
    assert close(unet(want["x"], want["t"], text, image, want["fs"]), want["out"])
    assert close(unet(want["x"], want["t"], text, image), want["out_default_fs"])
    assert close(unet(want["x"], want["t"], text, image, want["other_fs"].reshape(1)), want["out_other_fs"])
    assert close(unet(want["x"], want["t"] * 0, text, image, want["fs"]), want["out_t0"])


@torch.no_grad()
def test_unet_takes_two_clips_with_their_own_timestep_motion_and_context():
    want, unet = load("tiny256.unet"), network("unet", "tiny256")
    ours = unet(want["pair.x"], want["pair.t"], *contexts(want["pair.context"]), want["pair.fs"])
    assert close(ours, want["pair.out"])


@torch.no_grad()
def test_unet_with_projected_context_gives_the_same_bits(golden):
    want, unet = load(f"{golden}.unet"), network("unet", golden)
    text, image = contexts(want["context"])
    cached = unet.project_context(text, image)
    direct = unet(want["x"], want["t"], text, image, want["fs"])
    assert torch.equal(unet(want["x"], want["t"], motion=want["fs"], context=cached), direct)


@torch.no_grad()
@pytest.mark.parametrize("golden", ["tiny256", "tiny512"])  # of which tiny1024's networks are the same
def test_every_block_on_the_way_matches_its_probe_in_every_fifth_frame(golden):
    want, unet = load(f"{golden}.unet"), network("unet", golden)
    unit = unet.down[0].units[0]
    modules = {
        "time_embed": unet.time_embedding,
        "fps_embedding": unet.motion_embedding,
        "input_blocks.0": unet.conv_in,
        "init_attn": unet.init_temporal,
        "input_blocks.1.0": unit.residual,
        "input_blocks.1.1": unit.spatial,
        "input_blocks.1.2": unit.temporal,
        "input_blocks.1": unit,
        "middle_block": unet.middle_out,
        "output_blocks.0": unet.up[0].units[0],
    }
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in modules.items()
    ]
    try:
        unet(want["x"], want["t"], *contexts(want["context"]), want["fs"])
    finally:
        for hook in hooks:
            hook.remove()
    for name in modules:
        ours = seen[name][::5] if seen[name].ndim == 4 else seen[name]
        if name == "input_blocks.1.2":
            ours = unfold_frames(ours, 4)
        assert close(ours, want[f"probe.{name}"]), name


@torch.no_grad()
def test_towers_and_projector_match_published_conditioning(golden):
    want = load(f"{golden}.conditioning")
    text, image, projector = (network(name, golden) for name in ("text_encoder", "image_encoder", "image_projector"))
    assert close(text(want["tokens"]).last_hidden_state, want["text_embedding"])
    empty = torch.zeros(1, 77, dtype=torch.long)
    empty[0, :2] = torch.tensor([49406, 49407])
    assert close(text(empty).last_hidden_state, want["null_text_embedding"])
    assert close(image(pixel_values=clip_pixels(want["image"])).last_hidden_state, want["image_tokens"])
    assert close(projector(want["image_tokens"]).flatten(1, 2), want["image_context"])
    assert close(projector(want["zero_image_tokens"]).flatten(1, 2), want["zero_image_context"])


@torch.no_grad()
def test_autoencoder_matches_published_posterior_and_decoding(golden):
    want, vae = load(f"{golden}.vae"), network("vae", golden)
    posterior = vae.encode(want["image"]).latent_dist
    assert close(posterior.mean, want["mean"])
    assert close(posterior.logvar, want["logvar"])
    assert close(vae.decode(want["z"]).sample, want["decoded"])


def test_folding_frames_and_back_is_the_identity():
    video = torch.arange(2 * 3 * 4 * 2 * 5.0).reshape(2, 3, 4, 2, 5)
    assert torch.equal(unfold_frames(fold_frames(video), 4), video)
