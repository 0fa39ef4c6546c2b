"""Training from a cache against training from the clips."""

from dataclasses import replace

import pytest
import torch

from dynamicrafter.data.config import DataConfig
from dynamicrafter.errors import InputError
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.training import cache
from dynamicrafter.training.cache import CacheOptions, fill
from dynamicrafter.training.config import ObjectiveConfig, ValidationConfig
from dynamicrafter.training.loop import train
from training_runs import FakeClips, losses, small

EXACT = CacheOptions(pictures=2, dtype=torch.float32)


@pytest.mark.parametrize("ends", [0.0, 0.5, 1.0])
def test_a_cache_of_every_frame_in_float32_trains_to_the_same_losses(tmp_path, ends):
    config = small(tmp_path / "live", objective=ObjectiveConfig(ends=ends, drop=0.2), batch_size=2, steps=4)
    clips = FakeClips(count=6)  # of the eight that are asked for, the last two are the first again
    fill(config, tmp_path / "cache", EXACT, stream=clips)
    train(replace(config, output=tmp_path / "cached", cache=tmp_path / "cache"))
    train(config, stream=clips)
    assert losses(tmp_path / "cached") == losses(tmp_path / "live")


def test_half_precision_and_fewer_pictures_change_little(tmp_path):
    config = small(tmp_path / "live", objective=ObjectiveConfig(condition="first"))
    fill(config, tmp_path / "cache", CacheOptions(), stream=FakeClips())
    train(replace(config, output=tmp_path / "cached", cache=tmp_path / "cache"))
    train(config, stream=FakeClips())
    for (loss, _), (want, _) in zip(losses(tmp_path / "cached"), losses(tmp_path / "live"), strict=True):
        assert loss == pytest.approx(want, rel=5e-3)


def test_training_from_a_cache_leaves_the_frozen_networks_alone(tmp_path):
    config = small(tmp_path / "cached", cache=tmp_path / "cache", steps=1)
    fill(config, tmp_path / "cache", EXACT, stream=FakeClips())
    model = DynamiCrafterPipeline.from_pretrained("seeded:tiny")

    def never(*_, **__):
        raise AssertionError("a frozen network was run")

    for network in (model.vae, model.text_encoder, model.image_encoder):
        network.forward = never
    model.vae.encode = never
    train(config, pipeline=model)


def test_a_cache_that_was_begun_goes_on_with_what_is_lacking(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 2)
    config = small(tmp_path / "run")
    fill(config, tmp_path, EXACT, stream=FakeClips())
    kept = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("clips-*"))}
    assert len(kept) == 3
    lost = list(kept)[1]
    lost.unlink()
    with pytest.raises(InputError, match="not complete"):
        train(replace(config, cache=tmp_path))
    fill(config, tmp_path, EXACT, stream=FakeClips())
    assert [path for path, time in kept.items() if path.stat().st_mtime_ns != time] == [lost]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": DataConfig(size=(128, 64), num_frames=2)}, r"made with data\.size"),
        ({"model": "seeded:256"}, "made by other networks"),
    ],
)
def test_a_stale_cache_is_refused(tmp_path, changes, said, monkeypatch):
    config = small(tmp_path / "run")
    fill(config, tmp_path / "cache", EXACT, stream=FakeClips())
    model = DynamiCrafterPipeline.from_pretrained("seeded:tiny")
    if "model" in changes:
        with torch.no_grad():
            model.vae.encoder.conv_in.bias += 1
    with pytest.raises(InputError, match=said):
        train(replace(config, cache=tmp_path / "cache", **changes), pipeline=model)


def test_a_list_that_changed_makes_a_cache_stale(tmp_path):
    listed = tmp_path / "clips.csv"
    listed.write_text("file,caption\n")
    before = cache.data_settings(DataConfig(path=listed))
    assert cache.data_settings(DataConfig(path=listed)) == before
    listed.write_text("file,caption\na.mp4,a\n")
    assert cache.data_settings(DataConfig(path=listed)) != before


def test_a_folder_holds_one_cache(tmp_path):
    config = small(tmp_path / "run")
    fill(config, tmp_path / "cache", EXACT, stream=FakeClips())
    with pytest.raises(InputError, match="another dtype"):
        fill(config, tmp_path / "cache", replace(EXACT, dtype=torch.float16), stream=FakeClips())


def test_a_cache_that_kept_first_frames_serves_no_random_ones(tmp_path):
    config = small(tmp_path / "run", objective=ObjectiveConfig(ends=1.0))
    fill(config, tmp_path / "cache", EXACT, stream=FakeClips())
    with pytest.raises(InputError, match="holds first frames only"):
        train(small(tmp_path / "run", cache=tmp_path / "cache"))


def test_validation_needs_a_picture_of_its_own(tmp_path):
    config = small(tmp_path / "run", cache=tmp_path / "cache", validation=ValidationConfig(every=1, steps=1))
    fill(config, tmp_path / "cache", EXACT, stream=FakeClips())
    with pytest.raises(InputError, match=r"validation\.image is missing"):
        train(config)
