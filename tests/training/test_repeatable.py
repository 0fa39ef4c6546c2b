"""What lies outside a run, such as the global generator and a launcher's variables, changes nothing in it."""

from types import SimpleNamespace

import pytest
import torch

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.dataset import open_dataset
from dynamicrafter.errors import InputError
from dynamicrafter.training.config import LoraConfig
from dynamicrafter.training.loop import check_same
from dynamicrafter.training.parallel import build_accelerator, forget_processes
from dynamicrafter.training.trainee import add_lora
from tiny import network


def adapters(*, seed, outside):
    torch.manual_seed(outside)
    unet = network("unet", "tiny512")
    unet = type(unet).from_config(unet.config)
    add_lora(unet, LoraConfig(rank=4), seed=seed)
    return {name: p.detach().clone() for name, p in unet.named_parameters() if "lora_" in name}


def test_adapters_follow_from_the_run_s_seed_alone():
    first, again, other = adapters(seed=1, outside=1), adapters(seed=1, outside=2), adapters(seed=2, outside=1)
    downs = [name for name in first if "lora_A" in name]
    assert downs
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in downs)
    assert all(not first[name].any() for name in first if "lora_B" in name)
    name = downs[0]
    assert first[name].abs().max() <= first[name].shape[1] ** -0.5, "as nn.Linear draws its own"


def config(**changes):
    return SimpleNamespace(**(vars(SimpleNamespace(precision="float32", accumulation=3, device="cpu", tracker=None, output=".", sharding="none")) | changes))  # fmt: skip  # noqa: E501


def test_a_launcher_s_accumulation_does_not_divide_the_gradients(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "6")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    try:
        accelerator = build_accelerator(config())
        assert accelerator.gradient_accumulation_steps == 3
        assert accelerator.mixed_precision == "no"
    finally:
        forget_processes()


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DYNAMO_BACKEND"])
def test_a_launcher_s_other_way_to_train_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(InputError, match=f"{name} must not be set, got 'true': a run trains as its own settings say"):
        build_accelerator(config())


def test_a_run_goes_on_by_any_spelling_of_its_paths(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    before = {"data.path": "clips", "seed": 1}
    for spelling in ("clips", "./clips", "clips/", str(tmp_path / "clips"), "link"):
        check_same(before, {"data.path": spelling, "seed": 1}, folder=tmp_path)
    (tmp_path / "others").mkdir()
    with pytest.raises(InputError, match=r"holds a run with data\.path 'clips', not 'others'"):
        check_same(before, {"data.path": "others", "seed": 1}, folder=tmp_path)


def test_the_clips_of_a_source_are_told_by_what_they_are_and_not_by_where(tmp_path):
    def fingerprint(folder):
        return open_dataset(DataConfig(path=folder), motion_unit="frame stride").fingerprint

    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_bytes(b"clip")
        (tmp_path / name / "a.txt").write_text("a boat")
    assert fingerprint(tmp_path / "here") == fingerprint(tmp_path / "there")
    found = {fingerprint(tmp_path / "here")}
    for name, content in (("a.txt", b"a ship"), ("a.mp4", b"another"), ("b.mp4", b"clip")):
        (tmp_path / "here" / "b.txt").write_text("b")
        (tmp_path / "here" / name).write_bytes(content)
        found.add(fingerprint(tmp_path / "here"))
    assert len(found) == 4
