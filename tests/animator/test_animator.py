"""The animator: pictures and prompts in, clips out, each reproducible from what it carries."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dynamicrafter import AnimateOptions, Animator, Clip, DynamiCrafterPipeline
from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.fidelity import reconstruct
from dynamicrafter.hub import LocalModel
from dynamicrafter.media.framing import frame_picture
from dynamicrafter.media.pictures import picture_hash
from dynamicrafter.media.video import read_clip, read_metadata
from dynamicrafter.memory.devices import choose_device, choose_dtype
from dynamicrafter.presets import QUALITIES, get_preset
from dynamicrafter.specs.clip import ClipSpec
from tiny import pipeline

QUICK = AnimateOptions(steps=2)


@pytest.fixture(scope="module")
def animator():
    return Animator(pipeline("tiny512"), model="seeded:tiny")


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 255, (70, 90, 3), dtype=np.uint8)) for _ in range(3)]


def decibels(one, two):
    error = np.square(one.astype(float) - two.astype(float)).mean()
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


def test_a_clip_holds_uint8_frames_and_all_that_it_was_made_from(animator, pictures):
    clip = animator.animate(pictures[0], "waves", options=QUICK, seed=5)
    assert isinstance(clip, Clip)
    assert clip.frames.shape == (16, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.fps == Fraction(8)
    kept = clip.metadata
    assert kept["mode"] == "animate"
    assert kept["prompt"] == "waves"
    assert kept["model"]["name"] == "seeded:tiny"
    assert kept["model"]["preset"] == "512"
    assert kept["pictures"][0]["sha256"] == picture_hash(pictures[0])
    assert kept["options"] == QUICK.as_dict() | {
        "seed": 5,
        "guidance": 7.5,
        "guidance_rescale": 0.7,
        "eta": 1.0,
        "motion": 24,
        "size": (64, 64),
        "sampler": "ddim",
        "cache": 0.0,
    }


def test_metadata_make_the_same_clip_again(animator, pictures, tmp_path):
    clip = animator.animate(pictures[0], "waves", options=QUICK, seed=5, motion=20, frames=4)
    path = clip.save(tmp_path / "clip.mp4")
    kept = read_metadata(path)
    options = AnimateOptions.from_dict(kept["options"])
    again = animator.animate(pictures[0], kept["prompt"], options=options)
    assert np.array_equal(again.frames, clip.frames)


def test_interpolation_ends_and_loops_are_conditioned_on_their_pictures(animator, pictures):
    first, last = pictures[:2]
    between = animator.interpolate(first, last, "morph", options=QUICK)
    assert between.frames.shape[0] == 16
    assert len(between.metadata["pictures"]) == 2
    other = animator.interpolate(first, pictures[2], "morph", options=QUICK)
    assert not np.array_equal(between.frames, other.frames)
    loop = animator.loop(first, "morph", options=QUICK)
    same = animator.interpolate(first, first, "morph", options=QUICK)
    assert np.array_equal(loop.frames, same.frames[:-1])


def test_a_clip_is_the_same_in_a_batch_of_three(animator, pictures):
    def shot(index):
        options = replace(QUICK, seed=index, motion=20 + index)
        return ClipSpec(pictures=(pictures[index],), prompts=(f"prompt {index}",), options=options)

    alone = [animator.run([shot(index)])[0] for index in range(3)]
    together = animator.run([shot(2), shot(0), shot(1)])
    for clip, index in zip(together, (2, 0, 1), strict=True):
        assert decibels(clip.frames, alone[index].frames) >= 50
        assert clip.metadata == alone[index].metadata


def test_samples_and_items_draw_from_their_own_streams(animator, pictures):
    def made(**settings):
        return animator.animate(pictures[0], "waves", options=QUICK, **settings).frames.tobytes()

    assert len({made(), made(sample=1), made(sample=2), made(item="job 7"), made(seed=9)}) == 5
    assert made(item="job 7", sample=1) == made(item="job 7", sample=1)


def test_the_pipeline_with_the_plain_seed_makes_the_same_clip(animator, pictures):
    clip = animator.animate(pictures[0], "waves", options=QUICK, seed=11)
    output = animator.pipeline(
        pictures[0],
        "waves",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(11),
        output_type="uint8",
    )
    assert np.array_equal(output.frames[0], clip.frames)


@pytest.mark.parametrize("name", ["512", "bundled"])
@pytest.mark.parametrize("quality", QUALITIES)
def test_a_quality_sets_what_is_not_given_and_stays_when_resolved_again(name, quality):
    preset, wanted = get_preset(name), QUALITIES[quality]
    made = AnimateOptions(quality=quality).resolved(preset)
    assert (made.steps, made.sampler, made.cache) == (wanted.steps, wanted.sampler, wanted.cache)
    assert made.guidance_interval == wanted.guidance_interval
    assert made.resolved(preset) == made
    given = AnimateOptions(quality=quality, steps=7, sampler="dpm++", cache=0.2, guidance_interval=(0, 500))
    assert given.resolved(preset) == replace(
        made, steps=7, sampler="dpm++", cache=0.2, guidance_interval=(0, 500), eta=0.0
    )


def test_exact_is_what_the_published_presets_do_anyway():
    for name in ("256", "512", "1024", "512_interp"):
        preset = get_preset(name)
        usual = AnimateOptions().resolved(preset)
        assert replace(AnimateOptions(quality="exact").resolved(preset), quality=None) == usual
        assert (usual.steps, usual.sampler, usual.eta, usual.guidance) == (50, "ddim", 1.0, 7.5)


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 1.0), ("dpm++", 0.0), ("dpm++sde", 1.0), ("unipc", 0.0)])
def test_each_sampler_takes_the_noise_that_it_was_made_for(sampler, eta):
    assert AnimateOptions(sampler=sampler).resolved(get_preset("512")).eta == eta


def test_progress_counts_every_step(animator, pictures):
    seen = []
    animator.run(
        [ClipSpec(pictures=(pictures[0],), options=QUICK)], on_step=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 2), (2, 2)]


def test_a_clip_saves_itself_and_can_change_its_pace(animator, pictures, tmp_path):
    clip = animator.animate(pictures[0], "waves", options=QUICK, frames=3)
    path = clip.save(tmp_path / "clip.mp4", fps="24000/1001")
    frames, fps = read_clip(path)
    assert frames.shape == (3, 64, 64, 3)
    assert fps == Fraction(24000, 1001)


@pytest.mark.parametrize("mode", ["animate", "interpolate", "loop"])
def test_a_pinned_clip_begins_and_ends_with_what_the_autoencoder_makes_of_its_pictures(animator, pictures, mode):
    settings = {"options": QUICK, "pin_first_frame": True, "deterministic": True}
    words = pictures[:2] if mode == "interpolate" else pictures[:1]
    clip = getattr(animator, mode)(*words, "waves", **settings)
    assert clip.metadata["options"]["pin_first_frame"] is True
    kept = [reconstruct(animator.pipeline, frame_picture(picture, (64, 64))) for picture in words]
    assert np.array_equal(clip.frames[0], kept[0])
    assert np.array_equal(clip.frames[-1], kept[-1]) == (mode == "interpolate")  # a loop's last frame is left out
    free = getattr(animator, mode)(*words, "waves", **settings | {"pin_first_frame": False})
    assert decibels(free.frames[0], kept[0]) < 20


def test_motion_outside_the_tuned_range_warns(animator, pictures, caplog):
    animator.animate(pictures[0], options=QUICK, motion=60)
    assert "motion 60 is outside the range that preset 512 was tuned for, 15 to 30" in caplog.text


def test_a_negative_prompt_without_guidance_warns(animator, pictures, caplog):
    animator.animate(pictures[0], options=QUICK, frames=1, negative="blur", guidance=1, image_guidance=3)
    assert "negative" not in caplog.text
    animator.animate(pictures[0], options=QUICK, frames=1, negative="blur", guidance=1)
    assert "negative has no effect without guidance" in caplog.text


def test_interpolating_with_a_model_not_trained_for_it_warns(animator, pictures, caplog):
    animator.loop(pictures[0], options=QUICK)
    assert "preset 512 was not trained to interpolate" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be between 1 and 1000, got 0"),
        ({"steps": 2.5}, "steps must be a whole number, got 2.5"),
        ({"seed": -2}, "seed must be between -1 and"),
        ({"seed": 10**400}, "seed must be between -1 and"),
        ({"frames": 513}, "frames must be between 1 and 512, got 513"),
        ({"window": 17}, "window must be between 4 and 16, got 17; try 16"),
        ({"window": 3}, "window must be between 4 and 16, got 3; try 4"),
        ({"window": 8, "window_stride": 9}, "window_stride must be between 1 and 8, got 9; try 8"),
        ({"eta": 1.5}, "eta must be between 0 and 1, got 1.5"),
        ({"guidance": float("nan")}, "guidance must be between 0 and 100, got nan"),
        ({"guidance_rescale": -0.1}, "guidance_rescale must be between 0 and 1"),
        ({"motion": 0}, "motion must be between 1 and 1000, got 0"),
        ({"size": (320, 500)}, "width must be a positive multiple of 64 pixels, got 500; try 512"),
        ({"size": (0, 64)}, "height must be a positive multiple of 64 pixels, got 0; try 64"),
        ({"size": 64}, "size must be width x height in pixels, such as 1024x576, or auto, got 64"),
        ({"fit": "crop"}, "fit must be one of cover, contain, stretch, got 'crop'"),
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"guidance": "strong"}, "guidance must be a number, got 'strong'"),
        ({"deterministic": 2}, "deterministic must be true or false, got 2"),
        ({"pin_first_frame": "si"}, "pin_first_frame must be true or false, got 'si'"),
        ({"fit": 3}, "fit must be one of cover, contain, stretch, got 3"),
        ({"size": (64, 64.5)}, "size must be width x height in pixels"),
        ({"negative": None}, "negative must be text, got None"),
        ({"size": "large"}, "size must be width x height in pixels, such as 1024x576, or auto, got 'large'"),
        ({"sampler": "euler"}, r"sampler must be one of ddim, dpm\+\+, dpm\+\+sde, unipc, got 'euler'"),
        ({"sampler": "unipc", "eta": 1.0}, "eta must be 0 with the sampler unipc, which adds no noise, got 1.0"),
        ({"cache": 1.5}, "cache must be between 0 and 1, got 1.5; try 1"),
        ({"guidance_interval": (800, 200)}, "guidance_interval must be two timesteps from 0 to 999, the lower first"),
        ({"guidance_interval": 200}, "guidance_interval must be two timesteps .* such as 200-800, got 200"),
        ({"quality": "best"}, "quality must be one of exact, high, fast, draft, got 'best'"),
        ({"stepps": 3}, "unknown options stepps; known are"),
    ],
)
def test_options_that_break_a_rule_are_refused_in_one_line(animator, pictures, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        animator.animate(pictures[0], "waves", **settings)
    assert "\n" not in str(caught.value)


def test_interpolation_needs_two_frames_and_a_last_picture(animator, pictures):
    with pytest.raises(InputError, match="frames must be between 2 and 512, got 1"):
        animator.interpolate(pictures[0], pictures[1], frames=1)
    with pytest.raises(InputError, match="pictures must be at least 2 to interpolate, got 1"):
        animator.run([ClipSpec(pictures=(pictures[0],), mode="interpolate", options=QUICK)])


def test_size_auto_goes_by_the_first_picture_and_is_kept_as_what_it_came_to(animator, pictures):
    wide = pictures[0].resize((300, 80))
    clip = animator.interpolate(wide, pictures[1], options=QUICK, frames=2, size="auto")
    assert clip.frames.shape[1:3] == (64, 128)  # 64·64 pixels at 80:300 are 33×124
    assert clip.metadata["options"]["size"] == (64, 128)
    again = animator.interpolate(wide, pictures[1], options=AnimateOptions.from_dict(clip.metadata["options"]))
    assert np.array_equal(again.frames, clip.frames)


def test_pictures_of_one_batch_must_come_to_the_same_size(animator, pictures):
    options = replace(QUICK, frames=1, size="auto")
    shots = [ClipSpec(pictures=(picture,), options=options) for picture in (pictures[0], pictures[1].resize((300, 80)))]
    with pytest.raises(InputError, match=r"must have the same size, got \(64, 128\), \(64, 64\); run them apart"):
        animator.run(shots)
    assert {clip.frames.shape for clip in animator.run([shots[0]] * 2)} == {(1, 64, 64, 3)}


def test_a_long_clip_is_made_again_from_its_metadata_and_its_windows_matter(animator, pictures):
    long = replace(QUICK, steps=1, frames=20, window=8, window_stride=3)
    clip = animator.animate(pictures[0], "waves", options=long)
    assert clip.frames.shape == (20, 64, 64, 3)
    kept = AnimateOptions.from_dict(clip.metadata["options"])
    assert (kept.frames, kept.window, kept.window_stride) == (20, 8, 3)
    assert np.array_equal(animator.animate(pictures[0], "waves", options=kept).frames, clip.frames)
    for change in ({"window": 7}, {"window_stride": 4}):
        other = animator.animate(pictures[0], "waves", options=replace(long, **change))
        assert not np.array_equal(other.frames, clip.frames), change


def test_a_long_loop_is_a_long_interpolation_without_its_last_frame(animator, pictures):
    options = replace(QUICK, steps=1, frames=19)
    loop = animator.loop(pictures[0], options=options)
    same = animator.interpolate(pictures[0], pictures[0], options=options)
    assert np.array_equal(loop.frames, same.frames[:-1])


def test_shots_that_differ_in_what_a_batch_shares_are_refused(animator, pictures):
    shots = [ClipSpec(pictures=(pictures[0],), options=replace(QUICK, steps=steps)) for steps in (2, 3)]
    with pytest.raises(InputError, match="clips of one batch must have the same steps, got 2, 3"):
        animator.run(shots)
    with pytest.raises(InputError, match="clips of one batch must have the same deterministic, got False, True"):
        animator.run(
            [ClipSpec(pictures=(pictures[0],), options=replace(QUICK, deterministic=mean)) for mean in (True, False)]
        )
    with pytest.raises(InputError, match="must have the same mode, got animate, loop"):
        animator.run(
            [
                ClipSpec(pictures=(pictures[0],), options=QUICK),
                ClipSpec(pictures=(pictures[0],), mode="loop", options=QUICK),
            ]
        )
    with pytest.raises(InputError, match="at least one clip"):
        animator.run([])


def test_metadata_from_strangers_are_checked():
    with pytest.raises(InputError, match="unknown options colour"):
        AnimateOptions.from_dict({"colour": 3})
    with pytest.raises(InputError, match="frames must be a whole number, got 'many'"):
        AnimateOptions.from_dict({"frames": "many"})
    assert AnimateOptions.from_dict({"size": [64, 128]}).size == (64, 128)


def test_devices_and_dtypes_are_checked():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="device must be cpu, cuda, cuda:N or mps, got 'gpu'"):
        choose_device("gpu")
    with pytest.raises(InputError, match="device cuda:7 is not on this machine"):
        choose_device("cuda:7")
    assert choose_dtype("float16", torch.device("cpu")) is torch.float16
    with pytest.raises(InputError, match="dtype must be one of float32, bfloat16, float16, got 'half'"):
        choose_dtype("half", torch.device("cpu"))


def test_a_cpu_without_onednn_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_dtype(None, torch.device("cpu")) is torch.float32


def test_seeded_names_are_checked():
    with pytest.raises(
        InputError, match=r"must be one of seeded:256, seeded:512, seeded:1024, seeded:interp, .*seeded:tiny"
    ):
        Animator.from_pretrained("seeded:2048")


def test_a_mode_that_there_is_none_of_is_refused(animator, pictures):
    with pytest.raises(InputError, match=r"mode must be one of animate, interpolate, loop, text, got 'dissolve'\."):
        ClipSpec(pictures=tuple(pictures[:2]), mode="dissolve", options=QUICK)


def test_without_a_name_the_best_model_for_animating_on_this_machine_is_loaded(monkeypatch):
    asked = []
    monkeypatch.setattr(
        DynamiCrafterPipeline, "from_pretrained", lambda name, **_: asked.append(name) or pipeline("tiny512")
    )
    monkeypatch.setattr(
        "dynamicrafter.hub.best_local",
        lambda mode: LocalModel(path=Path(mode), kind="file", preset={"animate": "1024"}[mode]),
    )
    assert Animator.from_pretrained(device="cpu").model == "1024"
    assert Animator.from_pretrained("bundled", device="cpu").model == "bundled"
    assert asked == ["1024", "bundled"]
