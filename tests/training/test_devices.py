"""The device that trains: asked for its memory, told what it emulates, and refused in Accelerate's words."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.training import parallel
from dynamicrafter.training.config import TrainConfig
from dynamicrafter.training.estimate import training_device


@pytest.fixture
def config(tmp_path):
    return TrainConfig(model="seeded:tiny", output=Path(tmp_path), tracker=None)


def test_what_accelerate_refuses_is_not_told_as_a_missing_tracker(config, monkeypatch):
    def refuse(**_):
        raise ValueError("bf16 mixed precision requires a supported device.")

    monkeypatch.setattr(parallel, "Accelerator", refuse)
    with pytest.raises(InputError, match="bf16 mixed precision requires a supported device") as refused:
        parallel.build_accelerator(replace(config, tracker="tensorboard"))
    assert "tracker" not in str(refused.value)


def test_a_card_that_emulates_bfloat16_is_named(config, monkeypatch, caplog):
    card = SimpleNamespace(device=torch.device("cuda:0"))
    monkeypatch.setattr(parallel, "Accelerator", lambda **_: card)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    for emulates in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, no=emulates: not no)
        with caplog.at_level(logging.WARNING):
            parallel.build_accelerator(config)
        assert ("Tesla T4 emulates bfloat16" in caplog.text) is emulates
        caplog.clear()


def test_the_estimate_asks_the_card_that_trains(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert training_device(config) == torch.device("cuda:3")
    assert training_device(replace(config, device="cpu")) == torch.device("cpu")
