"""Starting below full noise: timesteps, the fitted Gaussian, and noise on the condition, as published."""

import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.presets import get_preset
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.initial_noise import InitialNoise, fit_initial_noise, read_initial_noise
from dynamicrafter.training.time_noise import condition_noise_level, noise_condition
from family import close, golden, noise

MEAN = 0.3 * noise("b.expectation", 1, 4, 16, 8, 8)


def scheduler():
    return DynamiCrafterScheduler.from_preset(get_preset("512"))


@pytest.mark.parametrize(("start", "steps"), [(940, 50), (940, 7), (1000, 50), (900, 25)])
def test_timesteps_of_a_later_start_are_the_published_ones(start, steps):
    found = scheduler()
    found.set_timesteps(steps, start_step=start)
    assert torch.equal(found.timesteps, golden("cil")[f"timesteps.M{start}.n{steps}"])


@pytest.mark.parametrize("sampler", ["ddim", "unipc"])
@pytest.mark.parametrize("preset", ["256", "512"])
def test_a_later_start_leaves_out_the_noisiest_timesteps_of_any_spacing_and_sampler(preset, sampler):
    found = DynamiCrafterScheduler.from_preset(get_preset(preset))
    found.set_timesteps(10, sampler=sampler, start_step=500)
    times = found.timesteps.tolist()
    assert len(set(times)) == 10
    assert 400 < times[0] < 500
    found.set_timesteps(500, sampler=sampler, start_step=500)
    assert sorted(found.timesteps.tolist()) == list(range(500))


@pytest.mark.parametrize("start", [0, 1001, True, 940.0])
def test_a_start_that_there_is_not_is_refused(start):
    with pytest.raises(InputError, match="start_step must be a whole number between 1 and 1000"):
        scheduler().set_timesteps(1, start_step=start)


@pytest.mark.parametrize("start", [1000, 940, 900])
def test_the_start_of_a_run_is_the_published_one(start):
    found = InitialNoise(MEAN, 0.7).start(noise("b.eps", 1, 4, 16, 8, 8), scheduler().level(start - 1))
    assert close(found, golden("cil")[f"init.M{start}"], 1e-6)


def test_noise_of_other_frames_is_refused():
    with pytest.raises(InputError, match="initial_noise was made for latents"):
        InitialNoise(MEAN, 0.7).start(torch.zeros(1, 4, 8, 8, 8), scheduler().level(939))


def test_statistics_of_clips_are_the_published_ones():
    want = golden("cil")
    found = fit_initial_noise(noise(f"b.video{i}", 1, 4, 4, 4, 4) * (0.5 + 0.1 * i) + 0.2 for i in range(5))
    assert close(found.mean, want["statistics.Expectation_X0"], 1e-6)
    assert found.variance == pytest.approx(want["statistics.Tr_Cov_d"].item(), rel=1e-6)


def test_clips_of_several_shapes_or_none_are_refused():
    with pytest.raises(InputError, match="at least one"):
        fit_initial_noise([])
    with pytest.raises(InputError, match="one shape"):
        fit_initial_noise([torch.zeros(1, 4, 2, 4, 4), torch.zeros(1, 4, 3, 4, 4)])


def test_a_file_is_read_as_it_was_written(tmp_path):
    InitialNoise(MEAN, 0.7).save(tmp_path / "noise.pt")
    assert set(torch.load(tmp_path / "noise.pt", weights_only=True)) == {"Expectation_X0", "Tr_Cov_d"}
    found = read_initial_noise(tmp_path / "noise.pt")
    assert torch.equal(found.mean, MEAN)
    assert found.variance == pytest.approx(0.7)


@pytest.mark.parametrize(
    "content",
    [
        {"Expectation_X0": MEAN},
        {"Expectation_X0": MEAN[0, 0], "Tr_Cov_d": 1.0},
        {"Expectation_X0": MEAN, "Tr_Cov_d": -1.0},
        {"Expectation_X0": MEAN * torch.nan, "Tr_Cov_d": 1.0},
        [MEAN],
    ],
)
def test_a_file_with_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "noise.pt")
    with pytest.raises(InputError, match="initial_noise must hold"):
        read_initial_noise(tmp_path / "noise.pt")


def test_a_file_that_is_none_of_torchs_is_refused_in_one_line(tmp_path):
    (tmp_path / "noise.pt").write_bytes(b"not a pickle")
    with pytest.raises(InputError, match="can't be read") as caught:
        read_initial_noise(tmp_path / "noise.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("exponent", "level"), [(1, 100), (5, 100), (5, 25)])
def test_the_noise_on_a_condition_grows_with_time_as_published(exponent, level):
    want = golden("cil")
    found = condition_noise_level(want["timenoise.t"], noise("b.y", 5), exponent=exponent, level=level)
    assert close(found, want[f"timenoise.beta_a{exponent}_m{level}"], 1e-6)


def test_noised_image_latents_stand_beside_the_noise_as_published():
    want = golden("cil")
    level = condition_noise_level(want["timenoise.t"], noise("b.y", 5))
    clean = noise("b.clean_latents", 5, 4, 1, 4, 4).expand(-1, -1, 4, -1, -1)
    noised = noise_condition(clean, noise("b.concat_noise", 5, 4, 4, 4, 4), level)
    ours = torch.cat([noise("b.x", 5, 4, 4, 4, 4), noised], dim=1)
    assert close(ours, want["timenoise.unet_input"], 1e-6)
