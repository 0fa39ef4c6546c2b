"""Which `--batch-size` pays: seconds a clip when so many go through the network together.

    python benchmarks/batch_size.py                       # the bundled model on the CPU, as a worker has it
    python benchmarks/batch_size.py --device cuda --model 512 --sizes 1,2,4 --steps 10

Sizes take turns, round after round, so that all see the same machine; of each, the best round counts. Processor time is
what a machine that is shared with other programs can be believed for.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from dynamicrafter import AnimateOptions, Animator
from dynamicrafter.specs.clip import ClipSpec

PICTURE = Path(__file__).parents[1] / "examples" / "rocket.jpg"
PROMPT = "the camera pans left"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--sizes", default="1,2,4,8")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    animator = Animator.from_pretrained(arguments.model, device=arguments.device, dtype=arguments.dtype)
    animator.pipeline.set_progress_bar_config(disable=True)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    best: dict[int, tuple[float, float]] = {size: (float("inf"), float("inf")) for size in sizes}
    for _ in range(arguments.rounds):
        for size in sizes:
            spent = measure(animator, size, steps=arguments.steps)
            best[size] = (min(best[size][0], spent[0]), min(best[size][1], spent[1]))
    for size, (processor, wall) in best.items():
        print(json.dumps({"batch_size": size, "processor_s": round(processor, 2), "wall_s": round(wall, 2)}))


def measure(animator: Animator, size: int, *, steps: int) -> tuple[float, float]:
    """Processor and wall seconds a clip."""
    shots = [
        ClipSpec(pictures=(PICTURE,), prompts=(PROMPT,), item=str(number), options=AnimateOptions(steps=steps))
        for number in range(size)
    ]
    before, began = os.times(), time.monotonic()
    animator.run(shots)
    after, ended = os.times(), time.monotonic()
    return (after.user + after.system - before.user - before.system) / size, (ended - began) / size


if __name__ == "__main__":
    main()
