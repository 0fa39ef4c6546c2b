import pytest
import torch

from training_runs import load_from_memory


@pytest.fixture(autouse=True)
def _one_thread():
    """The small networks gain nothing from a second thread, and lose much where the machine is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _models_from_memory(monkeypatch):
    load_from_memory(monkeypatch)
