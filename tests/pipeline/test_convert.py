"""A published file into a folder and back, with the same bits."""

import logging
import shutil

import pytest
import torch

import dynamicrafter.pipeline.convert as module
from checkpoint_files import WRITERS, write_flat, write_lightning, write_safetensors
from dynamicrafter import DynamiCrafterPipeline
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.keys import SCHEDULE_BUFFERS
from dynamicrafter.checkpoints.networks import COMPONENTS
from dynamicrafter.checkpoints.published import EXTRAS_FILE
from dynamicrafter.errors import CheckpointError, InputError, OutputError
from dynamicrafter.pipeline.convert import convert
from published_files import openclip, pruned, published


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`tiny512`'s file as a folder, in float32."""
    place = tmp_path_factory.mktemp("converted")
    return convert(write_lightning(place / "weights.ckpt", published("tiny512")), place / "folder", preset="512")


def assert_same(path, tensors):
    with open_tensors(path) as back:
        assert set(back) == set(tensors)
        for key, tensor in tensors.items():
            assert back[key].dtype == tensor.dtype, key
            assert torch.equal(back[key], tensor), key


def weights(pipeline):
    return {f"{n}.{key}": t for n in COMPONENTS for key, t in getattr(pipeline, n).state_dict().items()}


def refused(*arguments, error=OutputError, **options):
    with pytest.raises(error) as caught:
        convert(*arguments, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_a_file_comes_back_with_every_bit(folder, tmp_path, ending):
    assert_same(convert(folder, tmp_path / f"back.{ending}"), published("tiny512"))


@pytest.mark.parametrize(("golden", "layout"), [("tiny256", "deepspeed"), ("tiny1024", "safetensors")])
def test_so_do_other_presets_and_layouts(tmp_path, golden, layout):
    path = WRITERS[layout](tmp_path / "weights", published(golden))
    assert_same(convert(convert(path, tmp_path / "folder"), tmp_path / "back.ckpt"), published(golden))


def test_a_file_of_mixed_dtypes_keeps_each(tmp_path):
    kinds = (torch.bfloat16, torch.float16, torch.float32)
    tensors = {key: tensor.to(kinds[i % 3]) for i, (key, tensor) in enumerate(published("tiny1024").items())}
    path = write_safetensors(tmp_path / "mixed.safetensors", tensors)
    assert_same(convert(convert(path, tmp_path / "folder"), tmp_path / "back.safetensors"), tensors)


def test_a_folder_loads_with_the_same_bits_as_the_file(folder):
    from_folder = weights(DynamiCrafterPipeline.from_pretrained(folder))
    from_file = weights(DynamiCrafterPipeline.from_single_file(folder.parent / "weights.ckpt", preset="512"))
    assert from_folder.keys() == from_file.keys()
    assert all(torch.equal(from_folder[key], tensor) for key, tensor in from_file.items())


def test_a_folder_knows_its_preset_and_schedule_and_nothing_of_this_machine(folder):
    pipeline = DynamiCrafterPipeline.from_pretrained(folder)
    assert (pipeline.preset.name, pipeline.preset.base_scale, pipeline.preset.motion.default) == ("512", 0.7, 24)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert str(folder.parent) not in (folder / "model_index.json").read_text()


def test_whoever_may_read_the_folder_may_read_the_weights(folder):
    modes = {path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_bfloat16_is_written_and_loaded_as_such(tmp_path):
    path = write_flat(tmp_path / "weights.ckpt", published("tiny1024"))
    folder = convert(path, tmp_path / "folder", dtype=torch.bfloat16)
    loaded = weights(DynamiCrafterPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16))
    direct = weights(DynamiCrafterPipeline.from_single_file(path, torch_dtype=torch.bfloat16))
    assert {tensor.dtype for tensor in loaded.values()} == {torch.bfloat16}
    assert all(torch.equal(loaded[key], tensor) for key, tensor in direct.items())
    with open_tensors(folder / EXTRAS_FILE) as extras:
        assert {extras.info(key).dtype for key in extras if key in SCHEDULE_BUFFERS} == {"float32"}
        assert {extras.info(key).dtype for key in extras if key not in SCHEDULE_BUFFERS} == {"bfloat16"}


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_the_way_back_casts_all_but_the_schedule(folder, tmp_path, ending):
    back = convert(folder, tmp_path / f"back.{ending}", dtype=torch.bfloat16)
    want = {k: t if k in SCHEDULE_BUFFERS else t.bfloat16() for k, t in published("tiny512").items()}
    assert_same(back, want)
    assert [path.name for path in tmp_path.iterdir()] == [back.name]


def test_a_file_may_become_another_file(tmp_path):
    path = write_lightning(tmp_path / "weights.ckpt", published("tiny1024"))
    assert_same(convert(path, tmp_path / "weights.safetensors"), published("tiny1024"))


def test_a_pruned_file_with_encoders_becomes_a_whole_one(tmp_path):
    path = write_safetensors(tmp_path / "dynamicrafter_512.safetensors", pruned("tiny512", dtype=torch.float32))
    towers = write_safetensors(tmp_path / "open_clip_model.safetensors", openclip("tiny512"))
    convert(path, tmp_path / "folder", encoders=towers)
    text, image = "cond_stage_model.model.", "embedder.model."
    repeated = {key: published("tiny512")[key.replace(image, text)] for key in published("tiny512") if _repeats(key)}
    assert_same(convert(tmp_path / "folder", tmp_path / "back.ckpt"), published("tiny512") | repeated)


def _repeats(key):
    return key.startswith("embedder.") and "visual." not in key


def test_a_trained_folder_says_what_it_lacks_and_takes_it_from_encoders(folder, tmp_path, caplog):
    trained = shutil.copytree(folder, tmp_path / "trained")
    (trained / EXTRAS_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        back = convert(trained, tmp_path / "back.ckpt")
    assert "lacks 17 tensors that no network reads" in caplog.text
    with open_tensors(back) as tensors:
        assert set(published("tiny512")) - set(tensors) == {
            key for key in published("tiny512") if key.endswith(("text_projection", "logit_scale", "visual.proj"))
        } | {key for key in published("tiny512") if key.startswith("cond_stage_model.model.transformer.resblocks.2.")}
        assert all(torch.equal(tensors[key], published("tiny512")[key]) for key in SCHEDULE_BUFFERS)
    caplog.clear()
    towers = write_safetensors(tmp_path / "towers.safetensors", openclip("tiny512"))
    with open_tensors(convert(trained, tmp_path / "whole.ckpt", encoders=towers)) as tensors:
        assert set(tensors) == set(published("tiny512"))
    assert not caplog.records


# Refusals, and what is left behind


def test_an_existing_file_or_filled_folder_is_never_replaced(folder, tmp_path):
    (tmp_path / "old.ckpt").write_text("mine")
    assert "old.ckpt is a file and is not replaced;" in refused(folder, tmp_path / "old.ckpt")
    path = folder.parent / "weights.ckpt"
    assert f"{tmp_path} is a folder that is not empty and is not replaced;" in refused(path, tmp_path, preset="512")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old.ckpt", "mine")]


def test_an_empty_folder_is_filled(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    convert(folder.parent / "weights.ckpt", tmp_path / "empty", preset="512")
    assert (tmp_path / "empty" / "model_index.json").exists()


def test_a_missing_parent_folder_is_named(folder, tmp_path):
    assert f"there is no folder {tmp_path / 'none'};" in refused(folder, tmp_path / "none" / "x.ckpt")


def test_folder_to_folder_is_refused_with_what_a_target_looks_like(folder, tmp_path):
    message = refused(folder, tmp_path / "other", error=InputError)
    assert "name a --dtype to write it in, or a target that ends in .safetensors or .ckpt, got other." in message


def test_a_full_disk_is_told_before_anything_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    assert "GB on its disk, which has 0.0 GB left;" in refused(folder, tmp_path / "x.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["x.safetensors", "x.ckpt", "folder"])
def test_what_fails_halfway_leaves_nothing_behind(folder, tmp_path, monkeypatch, target):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_tensors", fail)
    monkeypatch.setattr(module, "write_lightning", fail)
    source = folder.parent / "weights.ckpt" if target == "folder" else folder
    assert "the disk is full" in refused(source, tmp_path / target, preset="512")
    assert not list(tmp_path.iterdir())


def test_a_stranger_is_refused_as_what_it_seems_to_be(tmp_path):
    path = write_flat(tmp_path / "sd.ckpt", {"lora_unet.lora_up.weight": torch.ones(2)})
    assert "LoRA" in refused(path, tmp_path / "folder", error=CheckpointError)


def test_a_folder_loads_in_one_dtype_when_none_is_asked_for(tmp_path):
    folder = convert(write_flat(tmp_path / "weights.ckpt", published("tiny1024")), tmp_path / "f", dtype=torch.bfloat16)
    loaded = DynamiCrafterPipeline.from_pretrained(folder)
    assert {tensor.dtype for tensor in weights(loaded).values()} == {torch.float32}


def test_a_misleading_file_name_does_not_bind(tmp_path):
    path = write_flat(tmp_path / "dynamicrafter_256.ckpt", published("tiny1024"))
    assert DynamiCrafterPipeline.from_pretrained(path).preset.name == "1024"
