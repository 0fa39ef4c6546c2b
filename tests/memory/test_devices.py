"""Devices of a machine that may have none: planned for, refused, and asked for their memory."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.memory import devices

needs_no_card = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")
GB = 10**9


@needs_no_card
def test_a_card_that_is_not_there_can_be_planned_for():
    card = devices.named_device("cuda")
    assert card == torch.device("cuda")
    assert devices.choose_dtype(None, card) == torch.bfloat16
    with pytest.raises(InputError, match=r"device cuda is not on this machine; there is .*cpu"):
        devices.choose_device("cuda")


@needs_no_card
def test_the_memory_of_a_card_that_is_not_there_must_be_said():
    with pytest.raises(InputError, match="say how much memory it has with --memory"):
        devices.total_memory(torch.device("cuda:1"))


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x"])
def test_other_names_are_no_devices(name):
    with pytest.raises(InputError, match=rf"device must be cpu, cuda, cuda:N or mps, got '{name}'"):
        devices.named_device(name)


def test_apples_gpu_has_what_metal_recommends_and_not_the_machine(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 11 * GB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GB, available=4 * GB))
    mps = torch.device("mps")
    assert devices.total_memory(mps) == 11 * GB
    assert devices.free_memory(mps) == 6 * GB
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GB, available=12 * GB))
    assert devices.free_memory(mps) == 11 * GB
