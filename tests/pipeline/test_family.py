"""The family's members through the pipeline: what each needs, makes and keeps."""

from dataclasses import asdict

import pytest
import torch
from PIL import Image

from dynamicrafter import DynamiCrafterPipeline
from dynamicrafter.architectures import TINY
from dynamicrafter.checkpoints.networks import COMPONENTS, components_of
from dynamicrafter.checkpoints.sketch import fill_sketch_encoder
from dynamicrafter.errors import InputError
from dynamicrafter.pipeline.autoencoder import decode_toon
from dynamicrafter.pipeline.sketches import read_sketches
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.initial_noise import InitialNoise
from family import network, noise, preset
from goldens import relative_error
from models.test_sketch_encoder import Seeded

FROM_TEXT = ("vc1_text_512", "vc1_text_1024", "vc2_text_512")
FIRST, LAST = (Image.new("RGB", (64, 64), color) for color in ("#c08040", "#204080"))


def pipeline(name):
    found = preset(name)
    made = DynamiCrafterPipeline(
        **dict.fromkeys(COMPONENTS) | {part: network(part, name) for part in components_of(found)},
        scheduler=DynamiCrafterScheduler.from_preset(found),
        preset=asdict(found),
    )
    made.set_progress_bar_config(disable=True)
    return made


def run(pipe, *pictures, **options):
    names = dict(zip(("image", "last_image"), pictures, strict=False))
    usual = {"prompt": "waves", "num_inference_steps": 2, "output_type": "pt", "num_frames": 4}
    generator = torch.Generator().manual_seed(0)
    return pipe(**names, **usual | {"generator": generator} | options).frames


@pytest.mark.parametrize("name", FROM_TEXT)
def test_a_clip_is_made_from_text_alone(name):
    pipe = pipeline(name)
    frames = run(pipe)
    assert frames.shape == (1, 4, 3, 64, 64)
    assert torch.equal(frames, run(pipe))
    assert not torch.equal(frames, run(pipe, prompt="a forest"))
    assert run(pipe, num_frames=24).shape[1] == 24
    assert run(pipe, prompt=["waves", "a forest"]).shape[0] == 2


def test_passes_together_and_one_by_one_agree():
    pipe = pipeline("vc2_text_512")
    apart, together = (
        run(pipe, guidance_batching=batching, output_type="latent") for batching in ("separate", "together")
    )
    assert relative_error(apart, together) < 1e-5


@pytest.mark.parametrize(
    ("option", "value"),
    [("image", FIRST), ("last_image", LAST), ("image_guidance_scale", 3.0), ("pin_first_frame", True)],
)
def test_what_a_model_from_text_alone_does_not_read_is_refused(option, value):
    with pytest.raises(InputError, match=f"{option} must be left out, as this model makes clips from text alone"):
        run(pipeline("vc2_text_512"), **{option: value})


def test_a_model_that_reads_a_picture_needs_one():
    with pytest.raises(InputError, match="image must be a picture"):
        run(pipeline("vc1_image_512"))


def test_videocrafter_animates_a_picture_by_its_tokens_alone():
    pipe = pipeline("vc1_image_512")
    frames = run(pipe, FIRST)
    assert frames.shape == (1, 4, 3, 64, 64)
    assert not torch.equal(frames, run(pipe, LAST))
    assert run(pipe, FIRST, num_frames=24).shape[1] == 24
    with pytest.raises(InputError, match="last_image must be left out"):
        run(pipe, FIRST, LAST)


def test_tooncrafter_draws_between_two_pictures_and_needs_both():
    pipe = pipeline("toon")
    frames = run(pipe, FIRST, LAST, num_frames=16)
    assert frames.shape == (1, 16, 3, 64, 64)
    with pytest.raises(InputError, match="last_image must be a picture, as this model draws between two"):
        run(pipe, FIRST)


def test_tooncrafters_decoder_sees_the_pictures():
    pipe = pipeline("toon")
    latents = 0.18215 * noise("c.z", 2, 4, 16, 8, 8)
    ends = torch.tanh(noise("c.ends", 2, 2, 3, 64, 64))
    both = pipe.decode_latents(latents, pictures=ends)
    assert torch.equal(both[:1], pipe.decode_latents(latents[:1], pictures=ends[:1]))
    assert not torch.allclose(both, pipe.decode_latents(latents, pictures=ends.flip(1)))


@torch.no_grad()
def test_tooncrafters_tiles_see_their_parts_of_the_pictures(monkeypatch):
    vae = network("vae", "toon")
    latents = 0.18215 * noise("c.z", 1, 4, 6, 8, 8)
    ends = torch.tanh(noise("c.ends", 1, 2, 3, 64, 64))
    whole = decode_toon(vae, latents, ends)
    assert torch.equal(decode_toon(vae, latents, ends, tiled=True), whole)  # smaller than a tile
    monkeypatch.setattr("dynamicrafter.pipeline.autoencoder.TILE", 6)
    monkeypatch.setattr("dynamicrafter.pipeline.autoencoder.OVERLAP", 2)
    monkeypatch.setattr("dynamicrafter.pipeline.autoencoder.tile_pixels", lambda _: 48)
    tiled = decode_toon(vae, latents, ends, tiled=True)
    assert tiled.shape == whole.shape
    other = decode_toon(vae, latents, ends.flip(1), tiled=True)
    assert relative_error(tiled, whole) < relative_error(other, whole)


