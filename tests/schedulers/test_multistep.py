"""Multistep samplers against closed forms: how fast their error falls, and what they have in common with DDIM."""

import copy
import math
from itertools import pairwise

import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.presets import BUNDLED, PRESETS, Preset
from dynamicrafter.samplers import SAMPLERS
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.multistep import DPMSolver, UniPC
from dynamicrafter.schedulers.noise import Level, multistep_timesteps
from dynamicrafter.schedulers.prediction import predict, prediction_target
from dynamicrafter.schedulers.solvers import DDIMSolver, new_solver

EVERY_PRESET = pytest.mark.parametrize("preset", [*PRESETS.values(), BUNDLED], ids=[*PRESETS, "bundled"])
MULTISTEP = ("dpm++", "dpm++sde", "unipc")
MEAN, SPREAD = 0.7, 0.4  # of clean latents, for which a perfect network and the flow's solution have closed forms
SHAPE = (2, 4, 3, 2, 2)


def normal(seed, shape=SHAPE, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scheduler_of(preset: Preset, steps: int, sampler: str) -> DynamiCrafterScheduler:
    scheduler = DynamiCrafterScheduler.from_preset(preset)
    scheduler.set_timesteps(steps, sampler=sampler)
    return scheduler


def spread_at(level):
    return math.hypot(level.alpha * level.scale * SPREAD, level.sigma)


def best_guess(sample, level):
    """E[z | x] for clean latents z that are normal, x = a z + σ ε."""
    signal = level.alpha * level.scale
    return MEAN + signal * SPREAD**2 / spread_at(level) ** 2 * (sample - signal * MEAN)


def flow(sample, here, there):
    """Where the probability flow carries a sample: its distance from the mean grows with the spread."""
    centred = (sample - here.alpha * here.scale * MEAN) / spread_at(here)
    return there.alpha * there.scale * MEAN + spread_at(there) * centred


def smooth_levels(steps):
    """Levels evenly spaced in λ = log(α s / σ), with a scale that changes smoothly."""
    for index in range(steps + 1):
        angle = math.pi / 2 - 0.05 - index / steps * 1.4
        yield Level(alpha=math.cos(angle), sigma=math.sin(angle), scale=1 - 0.3 * math.sin(angle) ** 2)


def error_of(solver, steps):
    levels = list(smooth_levels(steps))
    start = sample = torch.tensor([1.3, -0.4], dtype=torch.float64)
    for here, there in pairwise(levels):
        sample, _ = solver.advance(sample, here.scale * best_guess(sample, here), None, here, there)
    return (sample - flow(start, levels[0], levels[-1])).abs().max().item()


class FirstOrder(DPMSolver):
    """DPM-Solver++ that forgets."""

    def advance(self, *args, **options):
        self._before = None
        return super().advance(*args, **options)


@pytest.mark.parametrize(("make", "order"), [(FirstOrder, 1), (DPMSolver, 2), (UniPC, 3)])
def test_the_error_falls_with_the_order_of_the_method(make, order):
    errors = [error_of(make(), steps) for steps in (80, 160, 320)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def walk(scheduler, preset, sample, *, eta=0.0, noise=None):
    """A whole run with the perfect network for normal clean latents."""
    for timestep in scheduler.timesteps.tolist():
        here, _ = scheduler._levels(timestep)
        clean = best_guess(sample, here)
        told = prediction_target(
            clean, (sample - here.alpha * here.scale * clean) / here.sigma, here, prediction=preset.prediction
        )
        sample = scheduler.step(told, timestep, sample, eta=eta, noise=noise).prev_sample
    return sample


@EVERY_PRESET
def test_fifteen_calls_come_nearer_to_the_flow_than_ddims_fifty(preset):
    start = normal(0)
    schedule = DynamiCrafterScheduler.from_preset(preset)._schedule
    truth = flow(start, schedule.level(999), schedule.level(0))

    def error(sampler, steps):
        return (walk(scheduler_of(preset, steps, sampler), preset, start) - truth).abs().max().item()

    for sampler in ("dpm++", "unipc"):
        assert error(sampler, 15) < error("ddim", 50)
        assert error(sampler, 30) < error(sampler, 15)
    assert error("unipc", 200) < 1e-3


@EVERY_PRESET
@pytest.mark.parametrize("sampler", MULTISTEP)
@pytest.mark.parametrize("steps", [1, 2, 7, 33])
def test_a_network_that_knows_the_truth_leads_back_to_it(preset, sampler, steps):
    scheduler = scheduler_of(preset, steps, sampler)
    clean, noise = normal(0), normal(1)
    latents = scheduler.add_noise(clean, noise, scheduler.timesteps[:1].expand(2))
    for timestep in scheduler.timesteps.tolist():
        target = scheduler.get_target(clean, noise, torch.tensor([timestep, timestep]))
        latents = scheduler.step(target, timestep, latents, eta=0).prev_sample
    end = scheduler._schedule.level(0)
    torch.testing.assert_close(latents, end.alpha * clean + end.sigma * noise, rtol=1e-9, atol=1e-9)


def ddim_step(scheduler, timestep, *, eta, noise=None):
    """DDIM's step between the same two levels."""
    here, there = scheduler._levels(timestep)
    x0, eps = predict(normal(1), normal(0), here, prediction=scheduler.config["prediction_type"])
    return DDIMSolver().advance(normal(0), x0, eps, here, there, eta=eta, noise=noise)[0]


@EVERY_PRESET
@pytest.mark.parametrize("sampler", MULTISTEP)
def test_a_first_step_without_noise_is_ddims(preset, sampler):
    scheduler = scheduler_of(preset, 8, sampler)
    first = int(scheduler.timesteps[0])
    got = scheduler.step(normal(1), first, normal(0), eta=0).prev_sample
    torch.testing.assert_close(got, ddim_step(scheduler, first, eta=0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preset", [PRESETS["256"], BUNDLED], ids=["256", "bundled"])
def test_a_first_step_with_all_noise_is_ddims_where_latents_are_not_rescaled(preset):
    scheduler = scheduler_of(preset, 8, "dpm++sde")
    first = int(scheduler.timesteps[0])
    got = scheduler.step(normal(1), first, normal(0), noise=normal(2)).prev_sample
    torch.testing.assert_close(got, ddim_step(scheduler, first, eta=1.0, noise=normal(2)), rtol=1e-9, atol=1e-9)


@EVERY_PRESET
def test_without_noise_the_sde_form_is_the_other_one(preset):
    made = [walk(scheduler_of(preset, 9, sampler), preset, normal(0)) for sampler in ("dpm++", "dpm++sde")]
    torch.testing.assert_close(*made, rtol=0, atol=0)


@EVERY_PRESET
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_fresh_noise_keeps_the_spread_of_the_clean_latents(preset, eta):
    scheduler = scheduler_of(preset, 150, "dpm++sde")
    samples = normal(0, (1, 10000)) * spread_at(first := scheduler._schedule.level(999))
    samples = samples + first.alpha * first.scale * MEAN
    generator = torch.Generator().manual_seed(3)
    for timestep in scheduler.timesteps.tolist():
        here, _ = scheduler._levels(timestep)
        clean = best_guess(samples, here)
        told = prediction_target(
            clean, (samples - here.alpha * here.scale * clean) / here.sigma, here, prediction=preset.prediction
        )
        samples = scheduler.step(told, timestep, samples, eta=eta, generator=generator).prev_sample
    end = scheduler._schedule.level(0)
    assert samples.mean().item() == pytest.approx(end.alpha * MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(spread_at(end), rel=0.03)


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_every_number_of_steps_is_finite_in_float32(sampler):
    for preset in (PRESETS["256"], PRESETS["1024"], BUNDLED):
        for steps in (1, 2, 3, 7, 15, 33, 1000):
            scheduler = scheduler_of(preset, steps, sampler)
            assert len(scheduler.timesteps) == steps
            latents = normal(0, (1, 2), torch.float32)
            for timestep in scheduler.timesteps.tolist():
                latents = scheduler.step(-latents, timestep, latents, noise=normal(1, (1, 2))).prev_sample
            assert latents.dtype == torch.float32
            assert latents.isfinite().all(), (preset.name, steps)


def test_timesteps_are_distinct_and_descend_from_pure_noise_for_every_count():
    for steps in range(1, 1001):
        chosen = multistep_timesteps(steps)
        assert len(chosen) == steps
        assert chosen[0] == 999
        assert all(later < earlier for earlier, later in pairwise(chosen))
        assert chosen[-1] > 0 or steps == 1000


@pytest.mark.parametrize("sampler", ["ddim", *MULTISTEP])
def test_a_run_begins_anew_with_its_first_timestep_and_remembers_none_before_it(sampler):
    scheduler = scheduler_of(PRESETS["512"], 6, sampler)

    def run(seed):
        latents = normal(seed)
        for timestep in scheduler.timesteps.tolist():
            latents = scheduler.step(latents.tanh(), timestep, latents, eta=0).prev_sample
        return latents

    first = run(0)
    run(1)
    torch.testing.assert_close(run(0), first, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_the_sampler_that_was_set_with_the_timesteps_takes_the_steps(sampler):
    scheduler, solver = scheduler_of(PRESETS["512"], 6, sampler), new_solver(sampler)
    latents = want = normal(0)
    for timestep in scheduler.timesteps.tolist():
        here, there = scheduler._levels(timestep)
        x0, eps = predict(want.tanh(), want, here, prediction="v_prediction")
        want, clean = solver.advance(want, x0, eps, here, there, eta=0, noise=None)
        made = scheduler.step(latents.tanh(), timestep, latents, eta=0)
        latents = made.prev_sample
        torch.testing.assert_close(made.pred_original_sample, clean, rtol=0, atol=0)
    torch.testing.assert_close(latents, want, rtol=0, atol=0)
    assert not torch.allclose(latents, walk_by("ddim", scheduler), atol=1e-3)


def walk_by(sampler, scheduler):
    """The same timesteps by another sampler's steps."""
    solver, latents = new_solver(sampler), normal(0)
    for timestep in scheduler.timesteps.tolist():
        here, there = scheduler._levels(timestep)
        x0, eps = predict(latents.tanh(), latents, here, prediction="v_prediction")
        latents, _ = solver.advance(latents, x0, eps, here, there, eta=0, noise=None)
    return latents


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_a_solver_of_its_own_for_each_run(sampler):
    assert new_solver(sampler) is not new_solver(sampler)


def test_a_corrected_step_keeps_what_was_changed_in_between():
    scheduler = scheduler_of(PRESETS["512"], 6, "unipc")
    first, second = scheduler.timesteps[:2].tolist()
    runs = [scheduler, copy.deepcopy(scheduler)]
    plain, changed = (run.step(normal(1), first, normal(0)).prev_sample for run in runs)
    changed = changed + 5
    # An answer that says the same z of both, so that the two differ by the change alone.
    here, there = scheduler._levels(second)
    told = [prediction_target(normal(2), (x - here.alpha * here.scale * normal(2)) / here.sigma, here,
                              prediction="v_prediction") for x in (plain, changed)]  # fmt: skip
    after = [run.step(t, second, x).prev_sample for run, t, x in zip(runs, told, (plain, changed), strict=True)]
    torch.testing.assert_close(after[1] - after[0], torch.full(SHAPE, 5 * there.sigma / here.sigma).double())


def test_fresh_noise_comes_from_each_samples_own_generator():
    scheduler = scheduler_of(PRESETS["512"], 5, "dpm++sde")

    def step(seeds):
        same = torch.ones((len(seeds), *SHAPE[1:]))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return scheduler.step(same, 999, same, generator=generators).prev_sample

    torch.testing.assert_close(step([5, 6, 7])[1:], step([6, 7]), rtol=0, atol=0)


@pytest.mark.parametrize("sampler", ["dpm++", "unipc"])
def test_noise_is_refused_where_the_sampler_adds_none(sampler):
    with pytest.raises(InputError, match=r"eta must be 0 with the sampler .*, which adds no noise, got 0.5; leave it"):
        scheduler_of(PRESETS["512"], 5, sampler).step(normal(1), 999, normal(0), eta=0.5)


def test_a_sampler_that_there_is_none_of_is_refused():
    with pytest.raises(InputError, match=r"sampler must be one of ddim, dpm\+\+, dpm\+\+sde, unipc, got 'euler'"):
        DynamiCrafterScheduler().set_timesteps(5, sampler="euler")
    with pytest.raises(InputError, match="num_inference_steps must be a whole number between 1 and 1000, got 0"):
        DynamiCrafterScheduler().set_timesteps(0, sampler="unipc")
