"""ToonCrafter's autoencoder against the outputs of the published implementation."""

import pytest
import torch

from dynamicrafter.models.toon_autoencoder import ToonAutoencoder
from family import close, golden, manifest, network, noise

WANT = "tooncrafter.vae"
SCALING = 0.18215


def pictures():
    """The first and the last picture, (2, 3, 64, 64)."""
    return torch.cat([torch.tanh(noise(f"c.{which}", 1, 3, 64, 64)) for which in ("first", "last")])


@pytest.fixture
def vae() -> ToonAutoencoder:
    found = network("vae", "toon")
    assert isinstance(found, ToonAutoencoder)
    return found


@pytest.fixture
def references(vae):
    with torch.no_grad():
        return vae.encode_with_references(pictures())[1]


def latents(name, frames, factor=1.0):
    """Unscaled latents of one clip, (f, 4, 8, 8)."""
    return factor * noise(f"c.{name}", 1, 4, frames, 8, 8)[0].transpose(0, 1)


def as_video(frames):
    return frames.transpose(0, 1)[None]


def test_names_and_shapes_are_those_of_the_published_file():
    from dynamicrafter.architectures import TINY
    from dynamicrafter.checkpoints.seeded import SeededTensors
    from family import preset

    ours = SeededTensors(TINY, preset("toon"))
    published = manifest(f"tiny/{WANT}")
    assert {key: ours.info(key).shape for key in ours.keys() if key.startswith("first_stage_model.")} == published


@torch.no_grad()
def test_encoder_and_its_features_match(vae):
    want = golden(WANT)
    posterior, features = vae.encode_with_references(pictures())
    assert close(posterior.mean, want["posterior_mean"])
    assert close(posterior.logvar, want["posterior_logvar"])
    (plain,) = vae.encode(pictures(), return_dict=False)
    assert torch.equal(plain.mean, posterior.mean)
    for place, feature in enumerate(features):
        ours = feature.transpose(0, 1)[None]
        every = 4 if place in (0, 1, 4) else 1
        assert close(ours[..., ::every, ::every], want[f"reference.{place}"]), place


@torch.no_grad()
def test_sixteen_frames_are_decoded_once_and_without_two_of_them(vae, references):
    want, given = golden(WANT), latents("z", 16, 1.2)
    (frames,) = vae.decode(given, references)
    assert close(as_video(frames[[0, 7, 8, 15]]), want["decoded16"])
    (again,) = vae.decode(given[[0, *range(2, 14), 15]], references)
    assert close(as_video(again[[6, 7]]), want["decoded14"])
    assert close(as_video(vae.decode_twice(given, references)[[0, 7, 8, 15]]), want["video"])


@torch.no_grad()
def test_longer_clips_are_decoded_in_chunks_with_the_pictures_at_the_ends_of_each(vae, references):
    (frames,) = vae.decode(latents("z20", 20), references)
    assert close(as_video(frames[[0, 16]]), golden(WANT)["decoded20"])


@torch.no_grad()
def test_decoding_with_and_without_the_pictures_matches(vae, references):
    want, given = golden(WANT), latents("z3", 3)
    (frames,) = vae.decode(given, references)
    assert close(as_video(frames), want["decoded3"])
    (frames,) = vae.decode(given)
    assert close(frames, want["decoded3_noref"])


@torch.no_grad()
def test_every_block_of_the_decoder_matches_its_probe(vae, references):
    want, decoder = golden(WANT), vae.decoder
    modules = {
        "mid.block_1": decoder.mid_in,
        "mid.attn_1": decoder.mid_attention,
        "up.3.block.0": decoder.levels[0].resnets[0],
        "attn_refinement.3": decoder.levels[0].fusion,
        "attn_refinement.1": decoder.levels[2].fusion,
    }
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in modules.items()
    ]
    try:
        vae.decode(latents("z", 16, 1.2), references)
    finally:
        for hook in hooks:
            hook.remove()
    for name, ours in seen.items():
        part = ours[[0, 15], :, ::2, ::2] if name == "attn_refinement.1" else ours[[0, 7, 15]]
        assert close(part, want[f"probe.{name}"]), name


@torch.no_grad()
@pytest.mark.parametrize("frames", [5, 6, 7])
def test_the_second_decoding_changes_the_middle_alone_and_only_where_it_is_kept(vae, references, frames):
    given = latents("z", 16, 1.2)[:frames]
    (once,) = vae.decode(given, references)
    twice = vae.decode_twice(given, references)
    changed = [index for index in range(frames) if not torch.equal(once[index], twice[index])]
    assert changed == ([] if frames == 5 else [frames // 2 - 1, frames // 2])
