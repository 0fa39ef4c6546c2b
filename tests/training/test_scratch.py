import pytest
import torch

from dynamicrafter.text.tokenizer import tokenize
from dynamicrafter.training import scratch
from dynamicrafter.training.config import Stage, check
from dynamicrafter.training.loop import train
from dynamicrafter.training.recipes import get_recipe
from dynamicrafter.training.scratch import Curriculum, fresh_autoencoder, fresh_networks, fresh_pipeline


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return fresh_networks()


def test_the_recipe_is_sound_and_its_stages_are_whole_groups_and_batches():
    config = get_recipe("from-scratch").make()
    check(config)
    for stage in config.stages:
        assert stage.clips % config.batch_size == 0
        assert config.batch_size % stage.variations == 0 or stage.variations % config.batch_size == 0
    assert config.steps * config.batch_size == sum(stage.clips for stage in config.stages)


def test_half_precision_files_of_all_networks_fit_into_40_megabytes(networks):
    trained = sum(p.numel() for network in networks.values() for p in network.parameters())
    trained += sum(p.numel() for p in fresh_autoencoder().parameters())
    assert 2 * trained < 40e6


def test_only_words_of_the_curriculum_have_vectors_at_first(networks):
    table = next(p for n, p in networks["text_encoder"].named_parameters() if n.endswith("token_embedding.weight"))
    known = tokenize(["the camera pans left, a cat"]).ids.unique()
    unknown = tokenize(["xylophone quagmire"]).ids[0, 1:3]
    assert (table[known].norm(dim=1) > 1).all()
    assert (table[unknown] == 0).all()


def test_stages_follow_one_another_and_each_is_a_stream_of_its_own():
    stages = (
        Stage(clips=4, motions=(("pan left", 1.0),), size=64, bare=1.0),
        Stage(clips=2, motions=(("zoom in", 1.0),), size=128, bare=1.0),
    )
    clips = Curriculum(stages=stages)
    assert len(clips) == 6
    drawn = [clips.draw(position) for position in (0, 3, 4, 9)]
    assert [sample.pixels.shape[-1] for sample in drawn] == [64, 64, 128, 128]
    assert all("(pan left)" in sample.key for sample in drawn[:2])
    assert all("(zoom in)" in sample.key for sample in drawn[2:])


def test_a_run_from_scratch_trains_its_autoencoder_once_and_then_all_networks(tmp_path, monkeypatch):
    monkeypatch.setattr("dynamicrafter.training.patch_autoencoder.PICTURES", 8)
    recipe = get_recipe("from-scratch").make()
    stage = Stage(clips=8, motions=(("pan left", 1.0), ("pan right", 1.0)), size=64, window=4, variations=2)
    changes = {"output": tmp_path, "stages": (stage,), "steps": 2, "batch_size": 2, "workers": 0, "tracker": None}
    config = type(recipe)(**{name: getattr(recipe, name) for name in recipe.__dataclass_fields__} | changes)
    before = fresh_pipeline(config)
    written = (tmp_path / scratch.AUTOENCODER / "config.json").stat().st_mtime_ns
    start = {name: p.detach().clone() for name, p in before.text_encoder.named_parameters()}
    outcome = train(config, pipeline=before, stream=scratch.curriculum(config))
    assert outcome.step == 2
    assert any(not torch.equal(start[name], p) for name, p in before.text_encoder.named_parameters())
    again = fresh_pipeline(config)
    assert (tmp_path / scratch.AUTOENCODER / "config.json").stat().st_mtime_ns == written
    for name, parameter in again.text_encoder.named_parameters():
        assert torch.equal(parameter, start[name]), name
