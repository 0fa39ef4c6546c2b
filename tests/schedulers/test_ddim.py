import copy
import json

import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.presets import PRESETS, Preset
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.prediction import prediction_target
from goldens import GOLDEN, TINY, TRAJECTORY_TOLERANCE, load, relative_error

ETAS = {"i2v": 1.0, "i2v_eta0": 0.0, "i2v_nocfg": 1.0, "i2v_6steps": 0.5, "multicfg": 1.0, "loop": 1.0, "interp": 1.0}
RUNS = [(golden, kind) for golden in TINY for kind in ETAS if (GOLDEN / f"{golden}.{kind}.safetensors").exists()]
EVERY_PRESET = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
SHAPE = (2, 4, 3, 2, 2)


def normal(seed: int, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scheduler_of(preset: Preset, steps: int | None = None) -> DynamiCrafterScheduler:
    scheduler = DynamiCrafterScheduler.from_preset(preset)
    if steps is not None:
        scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("prediction", ["as trained", "sample"])
@pytest.mark.parametrize(("golden", "kind"), RUNS)
def test_steps_follow_the_published_trajectory(golden, kind, prediction):
    # The files hold no network outputs, but each step's x₀ and the way there, from which the output follows.
    run, preset = load(f"{golden}.{kind}"), PRESETS[golden.removeprefix("tiny")]
    scheduler = scheduler_of(preset)
    if prediction == "sample":
        scheduler = DynamiCrafterScheduler.from_config(scheduler.config, prediction_type="sample")
    told = preset.prediction if prediction == "as trained" else "sample"
    steps = run["pred_x0"].shape[0]
    scheduler.set_timesteps(steps)
    latents = run["x_T"]
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        here, there = scheduler._levels(timestep)
        x0 = run["pred_x0"][index].double() * (here.scale / there.scale)
        eps = (latents.double() - here.alpha * x0) / here.sigma
        output = prediction_target(x0 / here.scale, eps, here, prediction=told).float()
        result = scheduler.step(output, timestep, latents, eta=ETAS[kind], noise=run["step_noise"][index])
        assert relative_error(result.pred_original_sample, run["pred_x0"][index]) < TRAJECTORY_TOLERANCE
        latents = result.prev_sample
    assert relative_error(latents, run["latents"]) < TRAJECTORY_TOLERANCE


@EVERY_PRESET
@pytest.mark.parametrize("steps", [1, 2, 7, 33, 50])
def test_a_network_that_knows_the_truth_leads_back_to_it(preset, steps):
    scheduler = scheduler_of(preset, steps)
    clean, noise = normal(0), normal(1)
    first = scheduler.timesteps[:1].expand(2)
    latents = scheduler.add_noise(clean, noise, first)
    for timestep in scheduler.timesteps:
        output = scheduler.get_target(clean, noise, timestep.expand(2))
        latents, x0 = scheduler.step(output, timestep, latents, return_dict=False)
    here, there = scheduler._levels(scheduler.timesteps[-1])
    assert there.scale == (1 if preset.ends_clean else here.scale)
    torch.testing.assert_close(x0, there.scale * clean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(latents, there.alpha * there.scale * clean + there.sigma * noise, rtol=1e-9, atol=1e-9)


@EVERY_PRESET
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_latents_keep_the_variance_of_their_level(preset, eta):
    # For clean latents that are standard normal the best network is linear, and so is then a step: x ← a x + b noise.
    scheduler = scheduler_of(preset, 1000)
    variance = 1.0
    for timestep in scheduler.timesteps.tolist():
        here, there = scheduler._levels(timestep)
        signal = here.alpha * here.scale
        share = 1 / (signal**2 + here.sigma**2)
        sample, noise = torch.ones(2, 1, dtype=torch.float64), torch.tensor([[0.0], [1.0]])
        output = prediction_target(
            signal * share * sample, here.sigma * share * sample, here, prediction=preset.prediction
        )
        still, noised = scheduler.step(output, timestep, sample, eta=eta, noise=noise).prev_sample.flatten().tolist()
        variance = still**2 * variance + (noised - still) ** 2
        assert variance == pytest.approx((there.alpha * there.scale) ** 2 + there.sigma**2, rel=0.01)


@EVERY_PRESET
def test_the_last_step_goes_to_the_first_level_and_keeps_its_scale_or_the_clean_ones(preset):
    for steps in (1, 3, 50, 999, 1000):
        scheduler = scheduler_of(preset, steps)
        here, there = scheduler._levels(scheduler.timesteps[-1])
        lowest = scheduler._schedule.level(0)
        assert (there.alpha, there.sigma) == (lowest.alpha, lowest.sigma)
        assert there.scale == (1 if preset.ends_clean else here.scale)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [7, 11, 14, 15, 20, 25, 33])
def test_float32_steps_are_finite_where_the_published_ones_are_not(steps, eta):
    scheduler = scheduler_of(PRESETS["1024"], steps)
    latents = normal(0, dtype=torch.float32)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(-latents, timestep, latents, eta=eta, noise=normal(1)).prev_sample
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()


def test_steps_can_be_asked_for_in_any_order():
    scheduler = scheduler_of(PRESETS["512"], 5)
    forwards = [scheduler.step(normal(1), t, normal(0)).prev_sample for t in scheduler.timesteps]
    backwards = [scheduler.step(normal(1), t, normal(0)).prev_sample for t in scheduler.timesteps.flip(0)]
    torch.testing.assert_close(forwards, backwards[::-1], rtol=0, atol=0)


def test_timesteps_may_be_numbers_or_tensors():
    scheduler = scheduler_of(PRESETS["512"], 5)
    assert scheduler.timesteps.dtype == torch.int64
    assert scheduler.timesteps.tolist() == [999, 799, 599, 399, 199]
    assert scheduler.num_inference_steps == 5
    number, tensor = (scheduler.step(normal(1), t, normal(0)).prev_sample for t in (799, torch.tensor(799)))
    torch.testing.assert_close(number, tensor, rtol=0, atol=0)


def test_fresh_noise_comes_from_the_generator_and_weighs_as_said():
    scheduler = scheduler_of(PRESETS["512"], 5)
    drawn = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
    args = (normal(1), 799, normal(0))
    told = scheduler.step(*args, eta=1.0, noise=drawn)
    made = scheduler.step(*args, eta=1.0, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(made.prev_sample, told.prev_sample, rtol=0, atol=0)
    silent = scheduler.step(*args, eta=1.0, noise=torch.zeros(SHAPE))
    ratio = (told.prev_sample - silent.prev_sample) / drawn
    here, there = scheduler._levels(799)
    expected = there.sigma / here.sigma * (1 - (here.alpha / there.alpha) ** 2) ** 0.5
    torch.testing.assert_close(ratio, torch.full_like(ratio, expected), rtol=1e-6, atol=0)


def test_explicit_noise_wins_and_leaves_the_generator_alone():
    scheduler = scheduler_of(PRESETS["512"], 5)
    generator = torch.Generator().manual_seed(7)
    before = generator.get_state()
    scheduler.step(normal(1), 799, normal(0), eta=1.0, noise=normal(3), generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_without_fresh_noise_the_generator_is_left_alone():
    scheduler = scheduler_of(PRESETS["512"], 5)
    generator = torch.Generator().manual_seed(7)
    before = generator.get_state()
    scheduler.step(normal(1), 799, normal(0), eta=0.0, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_with_a_generator_each_a_samples_noise_depends_on_its_own_alone():
    scheduler = scheduler_of(PRESETS["512"], 5)

    def step(seeds: list[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (len(seeds), *SHAPE[1:])
        same = torch.ones(shape)
        return scheduler.step(same, 799, same, eta=1.0, generator=generators).prev_sample

    torch.testing.assert_close(step([5, 6, 7])[1:], step([6, 7]), rtol=0, atol=0)


def test_half_precision_outputs_are_computed_with_in_full():
    scheduler = scheduler_of(PRESETS["512"], 5)
    output, sample = normal(1).bfloat16(), normal(0, dtype=torch.float32)
    result = scheduler.step(output, 799, sample)
    torch.testing.assert_close(
        result.prev_sample, scheduler.step(output.float(), 799, sample).prev_sample, rtol=0, atol=0
    )
    assert result.prev_sample.dtype == result.pred_original_sample.dtype == torch.float32


def test_a_step_leaves_its_inputs_as_they_were():
    scheduler = scheduler_of(PRESETS["512"], 5)
    inputs = [normal(seed) for seed in range(3)]
    scheduler.step(inputs[0], 799, inputs[1], eta=1.0, noise=inputs[2])
    assert all(torch.equal(tensor, normal(seed)) for seed, tensor in enumerate(inputs))


@EVERY_PRESET
def test_training_noises_each_sample_at_its_own_timestep(preset):
    scheduler = scheduler_of(preset)
    clean, noise, timesteps = normal(0), normal(1), torch.tensor([3, 640])
    noised = scheduler.add_noise(clean, noise, timesteps)
    velocity = scheduler.get_velocity(clean, noise, timesteps)
    for index, timestep in enumerate(timesteps.tolist()):
        level = scheduler._schedule.level(timestep)
        z, e = clean[index] * level.scale, noise[index]
        torch.testing.assert_close(noised[index], level.alpha * z + level.sigma * e)
        torch.testing.assert_close(velocity[index], level.alpha * e - level.sigma * z)


def test_the_training_target_is_what_the_network_predicts():
    clean, noise, timesteps = normal(0), normal(1), torch.tensor([3, 640])
    v_model, eps_model = scheduler_of(PRESETS["512"]), scheduler_of(PRESETS["256"])
    own_model = DynamiCrafterScheduler.from_config(v_model.config, prediction_type="sample")
    arguments = (clean, noise, timesteps)
    torch.testing.assert_close(v_model.get_target(*arguments), v_model.get_velocity(*arguments))
    torch.testing.assert_close(eps_model.get_target(*arguments), noise)
    scales = v_model._schedule.scales[timesteps].reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(own_model.get_target(*arguments), scales * clean)


def test_training_in_float32_stays_float32():
    scheduler = scheduler_of(PRESETS["512"])
    arguments = (normal(0).float(), normal(1).float(), torch.tensor([3, 640]))
    assert scheduler.add_noise(*arguments).dtype == torch.float32
    assert scheduler.get_target(*arguments).dtype == torch.float32


@EVERY_PRESET
def test_saving_and_loading_gives_the_same_scheduler(preset, tmp_path):
    scheduler = scheduler_of(preset, 7)
    scheduler.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert saved["_class_name"] == "DynamiCrafterScheduler"
    assert saved["prediction_type"] == preset.prediction
    loaded = DynamiCrafterScheduler.from_pretrained(tmp_path)
    loaded.set_timesteps(7)
    assert dict(loaded.config) | {"_use_default_values": None} == dict(scheduler.config) | {"_use_default_values": None}
    arguments = (normal(1), int(scheduler.timesteps[3]), normal(0))
    torch.testing.assert_close(
        loaded.step(*arguments).prev_sample, scheduler.step(*arguments).prev_sample, rtol=0, atol=0
    )


def test_it_serves_as_a_diffusers_scheduler():
    scheduler = copy.deepcopy(scheduler_of(PRESETS["512"]))
    assert (scheduler.order, scheduler.init_noise_sigma, len(scheduler)) == (1, 1.0, 1000)
    assert scheduler.num_inference_steps is None
    assert len(scheduler.timesteps) == 1000
    assert scheduler.scale_model_input(sample := normal(0), 999) is sample


@pytest.mark.parametrize("timestep", [800, 1000, -1, 799.0, torch.tensor([799, 799]), torch.tensor(799.0), None])
def test_a_timestep_that_is_not_of_the_run_is_refused(timestep):
    scheduler = scheduler_of(PRESETS["512"], 5)
    with pytest.raises(InputError, match=r"timestep must be one of the 5 that set_timesteps chose, got .*; take it"):
        scheduler.step(normal(1), timestep, normal(0))


@pytest.mark.parametrize(("eta", "nearest"), [(-0.1, 0), (1.1, 1), (float("nan"), 0)])
def test_an_eta_outside_its_range_is_refused(eta, nearest):
    with pytest.raises(InputError, match=rf"eta must be between 0 and 1, got .*; try {nearest}"):
        scheduler_of(PRESETS["512"], 5).step(normal(1), 799, normal(0), eta=eta)


def test_tensors_of_other_shapes_are_refused():
    scheduler = scheduler_of(PRESETS["512"], 5)
    with pytest.raises(InputError, match=r"model_output must have the shape \(2, 4, 3, 2, 2\), got \(1, 4, 3, 2, 2\)"):
        scheduler.step(normal(1)[:1], 799, normal(0))
    with pytest.raises(InputError, match=r"noise must have the shape \(2, 4, 3, 2, 2\), got \(1, 4, 3, 2, 2\)"):
        scheduler.step(normal(1), 799, normal(0), eta=1.0, noise=normal(2)[:1])
    with pytest.raises(InputError, match=r"noise must have the shape \(2, 4, 3, 2, 2\), got \(1, 4, 3, 2, 2\)"):
        scheduler.add_noise(normal(1), normal(0)[:1], torch.tensor([3, 4]))
    with pytest.raises(InputError, match=r"timesteps must be one or 2, as many as samples, got 3"):
        scheduler.add_noise(normal(1), normal(0), torch.tensor([3, 4, 5]))


@pytest.mark.parametrize("timestep", [640, torch.tensor(640), torch.tensor([640])])
@pytest.mark.parametrize("method", ["add_noise", "get_velocity", "get_target"])
def test_one_training_timestep_stands_for_all_samples(timestep, method):
    call = getattr(scheduler_of(PRESETS["512"]), method)
    want = call(normal(0), normal(1), torch.tensor([640, 640]))
    torch.testing.assert_close(call(normal(0), normal(1), timestep), want, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["add_noise", "get_velocity", "get_target"])
def test_bfloat16_latents_are_noised_in_full_precision_and_come_back_as_they_were(method):
    call = getattr(scheduler_of(PRESETS["512"]), method)
    clean, noise, timesteps = normal(0).bfloat16(), normal(1).bfloat16(), torch.tensor([3, 640])
    made = call(clean, noise, timesteps)
    assert made.dtype is torch.bfloat16
    torch.testing.assert_close(made, call(clean.float(), noise.float(), timesteps).bfloat16(), rtol=0, atol=0)


def test_half_precision_latents_are_refused():
    scheduler = scheduler_of(PRESETS["512"], 5)
    with pytest.raises(InputError, match=r"sample must be float32 or float64, got torch.float16; call \.float"):
        scheduler.step(normal(1), 799, normal(0).half())
    with pytest.raises(InputError, match=r"clean must be floating-point latents, got torch.int64"):
        scheduler.add_noise(normal(1).long(), normal(0), torch.tensor([3, 4]))


@pytest.mark.parametrize("timesteps", [[0, 1000], [-1, 0], [0.5, 3.0]])
def test_training_timesteps_outside_the_schedule_are_refused(timesteps):
    with pytest.raises(InputError, match=r"timesteps must be whole numbers between 0 and 999, got \["):
        scheduler_of(PRESETS["512"]).add_noise(normal(0), normal(1), torch.tensor(timesteps))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_type": "flow"}, r"prediction_type must be one of epsilon, v_prediction, sample, got 'flow'"),
        ({"prediction_type": "epsilon"}, r"prediction_type must not be epsilon with zero_terminal_snr.*try v_pred"),
        ({"timestep_spacing": "leading"}, r"timestep_spacing must be uniform or uniform_trailing, got 'leading'"),
        ({"base_scale": 0.0}, r"base_scale must be above 0 and at most 1, or None, got 0.0"),
        ({"beta_start": 0.5}, r"beta_start and beta_end must be 0 < beta_start ≤ beta_end < 1, got 0.5 and 0.012"),
        ({"num_train_timesteps": 1}, r"num_train_timesteps must be at least 2, got 1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        DynamiCrafterScheduler(**options)


def test_a_number_of_steps_outside_the_schedule_is_refused():
    with pytest.raises(InputError, match=r"num_inference_steps must be a whole number between 1 and 1000, got 1001"):
        scheduler_of(PRESETS["512"]).set_timesteps(1001)
