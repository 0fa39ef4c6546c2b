"""TF32 is off within a float32 run on CUDA, and on where a user chose it; the switches are there on any machine."""

import pytest
import torch

from dynamicrafter.kernels.precision import full_float32
from tiny import pipeline

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_pytorch_begins():
    before = torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = True


def within(dtype, device):
    with full_float32(dtype, device):
        return torch.backends.cudnn.allow_tf32


def test_convolutions_keep_float32_whole_and_the_switch_goes_back():
    assert within(torch.float32, CUDA) is False
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_who_chooses_tf32_for_products_gets_it_for_convolutions(precision):
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = False
    assert within(torch.float32, CUDA) is True
    assert torch.backends.cudnn.allow_tf32 is False


@pytest.mark.parametrize(("dtype", "device"), [(torch.bfloat16, CUDA), (torch.float32, torch.device("cpu"))])
def test_other_formats_and_devices_are_left_alone(dtype, device):
    assert within(dtype, device) is True


def test_an_error_puts_the_switch_back():
    with pytest.raises(KeyError), full_float32(torch.float32, CUDA):
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 is True


def test_a_whole_run_keeps_float32_whole(monkeypatch):
    pipe, seen = pipeline("tiny512"), []
    monkeypatch.setattr(type(pipe), "_execution_device", CUDA)

    def stop(_):
        seen.append(torch.backends.cudnn.allow_tf32)
        raise KeyError

    monkeypatch.setattr(type(pipe), "preset", property(stop))
    with pytest.raises(KeyError):
        pipe(torch.zeros(3, 64, 64), "waves")
    assert seen == [False]
