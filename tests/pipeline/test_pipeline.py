"""What users of diffusers expect of a pipeline, on the small golden model."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from dynamicrafter import DynamiCrafterPipeline, generator_for
from dynamicrafter.errors import InputError
from dynamicrafter.pipeline import steps, variations
from tiny import pipeline

QUICK = {"num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture
def pipe():
    return pipeline("tiny512")


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[0:80, 0:120]
    return Image.fromarray(np.stack([x * 2, y * 3, (x + y)], axis=-1).astype(np.uint8))


@pytest.fixture(scope="module")
def other_picture():
    return Image.fromarray(np.random.default_rng(5).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def run(pipe, *args, **options):
    return pipe(*args, **(QUICK | options)).frames


def decibels(one, two):
    return 10 * torch.log10((two.max() - two.min()) ** 2 / (one - two).square().mean()).item()


def test_same_seed_gives_the_same_bits(pipe, picture):
    first = run(pipe, picture, "waves", generator=generator_for(3))
    assert torch.equal(first, run(pipe, picture, "waves", generator=generator_for(3)))
    assert not torch.equal(first, run(pipe, picture, "waves", generator=generator_for(4)))


def test_runs_of_two_threads_are_what_each_is_alone(pipe, picture):
    steps = (2, 5)
    alone = [run(pipe, picture, "waves", generator=generator_for(3), num_inference_steps=n) for n in steps]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run, pipe, picture, "waves", generator=generator_for(3), num_inference_steps=n) for n in steps
        ]
        assert all(torch.equal(one.result(), want) for one, want in zip(runs, alone, strict=True))


def test_runs_with_shared_networks_wait_for_one_another_too(pipe, picture):
    other = DynamiCrafterPipeline(**pipe.components, preset=pipe.config["preset"])
    other.set_progress_bar_config(disable=True)
    seen = []

    def watch(name):
        return lambda *_: seen.append(name)

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, p, picture, callback_on_step_end=watch(p is pipe)) for p in (pipe, other)]
        assert all(one.result().isfinite().all() for one in runs)
    assert seen in ([True, True, False, False], [False, False, True, True])


def test_each_argument_of_the_result_matters(pipe, picture, other_picture):
    base = run(pipe, picture, "waves", generator=generator_for(3))
    for change in (
        {"prompt": "snow"},
        {"image": other_picture},
        {"motion": 15},
        {"negative_prompt": "blurry"},
        {"guidance_scale": 2.0},
        {"image_guidance_scale": 2.0},
        {"guidance_rescale": 0.0},
        {"eta": 0.5},
        {"sampler": "dpm++sde"},
        {"guidance_interval": (900, 999)},
        {"cache": 1.0},
        {"last_image": other_picture},
        {"deterministic_image_latents": True},
        {"fit": "stretch"},
    ):
        arguments = {"image": picture, "prompt": "waves", "generator": generator_for(3)} | change
        assert not torch.equal(base, run(pipe, **arguments)), change


def test_a_video_is_the_same_alone_and_in_any_place_of_a_batch(pipe, picture, other_picture):
    def made(seeds, pictures, prompts):
        return run(pipe, pictures, prompts, generator=[generator_for(seed) for seed in seeds])

    alone = made([7], [picture], ["waves"])
    batch = made([1, 7, 2], [other_picture, picture, picture], ["snow", "waves", "rain"])
    turned = made([7, 2, 1], [picture, picture, other_picture], ["waves", "rain", "snow"])
    assert decibels(batch[1:2], alone) > 100
    assert decibels(turned[0:1], alone) > 100
    assert decibels(batch[0:1], turned[2:3]) > 100


def test_passes_together_and_separate_agree(pipe, picture):
    options = {"image_guidance_scale": 3.0, "generator": None}
    made = [
        run(pipe, picture, "waves", **options | {"generator": generator_for(1)}, guidance_batching=batching)
        for batching in ("together", "separate")
    ]
    assert decibels(*made) > 100


@pytest.mark.parametrize(
    ("scales", "passes"),
    [
        ({"guidance_scale": 7.5}, 2),
        ({"guidance_scale": 1.0}, 1),
        ({"guidance_scale": 7.5, "image_guidance_scale": 3.0}, 3),
        ({"guidance_scale": 7.5, "image_guidance_scale": 1.0}, 2),
        ({"guidance_scale": 1.0, "image_guidance_scale": 1.0}, 1),
        ({"guidance_scale": 4.0, "image_guidance_scale": 4.0}, 2),
    ],
)
def test_a_pass_that_a_scale_makes_needless_is_not_computed(pipe, picture, scales, passes, monkeypatch):
    rows, calls = [], []
    forward = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda s, *a, **k: (rows.append(len(s)), forward(s, *a, **k))[1])
    encode = pipe.text_encoder.forward
    monkeypatch.setattr(pipe.text_encoder, "forward", lambda *a, **k: (calls.append(1), encode(*a, **k))[1])
    run(pipe, picture, "waves", guidance_batching="separate", **scales)
    assert rows == [1] * (2 * passes)
    assert len(calls) == (1 if passes == 1 else 2)
    rows.clear()
    run(pipe, picture, "waves", guidance_batching="together", **scales)
    assert rows == [passes] * 2


def test_a_prompt_that_videos_share_is_encoded_once(pipe, monkeypatch):
    rows = []
    encode = pipe.text_encoder.forward
    monkeypatch.setattr(pipe.text_encoder, "forward", lambda ids, **k: (rows.append(len(ids)), encode(ids, **k))[1])
    made = pipe.encode_prompt(["waves", "", "waves", ""])
    assert rows == [2]
    for row, prompt in zip(made, ["waves", "", "waves", ""], strict=True):
        torch.testing.assert_close(row, pipe.encode_prompt([prompt])[0])


def test_out_of_memory_falls_back_to_one_pass_at_a_time(pipe, picture, monkeypatch, caplog):
    want = run(pipe, picture, "waves", guidance_batching="separate", generator=generator_for(1))
    forward = pipe.unet.forward
    held = []

    def small(sample, *args, **options):
        if len(sample) > 1:
            hidden = sample + 1
            held.append(weakref.ref(hidden))
            raise torch.OutOfMemoryError("too large")
        assert held[0]() is None, "what the large batch had allocated is still there"
        return forward(sample, *args, **options)

    monkeypatch.setattr(pipe.unet, "forward", small)
    got = run(pipe, picture, "waves", guidance_batching="together", generator=generator_for(1))
    assert decibels(got, want) > 100
    assert "one by one" in caplog.text


def test_text_and_picture_are_projected_once_a_run(pipe, picture, monkeypatch):
    calls = []
    layer = pipe.unet.middle.spatial.cross_attention
    project = layer.project_context
    monkeypatch.setattr(layer, "project_context", lambda *a: (calls.append(1), project(*a))[1])
    run(pipe, picture, "waves", guidance_batching="together", num_inference_steps=4)
    assert len(calls) == 1


def test_several_videos_for_each_prompt(pipe, picture):
    generators = [generator_for(1, sample=i) for i in range(4)]
    made = run(pipe, picture, ["waves", "snow"], num_videos_per_prompt=2, generator=generators)
    assert made.shape == (4, 4, 16, 8, 8)
    alone = run(pipe, picture, "snow", generator=generator_for(1, sample=2))
    assert decibels(made[2:3], alone) > 100


def test_outside_its_interval_guidance_costs_nothing_and_does_nothing(pipe, picture, monkeypatch):
    rows = []
    forward = pipe.unet.forward

    def counted(sample, *args, **options):
        rows.append(len(sample))
        return forward(sample, *args, **options)

    monkeypatch.setattr(pipe.unet, "forward", counted)

    def made(interval, scale=7.5):
        rows.clear()
        options = {"num_frames": 2, "num_inference_steps": 4, "guidance_batching": "together", "eta": 0.0}
        return run(
            pipe,
            picture,
            "waves",
            guidance_scale=scale,
            guidance_interval=interval,
            generator=generator_for(3),
            **options,
        )

    everywhere = made((0, 999))
    assert rows == [2, 2, 2, 2]
    assert torch.equal(made(None), everywhere)
    assert not torch.equal(made((300, 800)), everywhere)
    assert rows == [1, 2, 2, 1]  # of the timesteps 999, 749, 499, 249
    nowhere = made((0, 10))
    assert rows == [1, 1, 1, 1]
    assert torch.equal(nowhere, made(None, scale=1.0))


def test_cached_features_are_the_same_in_a_batch_and_off_at_no_tolerance(pipe, picture, other_picture):
    options = {"num_inference_steps": 6, "guidance_scale": 1.0, "num_frames": 2, "eta": 0.0}
    plain = run(pipe, picture, "waves", generator=generator_for(7), **options)
    assert torch.equal(run(pipe, picture, "waves", generator=generator_for(7), cache=0.0, **options), plain)
    alone = run(pipe, picture, "waves", generator=generator_for(7), cache=0.15, **options)
    assert not torch.equal(alone, plain)
    seeds = [generator_for(1), generator_for(7)]
    batch = run(pipe, [other_picture, picture], ["snow", "waves"], generator=seeds, cache=0.15, **options)
    assert decibels(batch[1:], alone) > 100


@pytest.mark.parametrize("sampler", ["dpm++", "dpm++sde", "unipc"])
def test_a_video_of_any_sampler_is_the_same_again_and_in_a_batch(pipe, picture, other_picture, sampler):
    options = {"sampler": sampler, "num_inference_steps": 3, "guidance_scale": 1.0, "num_frames": 3}
    alone = run(pipe, picture, "waves", generator=generator_for(7), **options)
    assert torch.equal(alone, run(pipe, picture, "waves", generator=generator_for(7), **options))
    seeds = [generator_for(1), generator_for(7)]
    batch = run(pipe, [other_picture, picture], ["snow", "waves"], generator=seeds, **options)
    assert decibels(batch[1:], alone) > 100


def test_prompt_embeddings_stand_for_prompts(pipe, picture):
    want = run(pipe, picture, "waves", negative_prompt="dull", generator=generator_for(1))
    got = run(
        pipe,
        picture,
        prompt_embeds=pipe.encode_prompt(["waves"]),
        negative_prompt_embeds=pipe.encode_prompt(["dull"]),
        generator=generator_for(1),
    )
    assert torch.equal(got, want)


def test_given_latents_stand_for_the_generators(pipe, picture):
    generator = generator_for(1)
    noise = torch.randn(1, 4, 16, 8, 8, generator=generator)
    got = run(pipe, picture, "waves", latents=noise, generator=generator)
    assert torch.equal(got, run(pipe, picture, "waves", generator=generator_for(1)))


@pytest.mark.parametrize("num_frames", [1, 2, 7, 15, 16])
def test_any_number_of_frames_up_to_16(pipe, picture, num_frames):
    made = run(pipe, picture, "waves", num_frames=num_frames)
    assert made.shape[2] == num_frames
    assert made.isfinite().all()


def test_output_types_hold_the_same_pictures(pipe, picture):
    def made(output_type):
        return run(pipe, picture, "waves", output_type=output_type, generator=generator_for(1), num_frames=3)

    pixels = made("uint8")
    assert pixels.shape == (1, 3, 64, 64, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(np.stack([np.asarray(frame) for frame in made("pil")[0]]), pixels[0])
    assert np.abs(made("np") * 255 - pixels).max() <= 0.5001
    assert np.array_equal(made("pt").permute(0, 1, 3, 4, 2).numpy(), made("np"))
    assert made("latent").shape == (1, 4, 3, 8, 8)


def test_tuple_on_request(pipe, picture):
    assert isinstance(pipe(picture, "waves", return_dict=False, **QUICK), tuple)


def test_callback_sees_and_changes_every_step(pipe, picture):
    seen = []

    def watch(owner, step, timestep, tensors):
        seen.append((step, timestep))
        assert owner is pipe
        return {"latents": torch.zeros_like(tensors["latents"])}

    run(pipe, picture, "waves", num_inference_steps=3, callback_on_step_end=watch)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert [timestep for _, timestep in seen] == [999, 666, 332]


@pytest.mark.parametrize("scale", [1.0, 0.0, 3.0])
def test_a_guidance_scale_that_a_callback_sets_holds_from_the_next_step(pipe, picture, scale, monkeypatch):
    calls, call = [], variations.run_passes

    def watch(unet, sample, timestep, motion, contexts, *rest):
        calls.append(contexts.names)
        return call(unet, sample, timestep, motion, contexts, *rest)

    def change(owner, step, timestep, tensors):
        owner._guidance_scale = scale if step == 0 else owner._guidance_scale
        return {}

    monkeypatch.setattr(variations, "run_passes", watch)
    options = {"generator": generator_for(3), "num_inference_steps": 3, "guidance_scale": 7.5}
    changed = run(pipe, picture, "waves", callback_on_step_end=change, **options)
    both = ("unconditional", "conditional")
    assert calls == [both, *(2 * [both if scale > 1 else ("conditional",)])]
    assert not torch.equal(changed, run(pipe, picture, "waves", **options | {"generator": generator_for(3)}))


def test_guidance_can_not_begin_in_the_middle_of_a_run_without(pipe, picture):
    def change(owner, step, timestep, tensors):
        owner._guidance_scale = 7.5
        return {}

    with pytest.raises(InputError, match=r"guidance_scale can't become 7\.5 in a callback of a run that began without"):
        run(pipe, picture, "waves", guidance_scale=1.0, callback_on_step_end=change)


def test_the_noise_of_a_step_is_on_its_way_before_the_networks_are_called(pipe, picture, monkeypatch):
    order, send, call = [], steps.send, variations.run_passes
    monkeypatch.setattr(steps, "send", lambda *given: order.append("noise") or send(*given))
    monkeypatch.setattr(variations, "run_passes", lambda *given: order.append("passes") or call(*given))
    run(pipe, picture, "waves", num_inference_steps=3, eta=1.0)
    assert order == ["noise", "passes"] * 3


def test_interrupting_ends_after_the_step_and_the_next_run_is_whole(pipe, picture):
    seen = []

    def stop(owner, step, timestep, tensors):
        seen.append(step)
        owner._interrupt = step == 0
        return {}

    run(pipe, picture, "waves", num_inference_steps=5, callback_on_step_end=stop)
    assert seen == [0]
    seen.clear()
    run(pipe, picture, "waves", num_inference_steps=2, callback_on_step_end=lambda *a: seen.append(1))
    assert seen == [1, 1]


def test_bfloat16_runs_and_stays_near_float32(picture):
    pipe = pipeline("tiny512")
    want = run(pipe, picture, "waves", generator=generator_for(1), guidance_scale=1.0)
    half = DynamiCrafterPipeline.from_pretrained("seeded:tiny", dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    got = run(half, picture, "waves", generator=generator_for(1), guidance_scale=1.0)
    assert got.dtype == torch.float32
    assert decibels(got, want) > 25


def test_a_call_leaves_the_pipeline_as_it_was(pipe, picture):
    before = {
        name: {k: v.clone() for k, v in m.state_dict().items()}
        for name, m in pipe.components.items()
        if hasattr(m, "state_dict")
    }
    run(pipe, picture, "waves")
    for name, state in before.items():
        for key, tensor in state.items():
            assert torch.equal(tensor, pipe.components[name].state_dict()[key]), (name, key)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 100}, "height must be a positive multiple of 64 pixels, got 100; try 128"),
        ({"width": 0 - 64}, "width must be a positive multiple of 64 pixels, got -64; try 64"),
        ({"num_frames": 513}, "num_frames must be between 1 and 512, got 513; try 16"),
        ({"num_frames": 0}, "num_frames must be between 1 and 512, got 0"),
        ({"num_frames": 1, "last_image": "picture"}, "num_frames must be between 2 and 512"),
        ({"num_frames": 40, "window": 17}, "window must be at most 16 frames for this model, got 17; try 16"),
        ({"window": 3}, "window must be at least 4 frames, got 3; try 16"),
        ({"window_stride": 0}, "window_stride must be between 1 and 16, got 0; try 4"),
        ({"window": 8, "window_stride": 9}, "window_stride must be between 1 and 8, got 9; try 4"),
        ({"window_stride": 15, "last_image": "picture"}, "between 1 and 14, as every window sees both ends"),
        ({"num_inference_steps": 0}, "num_inference_steps must be a whole number between 1 and 1000, got 0"),
        ({"num_inference_steps": 1001}, "between 1 and 1000, got 1001"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt must be at least 1, got 0"),
        ({"output_type": "gif"}, "output_type must be one of pil, np, pt, uint8, latent, got 'gif'"),
        ({"guidance_batching": "both"}, "guidance_batching must be one of"),
        ({"eta": 2.0}, "eta must be between 0 and 1, got 2.0"),
        ({"eta": 0.5, "sampler": "dpm++"}, r"eta must be 0 with the sampler dpm\+\+, which adds no noise, got 0.5"),
        ({"cache": -0.1}, r"cache must be between 0 and 1, got -0.1; try 0"),
        ({"guidance_interval": (5, 1000)}, "guidance_interval must be two timesteps from 0 to 999, the lower first"),
        ({"sampler": "euler"}, r"sampler must be one of ddim, dpm\+\+, dpm\+\+sde, unipc, got 'euler'"),
        ({"fit": "zoom"}, "fit must be one of cover, contain, stretch, got 'zoom'"),
        ({"motion": 0}, "motion must be at least 1, got 0"),
        ({"motion": [24.5]}, r"motion must be a whole number, or one for each video, got \[24\.5\]"),
        ({"motion": "24"}, "motion must be a whole number, or one for each video, got '24'"),
        ({"negative_prompt_embeds": torch.zeros(1, 5, 32)}, r"must be \(1, 77, 32\), got \(1, 5, 32\)"),
        ({"negative_prompt_embeds": torch.zeros(1, 77, 31)}, r"must be \(1, 77, 32\), got \(1, 77, 31\)"),
        ({"motion": [1, 2, 3]}, "motion must be one or as many as there are videos, 1, got 3"),
        ({"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]}, "negative_prompt must be one or as many"),
        ({"generator": [torch.Generator()] * 3}, "generator must be one or as many as there are videos, 1, got 3"),
        ({"latents": torch.zeros(1, 4, 16, 8, 9)}, r"latents must have the shape \(1, 4, 16, 8, 8\)"),
        ({"prompt_embeds": torch.zeros(1, 77, 32)}, "prompt and prompt_embeds exclude each other"),
        ({"image": []}, "image must be a picture"),
        ({"image": "photo.jpg"}, "image must be a PIL image, an array or a tensor, got str"),
        ({"image": torch.zeros(3, 10, 10)}, r"image as a tensor must have the shape \(3, 64, 64\)"),
        ({"image": torch.full((3, 64, 64), 2.0)}, r"image as a tensor must be in \[0, 1\]"),
        ({"callback_on_step_end_tensor_inputs": ["x"]}, "callback_on_step_end_tensor_inputs may name latents"),
        ({"decode_chunk_size": 0}, "decode_chunk_size must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(pipe, picture, arguments, message):
    given = {"image": picture, "prompt": "waves"} | QUICK | arguments
    if given.get("last_image") == "picture":
        given["last_image"] = picture
    with pytest.raises(InputError, match=message) as caught:
        pipe(**given)
    assert "\n" not in str(caught.value)


def test_a_long_prompt_warns_with_what_was_cut(pipe, picture, caplog):
    run(pipe, picture, "wave " * 75 + "and the forgotten lighthouse")
    assert "and the forgotten lighthouse" in caplog.text


def test_eta_is_checked_before_any_network_runs(pipe, picture, monkeypatch):
    monkeypatch.setattr(pipe.vae, "encode", lambda *_a, **_k: pytest.fail("the autoencoder ran"))
    with pytest.raises(InputError, match="eta must be between 0 and 1"):
        run(pipe, picture, "waves", eta=-0.5)
