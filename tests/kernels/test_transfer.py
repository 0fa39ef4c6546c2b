"""Copies to a device, and errors of its memory, told apart without one."""

import pytest
import torch

from dynamicrafter.kernels.transfer import is_out_of_memory, send


class Watched(torch.Tensor):
    """Notes how it is copied."""

    calls: list

    def pin_memory(self):
        self.calls.append("pin")
        return self

    def to(self, device, *, non_blocking=False):
        self.calls.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_a_copy_to_cuda_is_pinned_and_none_is_waited_for(device, pinned):
    tensor = torch.zeros(3).as_subclass(Watched)
    tensor.calls = []
    send(tensor, torch.device(device))
    assert tensor.calls == [*(["pin"] if pinned else []), (device, True)]


def test_every_devices_lack_of_memory_is_known_and_nothing_else():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"))
    assert not is_out_of_memory(RuntimeError("shapes don't match"))
    assert not is_out_of_memory(ValueError("MPS backend out of memory"))
