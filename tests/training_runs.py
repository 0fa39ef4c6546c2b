"""Small trainings that need no file: clips of noise, the small networks, two frames."""

import copy
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.stream import Sample
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.randomness import generator_for
from dynamicrafter.training.config import OptimizerConfig, TrainConfig


@dataclass(frozen=True)
class FakeClips:
    """Noise of 64 pixels, each clip its own; positions in `broken` are no numbers once they are encoded."""

    count: int = 5
    num_frames: int = 2
    size: int = 64

    def __len__(self):
        return self.count

    def draw(self, position):
        generator = generator_for(7, item=f"clip/{position % self.count}")
        shape = (3, self.num_frames, self.size, self.size)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        name = f"clip{position % self.count}"
        return Sample(pixels=pixels, caption=f"a {name} moves", motion=float(4 + position % 3), key=name)


def small(output: Path, **changes) -> TrainConfig:
    """Settings of a run of a second."""
    settings = {
        "model": "seeded:tiny",
        "output": output,
        "data": DataConfig(size=(64, 64), num_frames=2),
        "optimizer": OptimizerConfig(lr=1e-3),
        "steps": 3,
        "batch_size": 1,
        "accumulation": 1,
        "precision": "float32",
        "gradient_checkpointing": False,
        "device": "cpu",
        "workers": 0,
        "tracker": None,
    }
    return TrainConfig(**settings | changes)


def losses(output: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step, to the bit."""
    lines = [json.loads(line) for line in (output / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [(line["loss"], line["grad_norm"]) for line in lines]


def run_on_one_thread(config: TrainConfig) -> None:
    """Train in a process of its own."""
    from dynamicrafter.training.loop import train

    torch.set_num_threads(1)
    train(config, stream=FakeClips())


def run_in_two(rank: int, ports: list[int], configs: list[TrainConfig]) -> None:
    """Be one of two processes that train together, one run after the other.

    Each run has a port of its own: the other process may still be leaving the last one, and would be met there.
    """
    import os

    from dynamicrafter.training.loop import train

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "1"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    for port, config in zip(ports, configs, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        train(config, stream=FakeClips())


@cache
def _tiny() -> DynamiCrafterPipeline:
    return DynamiCrafterPipeline.from_pretrained("seeded:tiny")


def load_from_memory(monkeypatch) -> None:
    """Let seeded:tiny be drawn once; every loading is a copy."""
    _tiny()
    real = DynamiCrafterPipeline.from_pretrained

    def load(name, **options):
        if name != "seeded:tiny" or options:
            return real(name, **options)
        copies = {key: copy.deepcopy(part) for key, part in _tiny().components.items()}
        return DynamiCrafterPipeline(**copies, preset=_tiny().config["preset"])

    monkeypatch.setattr(DynamiCrafterPipeline, "from_pretrained", load)
