"""A stream of small clips that need no file."""

from dataclasses import dataclass

import torch

from dynamicrafter.data.stream import Sample
from dynamicrafter.randomness import generator_for


@dataclass(frozen=True)
class FakeClips:
    """Noise of 64 pixels, four frames, each clip its own."""

    count: int = 5
    num_frames: int = 4
    size: int = 64

    def __len__(self):
        return self.count

    def draw(self, position):
        generator = generator_for(7, item=f"clip/{position % self.count}")
        shape = (3, self.num_frames, self.size, self.size)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        name = f"clip{position % self.count}"
        return Sample(pixels=pixels, caption=f"a {name} moves", motion=float(4 + position % 3), key=name)
