from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from dynamicrafter import hub
from fake_hub import Cache, FakeHub, serving, use_server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Cache:
    """An empty cache, no folder of models, and no network: nothing may be looked up."""
    root = tmp_path / "cache"
    root.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv(hub.MODELS_VARIABLE, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    use_server(monkeypatch, "http://127.0.0.1:9")  # the discard port: nobody answers
    return Cache(root)


@pytest.fixture
def server(monkeypatch) -> Iterator[FakeHub]:
    with serving() as fake:
        use_server(monkeypatch, fake.address)
        yield fake
