"""Runs of a few steps: what they change, keep, write and refuse."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

from dynamicrafter.data.config import DataConfig
from dynamicrafter.errors import InputError
from dynamicrafter.media.video import read_clip
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.training import checkpoints
from dynamicrafter.training.checkpoints import Snapshot
from dynamicrafter.training.config import (
    LoraConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    ValidationConfig,
)
from dynamicrafter.training.loop import train
from dynamicrafter.training.optimizers import Average
from dynamicrafter.training.parallel import fsdp_plugin
from dynamicrafter.training.trainee import build_trainee, trained_parameters
from training_runs import FakeClips, losses, small


def run(config, **options):
    return train(config, stream=FakeClips(), **options)


def trained_by(config):
    model = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    return list(trained_parameters(build_trainee(model, config)))


def test_training_lowers_the_loss_on_clips_that_it_sees_again(tmp_path):
    late = ObjectiveConfig(drop=0.0, high_noise=1.0, high_noise_from=999)  # one noise level, whose losses compare
    config = small(tmp_path, steps=12, objective=late, optimizer=OptimizerConfig(lr=3e-3))
    one = replace(FakeClips(), count=1)
    train(config, stream=one)
    values = [loss for loss, _ in losses(tmp_path)]
    assert sum(values[-4:]) < 0.8 * sum(values[:4])


def test_the_losses_are_those_of_the_published_objective(tmp_path):
    # The step before any update, from the parts: what the golden tests hold, on the batch of the first position.
    from dynamicrafter.randomness import stream_seed
    from dynamicrafter.training.draws import draw_sample
    from dynamicrafter.training.encoding import assemble, condition_frames, encode_clip, encode_nothing

    config = small(tmp_path, steps=1)
    run(config)
    model = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    draws, sample = draw_sample(config, 0), FakeClips().draw(0)
    clip = encode_clip(model, sample, condition_frames(draws, 2))
    batch = assemble(model, [clip], [draws], encode_nothing(model), device=torch.device("cpu"))
    torch.manual_seed(stream_seed(config.seed, item="dropout/0"))
    context = model.image_projector(batch["image"], 2)
    model.unet.train()
    noisy = model.scheduler.add_noise(batch["latents"], batch["noise"], batch["timesteps"])
    sample = torch.cat([noisy, batch["image_latents"]], dim=1)
    answer = model.unet(sample, batch["timesteps"], batch["text"], context, batch["motion"])
    want = (answer - model.scheduler.get_velocity(batch["latents"], batch["noise"], batch["timesteps"])).square().mean()
    assert losses(tmp_path)[0][0] == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("what", "inside", "outside"),
    [
        ("all", ("unet.conv_in", "image_projector.queries", "unet.init_temporal"), ("encoder",)),
        ("projector", ("image_projector.queries",), ("unet",)),
        ("temporal", ("unet.init_temporal", ".residual.temporal.convs", "units.0.temporal"), (".spatial.", "conv_in")),
        ("spatial", (".spatial.", "unet.conv_in", "residual.conv1"), (".temporal.", "init_temporal", "projector")),
        ("everything_and_encoders", ("unet", "text_encoder", "image_encoder"), ("post_layernorm", "vae")),
    ],
)
def test_what_trains_is_chosen_by_name(tmp_path, what, inside, outside):
    names = trained_by(small(tmp_path, trains=what))
    assert all(any(part in name for name in names) for part in inside)
    assert not any(part in name for name in names for part in outside)


def test_spatial_and_temporal_layers_are_all_of_the_unet(tmp_path):
    spatial, temporal = (set(trained_by(small(tmp_path, trains=what))) for what in ("spatial", "temporal"))
    unet = {name for name in trained_by(small(tmp_path)) if name.startswith("unet.")}
    assert not spatial & temporal
    assert spatial | temporal == unet


@pytest.mark.parametrize(
    ("layers", "parts", "inside", "outside"),
    [
        ("both", "both", ("spatial.cross_attention.to_k_image", "units.0.temporal.attention1", "init_temporal"), ()),
        ("spatial", "attention", ("spatial.self_attention.to_q",), ("temporal", "feed_forward")),
        ("temporal", "feed_forward", ("units.0.temporal.feed_forward",), ("spatial", "attention", "convs")),
    ],
)
def test_adapters_go_where_they_are_asked_for(tmp_path, layers, parts, inside, outside):
    config = small(tmp_path, trains="lora", lora=LoraConfig(rank=2, layers=layers, parts=parts))
    names = trained_by(config)
    assert all("lora_" in name for name in names)
    assert all(any(part in name for name in names) for part in inside)
    assert not any(part in name for name in names for part in outside)


@pytest.mark.parametrize("trains", ["temporal", "spatial", "projector", "lora", "everything_and_encoders"])
def test_only_what_trains_changes_in_mixed_precision(tmp_path, trains):
    config = small(tmp_path, steps=1, trains=trains, precision="bfloat16", gradient_checkpointing=True)
    before = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    after = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    outcome = run(config, pipeline=after)
    kept = load_file(outcome.checkpoint / "trained.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in kept.values())
    for name, network in before.components.items():
        if not isinstance(network, torch.nn.Module):
            continue
        now = dict(getattr(after, name).named_parameters())
        for key, parameter in network.named_parameters():
            if f"{name}.{key}" not in kept:
                own = now.get(key, now.get(f"{key.rpartition('.')[0]}.base_layer.{key.rpartition('.')[2]}"))
                assert torch.equal(own, parameter.to(own.dtype)), key


def test_checkpointing_activations_changes_no_loss(tmp_path):
    run(small(tmp_path / "plain"))
    run(small(tmp_path / "checkpointed", gradient_checkpointing=True))
    assert losses(tmp_path / "plain") == losses(tmp_path / "checkpointed")


def test_workers_change_nothing(tmp_path):
    run(small(tmp_path / "none"))
    run(small(tmp_path / "two", workers=2))
    assert losses(tmp_path / "none") == losses(tmp_path / "two")


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_validation_and_resuming_change_no_loss(tmp_path, name):
    options = {"optimizer": OptimizerConfig(name=name, lr=1e-3), "ema": 0.9}
    run(small(tmp_path / "plain", steps=4, **options))
    watched = small(tmp_path / "watched", validation=ValidationConfig(every=1, steps=2), **options)
    run(replace(watched, steps=2))
    run(replace(watched, steps=4, tracker="tensorboard"))
    assert losses(tmp_path / "plain") == losses(tmp_path / "watched")
    clips = sorted((tmp_path / "watched" / "validation").iterdir())
    assert [clip.name for clip in clips] == [f"step-{step:08}.mp4" for step in (1, 2, 3, 4)]
    assert read_clip(clips[0])[0].shape == (2, 64, 64, 3)
    assert any("tfevents" in path.name for path in (tmp_path / "watched" / "tracker").rglob("*"))


def test_interpolation_trains_and_validates_on_both_ends(tmp_path):
    config = small(tmp_path, objective=ObjectiveConfig(ends=1.0), validation=ValidationConfig(every=3, steps=2))
    run(config)
    assert (tmp_path / "validation" / "step-00000003.mp4").exists()


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path):
    config = small(tmp_path, steps=1)
    run(config)
    with pytest.raises(InputError, match=r"optimizer\.lr 0\.001, not 0\.1") as error:
        run(replace(config, optimizer=OptimizerConfig(lr=0.1)))
    assert str(tmp_path) in str(error.value)
    with pytest.raises(InputError, match="steps must be at least 1"):
        run(replace(config, steps=1)) and run(replace(config, steps=0))
    run(replace(config, steps=2, keep=1, checkpoint_every=1))


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_clips(tmp_path):
    @dataclass(frozen=True)
    class Poisoned(FakeClips):
        def draw(self, position):
            sample = super().draw(position)
            return replace(sample, motion=float("nan")) if position == 5 else sample

    config = small(tmp_path, steps=9, batch_size=2, checkpoint_every=1)
    with pytest.raises(InputError, match="no finite number at step 3, with the clips clip0, clip4;"):
        train(config, stream=Poisoned())
    assert len(losses(tmp_path)) == 2
    assert all(
        t.isfinite().all() for t in checkpoints.read(checkpoints.found(tmp_path / "checkpoints")[-1]).trained.values()
    )


def test_a_clip_that_cant_be_read_stops_the_run_in_one_line_from_a_worker_too(tmp_path):
    @dataclass(frozen=True)
    class Broken(FakeClips):
        def draw(self, position):
            raise InputError("nothing here can be read.")

    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^nothing here can be read\.$"):
            train(small(tmp_path, workers=workers), stream=Broken())


def snapshot(step):
    return Snapshot(step=step, settings={}, trained={"a": torch.full((2,), float(step))}, average={}, optimizer={})


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        checkpoints.write(tmp_path, snapshot(step), keep=2)
    assert [path.name for path in checkpoints.found(tmp_path)] == ["step-00000002", "step-00000003"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(InputError, match="the disk is full"):
        checkpoints.write(tmp_path, snapshot(4), keep=2)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert checkpoints.read(checkpoints.found(tmp_path)[-1]).trained["a"].tolist() == [3, 3]


def test_a_checkpoint_in_parts_is_read_as_a_whole_one(tmp_path):
    tensors = {"a": torch.randn(700_000), "b": torch.randn(3, 4)}
    snapshot = Snapshot(step=3, settings={}, trained=tensors, average=tensors, optimizer={"state": tensors})
    path = checkpoints.write(tmp_path, snapshot, keep=1, part=1)
    assert max(file.stat().st_size for file in path.iterdir()) <= 10**6
    assert not (path / "trained.safetensors").exists()
    again = checkpoints.read(path)
    for found in (again.trained, again.average, again.optimizer["state"]):
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    (path / "average.safetensors.001").unlink()
    with pytest.raises(InputError, match="can't be read"):
        checkpoints.read(path)


def test_a_run_of_minutes_stops_when_they_are_over_and_its_rate_has_fallen_to_nothing(tmp_path, monkeypatch):
    now = iter(range(0, 100_000, 5))  # every look at the clock takes five seconds
    monkeypatch.setattr("dynamicrafter.training.loop.time.monotonic", lambda: float(next(now)))
    falling = ScheduleConfig(decay="linear", decay_from=0.0)
    config = small(tmp_path, steps=1, minutes=3.0, checkpoint_minutes=1.0, checkpoint_every=1000, schedule=falling)
    outcome = run(config)
    assert 1 < outcome.step < 36
    rates = [json.loads(line)["lr"] for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert len(rates) == outcome.step
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]
    steps = [int(path.name[5:]) for path in checkpoints.found(tmp_path / "checkpoints")]
    assert len(steps) >= 2  # one each minute, and one at the end
    assert steps[-1] == outcome.step
    further = run(replace(config, minutes=1.0))
    assert further.step > outcome.step


def test_a_gpu_that_is_not_there_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda needs a GPU that PyTorch sees, and there is none; take auto or"):
        run(small(tmp_path, steps=1, device="cuda"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = checkpoints.write(tmp_path, snapshot(1), keep=1)
    (path / "optimizer.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="step-00000001 can't be read"):
        checkpoints.read(path)


def test_the_average_is_the_closed_form_and_gives_the_weights_back():
    parameter = {"w": torch.zeros(1)}
    average = Average(parameter, 0.5)
    values = []
    for step in (100, 101, 102):
        parameter["w"] += 1
        average.update(parameter, step=step)
        values.append(average.values["w"].item())
    assert values == pytest.approx([0.5, 1.25, 2.125])
    with average.in_place_of(parameter):
        assert parameter["w"].item() == pytest.approx(2.125)
    assert parameter["w"].item() == 3


def test_settings_are_kept_beside_the_losses(tmp_path):
    run(small(tmp_path, steps=1))
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept["model"] == "seeded:tiny"
    assert kept["data.size"] == [64, 64]
    assert kept["global_batch"] == 1


def test_fsdp_shards_what_holds_nearly_all_parameters():
    plugin = fsdp_plugin()
    assert plugin.fsdp_version == 2
    model = DynamiCrafterPipeline.from_pretrained("seeded:tiny").unet
    names = set(plugin.transformer_cls_names_to_wrap)
    wrapped = [m for m in model.modules() if any(kind.__name__ in names for kind in type(m).__mro__)]
    inside = {id(parameter): parameter.numel() for module in wrapped for parameter in module.parameters()}
    assert sum(inside.values()) > 0.85 * sum(parameter.numel() for parameter in model.parameters())


def test_an_unknown_tracker_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match="tracker ledger can't be used"):
        train(small(tmp_path, tracker="ledger", data=DataConfig()))
