import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicrafter.errors import InputError
from dynamicrafter.presets import PRESETS, Preset
from dynamicrafter.schedulers.noise import Level, NoiseSchedule, noise_schedule, spaced_timesteps
from dynamicrafter.schedulers.solvers import ddim_coefficients

SPACINGS = ("uniform", "uniform_trailing")


def schedule_of(preset: Preset) -> NoiseSchedule:
    return noise_schedule(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        zero_terminal_snr=preset.zero_terminal_snr,
        base_scale=preset.base_scale,
    )


def alphas_by_hand() -> list[float]:
    """√ᾱ from its definition, one product at a time."""
    alphas, product = [], 1.0
    for i in range(1000):
        beta = (math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * i / 999) ** 2
        product *= 1 - beta
        alphas.append(math.sqrt(product))
    return alphas


def test_signal_follows_the_definition():
    ours = schedule_of(PRESETS["256"]).alphas.tolist()
    assert ours == pytest.approx(alphas_by_hand(), rel=1e-12)


def test_zero_terminal_snr_keeps_the_first_level_and_silences_the_last():
    plain, shifted = alphas_by_hand(), schedule_of(PRESETS["512"]).alphas.tolist()
    assert shifted[-1] == 0.0
    assert shifted[0] == pytest.approx(plain[0], rel=1e-15)
    expected = [(a - plain[-1]) * plain[0] / (plain[0] - plain[-1]) for a in plain]
    assert shifted == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_signal_falls_noise_rises_and_their_squares_add_up_to_one(preset):
    tables = schedule_of(preset)
    assert (tables.alphas.diff() < 0).all()
    assert (tables.sigmas.diff() > 0).all()
    torch.testing.assert_close(tables.alphas**2 + tables.sigmas**2, torch.ones(1000, dtype=torch.float64))
    assert tables.alphas.dtype == tables.sigmas.dtype == tables.scales.dtype == torch.float64


@pytest.mark.parametrize(("name", "base"), [("512", 0.7), ("512_interp", 0.7), ("1024", 0.3)])
def test_latent_scale_falls_over_400_timesteps_to_its_base(name, base):
    scales = schedule_of(PRESETS[name]).scales.tolist()
    assert scales[0] == 1
    assert scales[1] == pytest.approx(1 - (1 - base) / 399)
    assert scales[200] == pytest.approx(1 - (1 - base) * 200 / 399)
    assert scales[399:] == [base] * 601


def test_without_a_base_scale_latents_keep_theirs():
    assert schedule_of(PRESETS["256"]).scales.tolist() == [1.0] * 1000


def test_a_level_holds_its_row_of_the_tables():
    tables = schedule_of(PRESETS["512"])
    level = tables.level(250)
    assert (level.alpha, level.sigma, level.scale) == tuple(
        table[250].item() for table in (tables.alphas, tables.sigmas, tables.scales)
    )


def test_levels_of_a_batch_hold_each_samples_own():
    tables = schedule_of(PRESETS["1024"])
    levels = tables.levels(torch.tensor([20, 999]), like=torch.zeros(2, 4, 16, 8, 8))
    assert levels.alpha.shape == levels.sigma.shape == levels.scale.shape == (2, 1, 1, 1, 1)
    assert levels.alpha.dtype == torch.float32
    assert levels.sigma.flatten().tolist() == pytest.approx([tables.level(20).sigma, 1.0])


@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_number_of_steps_gets_exactly_so_many_descending_timesteps(spacing):
    for n in range(1, 1001):
        steps = spaced_timesteps(n, spacing=spacing)
        assert len(steps) == n
        assert steps[-1] >= 0
        assert steps[0] <= 999
        assert all(high > low for high, low in pairwise(steps)), n


def test_uniform_spacing_is_the_published_one_where_the_steps_divide_1000():
    divisors = [n for n in range(1, 1000) if 1000 % n == 0]
    assert len(divisors) == 15
    for n in divisors:
        assert spaced_timesteps(n, spacing="uniform") == [t + 1 for t in range(0, 1000, 1000 // n)][::-1]


def test_uniform_spacing_spreads_other_counts_over_the_whole_range():
    assert spaced_timesteps(6, spacing="uniform") == [834, 667, 501, 334, 167, 1]
    assert spaced_timesteps(3, spacing="uniform") == [667, 334, 1]


def test_trailing_spacing_starts_at_full_noise():
    assert spaced_timesteps(50, spacing="uniform_trailing") == list(range(999, 0, -20))
    assert spaced_timesteps(6, spacing="uniform_trailing") == [999, 832, 666, 499, 332, 166]
    assert all(spaced_timesteps(n, spacing="uniform_trailing")[0] == 999 for n in range(1, 1001))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_thousand_steps_visit_every_timestep(spacing):
    assert spaced_timesteps(1000, spacing=spacing) == list(range(999, -1, -1))


@settings(deadline=None)
@given(st.integers(2, 2000), st.data())
def test_other_training_lengths_are_spaced_alike(total, data):
    n = data.draw(st.integers(1, total))
    for spacing in SPACINGS:
        steps = spaced_timesteps(n, spacing=spacing, num_train_timesteps=total)
        assert len(set(steps)) == n
        assert steps == sorted(steps, reverse=True)
        assert 0 <= steps[-1] <= steps[0] < total


@pytest.mark.parametrize("wrong", [0, -1, 1001, 2.5, 50.0, True, "50", None])
def test_a_number_of_steps_outside_its_range_is_refused(wrong):
    with pytest.raises(InputError, match=r"num_inference_steps must be a whole number between 1 and 1000, got .*; try"):
        spaced_timesteps(wrong, spacing="uniform")


def test_an_unknown_spacing_is_refused():
    with pytest.raises(InputError, match=r"timestep_spacing must be uniform or uniform_trailing, got 'leading'"):
        spaced_timesteps(5, spacing="leading")


@pytest.fixture(scope="module")
def moves() -> set[tuple[int, int]]:
    """Every (timestep, next timestep) that a run of any length and spacing makes; −1 after the last."""
    found = set()
    for spacing in SPACINGS:
        for n in range(1, 1001):
            steps = spaced_timesteps(n, spacing=spacing)
            found.update(zip(steps, [*steps[1:], -1], strict=True))
    return found


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_step_of_every_run_has_real_and_finite_coefficients(preset, eta, moves):
    tables = schedule_of(preset)
    levels = [tables.level(t) for t in range(1000)]
    assert len(moves) > 10_000
    for here, there in moves:
        kept, fresh = ddim_coefficients(levels[here], levels[max(there, 0)], eta=eta)
        assert isinstance(kept, float), (here, there)
        assert isinstance(fresh, float), (here, there)
        sigma = levels[max(there, 0)].sigma
        assert math.isclose(kept**2 + fresh**2, sigma**2, rel_tol=1e-9), (here, there)
        assert kept >= 0 <= fresh <= sigma * (1 + 1e-12), (here, there)


def test_coefficients_stay_real_where_rounding_dips_below_zero():
    # At zero signal and eta 1 the two variances cancel; a sigma one rounding above 1 tips them over.
    here = Level(alpha=0.0, sigma=1.0 - 1e-15, scale=1.0)
    there = Level(alpha=0.6, sigma=0.8, scale=1.0)
    assert ddim_coefficients(here, there, eta=1.0)[0] == 0.0
