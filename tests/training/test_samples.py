"""What chance decides for a sample, and what the objective then reads, against the pipeline's own steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynamicrafter.training.batches import Share
from dynamicrafter.training.config import ObjectiveConfig, Stage, TrainConfig
from dynamicrafter.training.draws import TrainingDraws, draw_sample
from dynamicrafter.training.encoding import assemble, condition_frames, encode_clip, encode_nothing
from tiny import pipeline
from training_runs import FakeClips, small

CPU = torch.device("cpu")


def many(config, count=4000):
    return [draw_sample(config, position) for position in range(count)]


def test_each_condition_is_dropped_alone_and_both_together_in_the_published_shares():
    draws = many(TrainConfig(objective=ObjectiveConfig(drop=0.1)))
    pairs = [(draw.drop_text, draw.drop_image) for draw in draws]
    for pair in ((True, False), (True, True), (False, True)):
        assert pairs.count(pair) / len(pairs) == pytest.approx(0.1, abs=0.02), pair


def test_timesteps_cover_the_schedule_evenly_or_crowd_at_its_end():
    even = torch.tensor([draw.timestep for draw in many(TrainConfig())])
    assert even.min() < 5
    assert even.max() > 994
    assert even.float().mean().item() == pytest.approx(499.5, abs=20)
    crowded = TrainConfig(objective=ObjectiveConfig(high_noise=0.7, high_noise_from=985))
    late = [draw.timestep >= 985 for draw in many(crowded)]
    assert sum(late) / len(late) == pytest.approx(0.7 + 0.3 * 0.015, abs=0.03)
    staged = replace(crowded, stages=(Stage(clips=1, high_noise=0.0), Stage(clips=9, high_noise=1.0)))
    assert all(draw_sample(staged, position).timestep >= 985 for position in range(1, 50))


def test_a_draw_depends_on_seed_and_position_alone():
    config = TrainConfig()
    alone = draw_sample(config, 17)
    torch.manual_seed(3)
    again = draw_sample(config, 17)
    assert (alone.timestep, alone.frame) == (again.timestep, again.frame)
    assert torch.equal(torch.rand(3, generator=alone.generator), torch.rand(3, generator=again.generator))
    assert draw_sample(replace(config, seed=1), 17).frame != alone.frame
    assert draw_sample(config, 18).frame != alone.frame


def test_the_condition_is_any_frame_or_the_first_or_both_ends():
    frames = {condition_frames(draw, 4) for draw in many(TrainConfig(), 100)}
    assert frames == {(0,), (1,), (2,), (3,)}
    first = TrainConfig(objective=ObjectiveConfig(condition="first"))
    assert {condition_frames(draw, 4) for draw in many(first, 50)} == {(0,)}
    mixed = many(TrainConfig(objective=ObjectiveConfig(ends=0.25)))
    assert sum(draw.ends for draw in mixed) / len(mixed) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_and_accumulation_divide_the_same_positions_into_the_same_micro_batches(world):
    whole = Share(batch_size=3, accumulation=4)
    parts = [Share(batch_size=3, accumulation=4 // world, rank=rank, world=world) for rank in range(world)]
    for step in (0, 5):
        want = [whole.positions(step, micro) for micro in range(4)]
        found = [part.positions(step, micro) for micro in range(4 // world) for part in parts]
        assert found == want
    assert whole.positions(1, 0)[0] == whole.global_batch


def drawn(position=0, **changes) -> TrainingDraws:
    draws = draw_sample(small(Path("run")), position)
    return replace(draws, **{"drop_text": False, "drop_image": False, "ends": False, "frame": 0.5} | changes)


def test_a_sample_is_encoded_as_the_pipeline_encodes():
    made, sample = pipeline("tiny512"), FakeClips(num_frames=4).draw(1)
    draws = drawn()
    noises = draws.generator.clone_state()
    batch = assemble(
        made, [encode_clip(made, sample, condition_frames(draws, 4))], [draws], encode_nothing(made), device=CPU
    )
    pixels = sample.pixels.permute(1, 0, 2, 3).float() / 127.5 - 1
    posterior, noise = (torch.randn(4, 4, 8, 8, generator=noises) for _ in range(2))
    want = made.encode_image_latents(pixels, noise=posterior.transpose(0, 1)).transpose(0, 1)
    latents = batch["latents"][0]
    # Scaled before the noise is added, not after: one rounding lies elsewhere.
    torch.testing.assert_close(latents, want, rtol=0, atol=2**-22)
    assert torch.equal(batch["noise"][0], noise)
    assert torch.equal(batch["image_latents"][0], latents[:, 2:3].expand_as(latents))
    assert torch.equal(batch["text"], made.encode_prompt([sample.caption]))
    context = made.image_projector(batch["image"], 4)
    assert torch.equal(context, made.encode_image(pixels[2:3], 4))
    assert batch["motion"].item() == sample.motion


def test_interpolation_is_conditioned_on_both_ends_and_on_the_first_picture():
    made, sample = pipeline("tiny512"), FakeClips(num_frames=4).draw(1)
    draws = drawn(ends=True)
    batch = assemble(
        made, [encode_clip(made, sample, condition_frames(draws, 4))], [draws], encode_nothing(made), device=CPU
    )
    latents = batch["latents"]
    assert torch.equal(batch["image_latents"], made.place_image_latents(latents[:, :, 0], latents[:, :, -1], 4))
    first = sample.pixels[:, 0].float()[None] / 127.5 - 1
    assert torch.equal(made.image_projector(batch["image"], 4), made.encode_image(first, 4))


def test_what_is_dropped_becomes_the_empty_prompt_and_a_grey_picture_but_never_the_image_latents():
    made, sample = pipeline("tiny512"), FakeClips().draw(1)
    clip = encode_clip(made, sample, (1,))
    kept = assemble(made, [clip], [drawn()], encode_nothing(made), device=CPU)
    dropped = assemble(made, [clip], [drawn(drop_text=True, drop_image=True)], encode_nothing(made), device=CPU)
    assert torch.equal(dropped["text"], made.encode_prompt([""]))
    grey = made.encode_image(torch.zeros(1, 3, 64, 64), 2)
    assert torch.equal(made.image_projector(dropped["image"], 2), grey)
    for name in ("latents", "noise", "image_latents", "motion"):
        assert torch.equal(kept[name], dropped[name]), name


def test_clips_of_one_picture_share_timestep_and_noise_and_drop_conditions_each_for_itself():
    stages = (Stage(clips=6), Stage(clips=400, variations=4, high_noise=0.5, ends=1.0))
    draws = many(TrainConfig(stages=stages, objective=ObjectiveConfig(drop=0.3)), count=406)
    groups = [draws[start : start + 4] for start in range(6, 406, 4)]
    noises = [[torch.randn(3, generator=draw.generator) for draw in group] for group in groups]
    for group, noise in zip(groups, noises, strict=True):
        assert len({draw.timestep for draw in group}) == 1
        assert all(torch.equal(other, noise[0]) for other in noise)
    assert len({group[0].timestep for group in groups}) > 20
    assert not torch.equal(noises[0][0], noises[1][0])
    assert any(len({draw.drop_text for draw in group}) == 2 for group in groups)
    assert all(draw.ends for draw in draws[6:])
    assert not any(draw.ends for draw in draws[:6])


def test_a_clip_that_only_its_ends_can_tell_is_given_both():
    made, sample = pipeline("tiny512"), replace(FakeClips(num_frames=4).draw(1), between_ends=True)
    frames = condition_frames(drawn(), 4, between_ends=True)
    batch = assemble(made, [encode_clip(made, sample, frames)], [drawn()], encode_nothing(made), device=CPU)
    latents = batch["latents"]
    assert torch.equal(batch["image_latents"], made.place_image_latents(latents[:, :, 0], latents[:, :, -1], 4))
    assert batch["given"].tolist() == [[True, False, False, True]]


def test_the_frame_that_an_animation_is_given_is_marked():
    made, sample = pipeline("tiny512"), FakeClips(num_frames=4).draw(1)
    clip = encode_clip(made, sample, condition_frames(drawn(), 4))
    batch = assemble(made, [clip], [drawn()], encode_nothing(made), device=CPU)
    assert batch["given"].tolist() == [[False, False, True, False]]
