from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from huggingface_hub import constants
from PIL import Image

from dynamicrafter import Animator
from dynamicrafter.cli.main import main

_load = cache(Animator.load)


@dataclass(frozen=True)
class Outcome:
    """How one run of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@pytest.fixture(autouse=True)
def _one_thread():
    """The small networks gain nothing from a second thread, and lose much where the machine is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """Run the command in a folder of its own, in this process, with models that are loaded once."""
    monkeypatch.chdir(tmp_path)
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        monkeypatch.setenv(name, "error")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("DYNAMICRAFTER_MODELS", raising=False)

    monkeypatch.setattr(Animator, "load", _load)

    def run(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        said = capfd.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@pytest.fixture
def photo(tmp_path) -> Path:
    """A real photo, small."""
    path = tmp_path / "photo.png"
    Image.fromarray(skimage.data.astronaut()).resize((96, 80)).save(path)
    return path


@pytest.fixture
def other_photo(tmp_path) -> Path:
    path = tmp_path / "other.png"
    Image.fromarray(np.ascontiguousarray(skimage.data.chelsea()[:300, :300])).resize((64, 64)).save(path)
    return path
