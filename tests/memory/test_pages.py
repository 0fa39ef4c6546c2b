"""Pages of mapped files that are let go of."""

import mmap
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dynamicrafter.memory.offload import Offloader
from dynamicrafter.memory.pages import drop_pages

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")


def resident_of_files():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@pytest.fixture
def mapped(tmp_path):
    save_file({"weight": torch.arange(2**22, dtype=torch.float32)}, tmp_path / "w.safetensors")
    return load_file(tmp_path / "w.safetensors")["weight"]


def range_of(tensor):
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def test_a_mapped_files_pages_go_and_come_again_when_they_are_read(mapped):
    total, before = mapped.double().sum(), resident_of_files()
    assert drop_pages([range_of(mapped)]) > mapped.nbytes - 2 * mmap.PAGESIZE
    assert before - resident_of_files() > mapped.nbytes * 0.9
    assert mapped.double().sum() == total


def test_what_is_a_programs_own_is_left_alone(mapped):
    own = torch.arange(2**20)
    start, end = range_of(mapped)
    assert drop_pages([range_of(own)]) == 0
    assert drop_pages([(start, end + 2**30), (16, 4096), (end, end)]) == 0
    assert torch.equal(own, torch.arange(2**20))


def test_convolutions_that_are_laid_out_anew_leave_nothing_of_their_file_behind(tmp_path):
    plain = nn.Conv2d(512, 512, 3, bias=False)
    save_file({"weight": plain.weight.detach(), "other": torch.ones(8)}, tmp_path / "w.safetensors")
    layer = nn.Conv2d(512, 512, 3, bias=False, device="meta")
    mapped = load_file(tmp_path / "w.safetensors")
    layer.load_state_dict({"weight": mapped.pop("weight")}, assign=True)
    assert torch.equal(layer.weight, plain.weight)  # reads it all
    before = resident_of_files()
    Offloader().onload({"unet": layer}, "unet")
    assert before - resident_of_files() > plain.weight.nbytes * 0.9
    assert torch.equal(mapped["other"], torch.ones(8))  # which keeps the file mapped, as a network's other weights do
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer.weight, plain.weight)
