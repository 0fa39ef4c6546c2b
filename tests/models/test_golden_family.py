"""VideoCrafter's networks against the outputs of the published implementation."""

from dataclasses import replace

import pytest
import torch

from dynamicrafter.architectures import TINY
from dynamicrafter.checkpoints.keys import SCHEDULE_BUFFERS
from dynamicrafter.checkpoints.networks import build_empty
from dynamicrafter.checkpoints.seeded import SeededTensors
from dynamicrafter.kernels.layout import unfold_frames
from family import PRESETS, close, golden, manifest, network, noise, preset

PROBED = ("vc1_t2v_512", "vc1_i2v_512")


@pytest.fixture(params=PRESETS)
def name(request):
    return request.param


def contexts(name, which="context", batch=1):
    """Text and image context; of an image model 16 tokens for the whole clip."""
    if name == "vc1_i2v_512":
        tokens = noise(f"a.{which}", batch, 93, 32)
        return tokens[:, :77], tokens[:, None, 77:]
    return noise(f"a.{which}", batch, 77, 32), None


def call(name, sample, timestep=601, fps=28):
    text, image = contexts(name)
    return network("unet", name)(sample, torch.tensor([timestep]), text, image, torch.tensor([fps]))


def test_seeded_names_and_shapes_are_those_of_the_published_unet(name):
    published = {key: shape for key, shape in manifest(f"tiny/{name}").items() if key not in SCHEDULE_BUFFERS}
    ours = SeededTensors(TINY, preset(name))
    assert {key: ours.info(key).shape for key in ours.keys() if key.startswith("model.diffusion_model.")} == published


@torch.no_grad()
def test_unet_matches_published_output(name):
    want, sample = golden(name), noise("a.x", 1, 4, 16, 8, 8)
    assert close(call(name, sample), want["unet.out"])
    assert close(call(name, sample, fps=8), want["unet.out_fps8"])


@torch.no_grad()
def test_unet_that_was_made_for_16_frames_a_second_takes_them_where_none_are_given(name):
    found = preset(name)
    made_for = replace(found, motion=replace(found.motion, default=16))
    unet = build_empty("unet", TINY, made_for)
    unet.load_state_dict(network("unet", name).state_dict(), assign=True)
    sample = noise("a.x", 1, 4, 16, 8, 8)
    text, image = contexts(name)
    assert close(unet(sample, torch.tensor([601]), text, image), golden(name)["unet.out_default_fps"])


@torch.no_grad()
def test_a_network_without_an_embedding_of_the_frame_rate_ignores_it():
    sample = noise("a.x", 1, 4, 16, 8, 8)
    assert torch.equal(call("vc1_t2v_512", sample, fps=8), call("vc1_t2v_512", sample, fps=28))
    assert not torch.equal(call("vc1_t2v_1024", sample, fps=8), call("vc1_t2v_1024", sample, fps=28))


@torch.no_grad()
def test_frames_further_apart_than_any_in_training_count_as_the_farthest(name):
    unet = build_empty("unet", TINY, preset(name))
    unet.load_state_dict(network("unet", name).state_dict(), assign=True)
    unet.register_to_config(max_frames=24)
    text, image = contexts(name)
    ours = unet(noise("a.x24", 1, 4, 24, 8, 8), torch.tensor([601]), text, image, torch.tensor([28]))
    assert close(ours, golden(name)["unet.out_24frames"])


@torch.no_grad()
def test_unet_takes_two_clips_with_their_own_timestep_motion_and_context(name):
    text, image = contexts(name, "context2", batch=2)
    sample, times, fps = noise("a.x5", 2, 4, 5, 8, 16), torch.tensor([1, 999]), torch.tensor([16, 28])
    assert close(network("unet", name)(sample, times, text, image, fps), golden(name)["unet.pair"])


@torch.no_grad()
@pytest.mark.parametrize("probed", PROBED)
def test_every_block_on_the_way_matches_its_probe(probed):
    want, unet = golden(probed), network("unet", probed)
    unit = unet.down[0].units[0]
    modules = {
        "input_blocks.0": unet.conv_in,
        "init_attn": unet.init_temporal,
        "input_blocks.1.0": unit.residual,
        "input_blocks.1.1": unit.spatial,
        "input_blocks.1.2": unit.temporal,
        "middle_block": unet.middle_out,
    }
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in modules.items()
    ]
    try:
        call(probed, noise("a.x", 1, 4, 16, 8, 8))
    finally:
        for hook in hooks:
            hook.remove()
    seen["input_blocks.1.2"] = unfold_frames(seen["input_blocks.1.2"], 16)
    for block in modules:
        assert close(seen[block], want[f"probe.{block}"]), block


@torch.no_grad()
def test_projector_gives_a_clip_sixteen_tokens():
    projector = network("image_projector", "vc1_i2v_512")
    ours = projector(noise("a.image_tokens", 2, 50, 48))
    assert ours.shape == (2, 1, 16, 32)
    assert close(ours[:, 0], golden("vc1_i2v_512.projector")["out"])
