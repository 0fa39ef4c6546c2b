"""What the network's output means: the one place that turns it into (x₀, ε), and the inverse that training needs.

x₀ is the clean latent as the noised one contains it, s_t z, so that x_t = α_t x₀ + σ_t ε.
"""

from __future__ import annotations

from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.presets import Prediction
from dynamicrafter.schedulers.noise import Level


def predict(
    output: Tensor, sample: Tensor, level: Level[float] | Level[Tensor], *, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """Read clean latent and noise off the network's output.

    Args:
        output: what the network answered, (b, …).
        sample: the noised latent x_t that it saw, (b, …).
        level: of x_t.
        prediction: "v_prediction", v = α ε − σ x₀ (arXiv:2202.00512, app. D); "epsilon", the noise, for α > 0 only;
            "sample", x₀ itself, for σ > 0 only.

    Returns:
        x₀ and ε, each (b, …).

    Raises:
        InputError: there is no such prediction.
    """
    match prediction:
        case "v_prediction":
            return level.alpha * sample - level.sigma * output, level.alpha * output + level.sigma * sample
        case "epsilon":
            return (sample - level.sigma * output) / level.alpha, output
        case "sample":
            return output, (sample - level.alpha * output) / level.sigma
        case _:
            raise unknown_prediction(prediction)


def prediction_target(
    clean: Tensor, noise: Tensor, level: Level[float] | Level[Tensor], *, prediction: Prediction
) -> Tensor:
    """What a perfect network answers for x_t = α s z + σ ε; `predict` turns it back into (s z, ε).

    Args:
        clean: z, (b, …).
        noise: ε, (b, …).
        level: of x_t.
        prediction: as in `predict`.

    Raises:
        InputError: there is no such prediction.
    """
    match prediction:
        case "v_prediction":
            return level.alpha * noise - level.sigma * (level.scale * clean)
        case "epsilon":
            return noise
        case "sample":
            return level.scale * clean
        case _:
            raise unknown_prediction(prediction)


def unknown_prediction(prediction: object) -> InputError:
    """The error for a prediction that is none of the three."""
    return InputError(f"prediction_type must be one of epsilon, v_prediction, sample, got {prediction!r}.")
