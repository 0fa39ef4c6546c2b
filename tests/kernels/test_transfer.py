"""Copies to a device, watched without one."""

import pytest
import torch

from dynamicrafter.kernels.transfer import send


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
