from dataclasses import replace

import pytest
import torch

from dynamicrafter.data.stream import Sample
from dynamicrafter.data.synthetic.clips import SyntheticClips
from dynamicrafter.data.synthetic.motions import CAMERA
from dynamicrafter.errors import InputError
from dynamicrafter.training.carrying import carried, looks_of
from dynamicrafter.training.config import ObjectiveConfig, Stage
from dynamicrafter.training.draws import draw_sample
from dynamicrafter.training.encoding import assemble, encode_clip, encode_nothing
from dynamicrafter.training.patch_autoencoder import fit_autoencoder
from dynamicrafter.training.recipes import get_recipe
from dynamicrafter.training.scratch import POSITION_SLOPE, fresh_autoencoder
from own_size import pipeline


@pytest.fixture(scope="module")
def vae():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynamicrafter.training.patch_autoencoder.PICTURES", 60)
        autoencoder = fresh_autoencoder().eval()
        fit_autoencoder(autoencoder)
    return autoencoder


def clip(kind: str) -> Sample:
    return SyntheticClips(shares={kind: 1.0}, motion_numbers=(14.0, 14.0)).draw(3)


@torch.no_grad()
def shown(vae, latents: torch.Tensor) -> torch.Tensor:
    """Latents (c, f, h, w) → frames (f, 3, h, w)."""
    return vae.decode(latents.transpose(0, 1)).sample


@torch.no_grad()
def by_frame(vae, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (f, 3, h, w), and the latents of each by itself."""
    frames = sample.pixels.transpose(0, 1).float() / 127.5 - 1
    return frames, vae.encode(frames).latent_dist.mean.transpose(0, 1)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    inside = (..., slice(24, -24), slice(24, -24))  # what came in at the borders is no matter of carrying
    return (10 * torch.log10(4 / (one[inside] - other[inside]).square().mean())).item()


@pytest.mark.parametrize("kind", CAMERA)
@pytest.mark.parametrize("ends", [False, True])
def test_a_carried_clip_shows_what_the_clip_shows(vae, kind, ends) -> None:
    sample = clip(kind)
    frames, latents = by_frame(vae, sample)
    found = shown(vae, carried(vae, latents, sample.looks, ends=ends))
    best = psnr(shown(vae, latents), frames)
    still = psnr(frames[:1].expand_as(frames)[[11]], frames[[11]])
    assert psnr(found[[11]], frames[[11]]) > max(still + 3, best - 8)


@pytest.mark.parametrize("kind", ["pan left", "pan down", "zoom in"])
def test_optical_flow_finds_where_frames_look(kind) -> None:
    sample = clip(kind)
    found = looks_of(sample.pixels, patch=8)
    assert found.shape == sample.looks.shape == (2, 16, 2, 16, 16)
    away = sample.looks[0, 15].square().mean().sqrt()
    inside = (..., slice(4, -4), slice(4, -4))
    assert (found - sample.looks)[inside].abs().median() < 0.05 * away


def test_between_ends_the_second_half_is_the_last_picture_s(vae) -> None:
    sample = clip("pan left")
    _, latents = by_frame(vae, sample)
    found = carried(vae, latents, sample.looks, ends=True)
    assert torch.equal(found[:-2, 7], latents[:-2, 0])
    assert torch.equal(found[:-2, 8], latents[:-2, 15])
    assert found[-2:, 0].abs().max() == found[-2:, 15].abs().max() == 0
    step = 8 * found[-2, :, 0, 0]
    assert torch.allclose(step[8:] - step[15], 16 / 14 * torch.arange(7.0, -1, -1), atol=1e-4)


def test_frames_too_small_for_flow_are_refused() -> None:
    with pytest.raises(InputError, match="frames must be at least 16 pixels"):
        looks_of(torch.zeros(3, 2, 8, 32, dtype=torch.uint8), patch=8)


def test_between_two_pictures_the_nearer_one_stands_in_for_each_frame(vae) -> None:
    made = pipeline()
    made.vae = vae
    first, last = (torch.full((1, 100, 2, 2), value) for value in (3.0, 5.0))
    placed = made.place_image_latents(first, last, 5)
    assert placed[0, 0, :, 0, 0].tolist() == [3, 3, 3, 5, 5]
    assert placed[0, -1, :, 0, 0].tolist() == [3, 1, 1, 1, 5]


def test_a_window_is_one_part_of_everything_and_the_same_for_one_group(vae) -> None:
    config = replace(
        get_recipe("from-scratch").make(),
        stages=(Stage(clips=8, motions=(("pan left", 1.0),), window=4, variations=2),),
    )
    draws = [draw_sample(config, position) for position in range(8)]
    assert draws[0].place == draws[1].place != draws[2].place
    made = pipeline()
    made.vae = vae
    clip = SyntheticClips(shares={"pan left": 1.0}).draw(0)
    encoded = encode_clip(made, clip, (0,), raw=True)
    batch = assemble(made, [encoded], draws[:1], encode_nothing(made, raw=True), device=torch.device("cpu"))
    assert batch["latents"].shape == batch["noise"].shape == batch["image_latents"].shape == (1, 100, 16, 4, 4)
    down, right = (int(place * 13) for place in draws[0].place)
    rows = POSITION_SLOPE * (torch.arange(4) + down - 7.5)
    columns = POSITION_SLOPE * (torch.arange(4) + right - 7.5)
    assert torch.allclose(batch["image_latents"][0, 96, 0, :, 0], rows)
    assert torch.allclose(batch["latents"][0, 97, 5, 0], columns)


def test_a_model_that_carries_its_picture_is_trained_on_the_first_frame_alone() -> None:
    made = pipeline()
    made.vae = fresh_autoencoder()
    config = replace(get_recipe("from-scratch").make(), objective=ObjectiveConfig(condition="random"), stages=())
    clip = SyntheticClips(shares={"pan left": 1.0}).draw(0)
    encoded = encode_clip(made, clip, (9,), raw=True)
    with pytest.raises(InputError, match=r"objective\.condition must be first"):
        assemble(made, [encoded], [draw_sample(config, 0)], encode_nothing(made, raw=True), device=torch.device("cpu"))
