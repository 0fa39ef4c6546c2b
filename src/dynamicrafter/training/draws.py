"""What chance decides for a sample, from its position in the endless order alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from dynamicrafter.presets import NUM_TRAIN_TIMESTEPS
from dynamicrafter.randomness import generator_for, stream_seed
from dynamicrafter.training.config import TrainConfig, stage_of, stage_start


@dataclass(frozen=True, slots=True)
class TrainingDraws:
    """What was drawn for one sample.

    Attributes:
        timestep: 0 … 999.
        drop_text, drop_image: the condition is replaced by the empty prompt, or by a grey picture's tokens.
        ends: conditioned on first and last frame; else on one.
        frame: 0 ≤ frame < 1, where among the frames that may be the one its stands.
        window: latents along the sides of the part that is trained on; None for all.
        place: where among the places that a window may take it stands, down and to the right, each 0 ≤ … < 1.
        generator: goes on to the autoencoder's noise, then to the diffusion's.
    """

    timestep: int
    drop_text: bool
    drop_image: bool
    ends: bool
    frame: float
    window: int | None
    place: tuple[float, float]
    generator: Generator


def draw_sample(config: TrainConfig, position: int) -> TrainingDraws:
    """Draw for the sample at a position; the same wherever and beside whatever it is trained on."""
    objective, stage = config.objective, stage_of(config, position)
    generator = generator_for(config.seed, item=f"train/{position}")
    high, where, drop, ends, frame = torch.rand(5, dtype=torch.float64, generator=generator).tolist()
    if stage is not None and stage.variations > 1:  # what clips of one picture share must cancel out between them
        number, begin = stage_start(config.stages, position)
        group = (position - begin) // stage.variations
        generator = generator_for(config.seed, item=f"stage {number}/group {group}")
        high, where = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
    window = None if stage is None else stage.window
    down, right = (0.0, 0.0) if window is None else torch.rand(2, dtype=torch.float64, generator=generator).tolist()
    share = objective.high_noise if stage is None or stage.high_noise is None else stage.high_noise
    share_of_ends = objective.ends if stage is None or stage.ends is None else stage.ends
    start = objective.high_noise_from if high < share else 0
    p = objective.drop
    return TrainingDraws(
        timestep=start + int(where * (NUM_TRAIN_TIMESTEPS - start)),
        drop_text=drop < 2 * p,
        drop_image=p <= drop < 3 * p,
        ends=ends < share_of_ends,
        frame=0.0 if objective.condition == "first" else frame,
        window=window,
        place=(down, right),
        generator=generator,
    )


def seed_dropout(config: TrainConfig, position: int) -> None:
    """Seed the networks' own dropout for the micro-batch that begins at a position.

    Dropout draws from PyTorch's global generators; seeded before every micro-batch, it too is independent of what ran
    before and on which process, and a checkpoint needs to keep no state of them.
    """
    torch.manual_seed(stream_seed(config.seed, item=f"dropout/{position}"))
