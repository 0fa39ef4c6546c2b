import pytest

from training_runs import load_from_memory


@pytest.fixture(autouse=True)
def _models_from_memory(monkeypatch):
    load_from_memory(monkeypatch)
