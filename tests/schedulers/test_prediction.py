import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicrafter.errors import InputError
from dynamicrafter.schedulers.noise import Level
from dynamicrafter.schedulers.prediction import predict, prediction_target

KINDS = ("v_prediction", "epsilon", "sample")


def latents(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level_of(alpha: float, scale: float = 0.7) -> Level[float]:
    return Level(alpha=alpha, sigma=(1 - alpha**2) ** 0.5, scale=scale)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(alpha=st.floats(0.05, 0.9996), scale=st.floats(0.3, 1))
def test_the_target_read_back_gives_scaled_latent_and_noise(kind, alpha, scale):
    level = level_of(alpha, scale)
    clean, noise = latents(0), latents(1)
    noised = alpha * scale * clean + level.sigma * noise
    target = prediction_target(clean, noise, level, prediction=kind)
    x0, eps = predict(target, noised, level, prediction=kind)
    torch.testing.assert_close(x0, scale * clean, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(eps, noise, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_pure_noise_is_read_without_division_by_zero(kind):
    level = level_of(0.0)
    clean, noise = latents(0), latents(1)
    x0, eps = predict(prediction_target(clean, noise, level, prediction=kind), noise, level, prediction=kind)
    torch.testing.assert_close(x0, 0.7 * clean)
    torch.testing.assert_close(eps, noise)


def test_velocity_has_the_published_sign():
    clean, noise = latents(0), latents(1)
    v = prediction_target(clean, noise, Level(alpha=0.6, sigma=0.8, scale=0.5), prediction="v_prediction")
    torch.testing.assert_close(v, 0.6 * noise - 0.8 * 0.5 * clean)


def test_an_unknown_prediction_is_refused():
    message = r"prediction_type must be one of epsilon, v_prediction, sample, got 'flow'"
    with pytest.raises(InputError, match=message):
        predict(latents(0), latents(1), level_of(0.5), prediction="flow")
    with pytest.raises(InputError, match=message):
        prediction_target(latents(0), latents(1), level_of(0.5), prediction="flow")