@pytest.mark.parametrize("name", ["512", "vc2_text_512"])
def test_a_later_start_and_its_initial_noise_change_the_clip(name):
    pipe = pipeline(name)
    pictures = (FIRST,) if name == "512" else ()
    plain, later = run(pipe, *pictures), run(pipe, *pictures, start_step=900)
    assert not torch.equal(plain, later)
    expected = InitialNoise(noise("b.expectation", 1, 4, 4, 8, 8), 0.7)
    assert not torch.equal(later, run(pipe, *pictures, start_step=900, initial_noise=expected))
    assert torch.equal(plain, run(pipe, *pictures))


def test_from_the_last_timestep_of_zero_snr_initial_noise_changes_nothing():
    pipe = pipeline("512")
    expected = InitialNoise(noise("b.expectation", 1, 4, 4, 8, 8), 0.7)
    plain, started = (run(pipe, FIRST, output_type="latent", initial_noise=start) for start in (None, expected))
    assert relative_error(started, plain) < 1e-6


@pytest.mark.parametrize("name", ["vc1_text_512", "vc1_image_512", "toon"])
def test_a_saved_folder_gives_the_same_clip(name, tmp_path):
    pipe = pipeline(name)
    pictures = {"vc1_text_512": (), "vc1_image_512": (FIRST,), "toon": (FIRST, LAST)}[name]
    pipe.save_pretrained(tmp_path)
    want = run(pipe, *pictures)
    for lazy in (False, True):
        again = DynamiCrafterPipeline.from_pretrained(tmp_path, lazy=lazy)
        again.set_progress_bar_config(disable=True)
        assert again.preset == pipe.preset
        assert torch.equal(run(again, *pictures), want)


@pytest.mark.parametrize("name", ["vc1_text_512", "vc1_image_512", "toon"])
def test_a_memory_plan_counts_the_networks_that_there_are(name):
    pipe = pipeline(name)
    plan = pipe.plan_memory(height=64, width=64, num_frames=16, passes=2)
    weights = sum(p.numel() * 4 for part in pipe.networks.values() for p in part.parameters())
    assert plan.everything == weights


def test_prompts_change_on_the_way_and_leave_a_clip_of_one_as_it_was():
    pipe = pipeline("vc2_text_512")
    plain = run(pipe, num_frames=24, prompt="waves", guidance_batching="separate")
    same = run(pipe, num_frames=24, prompt="waves", prompt_changes={12: "waves"})
    assert torch.equal(plain, same)
    changed = run(pipe, num_frames=24, prompt="waves", prompt_changes={12: "a forest"})
    assert not torch.equal(plain, changed)
    two = run(pipe, num_frames=24, prompt_changes={12: "a forest"}, num_videos_per_prompt=2)
    assert two.shape[0] == 2


@pytest.mark.parametrize("changes", [{}, {0: "a forest"}, {24: "a forest"}])
def test_frames_of_new_prompts_that_are_not_within_the_clip_are_refused(changes):
    with pytest.raises(InputError, match="prompt_changes must name frames from 1 to 23"):
        run(pipeline("vc2_text_512"), num_frames=24, prompt_changes=changes)


def test_larger_frames_are_made_by_convolutions_that_look_further_and_others_as_before():
    pipe = pipeline("vc2_text_512")
    options = {"num_inference_steps": 3, "num_frames": 2}
    assert torch.equal(run(pipe, larger=True, **options), run(pipe, **options))
    size = {"height": 128, "width": 128}
    assert not torch.equal(run(pipe, larger=True, **size, **options), run(pipe, **size, **options))
    assert not any("forward" in vars(module) for module in pipe.unet.modules())
    assert run(pipe, larger=True, height=256, width=256, **options).shape[-1] == 256  # with the damped pass


def test_what_differs_from_step_to_step_goes_with_no_cache():
    with pytest.raises(InputError, match="cache must be 0 with"):
        run(pipeline("vc2_text_512"), num_frames=24, cache=0.1, prompt_changes={12: "a forest"})


def sketched(name):
    pipe = pipeline(name)
    pipe.sketch_encoder = fill_sketch_encoder(Seeded(), TINY, name="seeded")
    return pipe


def test_drawings_guide_the_frames_as_much_as_asked():
    pipe = sketched("toon")
    drawing = Image.new("L", (64, 64), 255)
    drawing.paste(0, (20, 20, 40, 24))
    drawings = [drawing.convert("RGB"), None, None, None]
    plain = run(pipe, FIRST, LAST, guidance_batching="separate")
    assert torch.equal(run(pipe, FIRST, LAST, sketches=drawings, sketch_scale=0.0), plain)
    drawn = run(pipe, FIRST, LAST, sketches=drawings)
    assert not torch.equal(drawn, plain)
    assert not torch.equal(drawn, run(pipe, FIRST, LAST, sketches=drawings[::-1]))
    with pytest.raises(InputError, match="sketch_scale must be between 0 and 1"):
        run(pipe, FIRST, LAST, sketches=drawings, sketch_scale=2.0)
    with pytest.raises(InputError, match="one for each of the 4 frames"):
        run(pipe, FIRST, LAST, sketches=drawings[:2])
    with pytest.raises(InputError, match="at least one drawing"):
        run(pipe, FIRST, LAST, sketches=[None] * 4)


def test_drawings_need_the_encoder():
    with pytest.raises(InputError, match=r"sketches need pipeline\.sketch_encoder"):
        run(pipeline("toon"), FIRST, LAST, sketches=[FIRST] * 4)


def test_drawings_are_read_as_white_lines_on_black():
    drawing = Image.new("RGB", (64, 64), "white")
    drawing.paste("black", (0, 0, 64, 8))
    read = read_sketches([drawing, None], num_frames=2, height=64, width=64, fit="cover")
    assert read.shape == (1, 1, 2, 64, 64)
    assert read[0, 0, 0, :8].eq(1).all()
    assert read[0, 0, 0, 8:].eq(0).all()
    assert read[0, 0, 1].eq(0).all()
