"""What a step of training costs on this machine, and what reading its clips costs, beside the decoder's own limit.

    python benchmarks/training.py                # the bundled model at 128 pixels, and reading at 512×320
    python benchmarks/training.py --steps 10 --threads 1

A step is that of the recipe from-scratch, from encoded clips to the optimiser, through the training loop itself.
The limit of reading is what PyAV takes to decode the very frames that a sample needs, from the nearest point where
decoding can begin, without colours, sizes or anything else; both alternate, so that their ratio bears a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import psutil
import torch

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.dataset import open_dataset
from dynamicrafter.data.placement import draws_at, place_frames
from dynamicrafter.data.synthetic.clips import SyntheticClips
from dynamicrafter.data.synthetic.motions import CAMERA
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.presets import BUNDLED
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.training.loop import StepReport, train
from dynamicrafter.training.recipes import get_recipe
from dynamicrafter.training.scratch import fresh_autoencoder, fresh_networks

NUM_FRAMES, STRIDE = 16, 3


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        steps(Path(folder) / "run", options.steps)
        reading(Path(folder), options.clips)


def steps(folder: Path, count: int) -> None:
    """Samples a second of the training loop, and the memory that it leaves resident."""
    recipe = get_recipe("from-scratch").make()
    config = replace(recipe, output=folder, stages=(), steps=count, batch_size=4, workers=0, tracker=None)
    pipeline = DynamiCrafterPipeline(
        vae=fresh_autoencoder(),
        scheduler=DynamiCrafterScheduler.from_preset(BUNDLED),
        preset=asdict(BUNDLED),
        **fresh_networks(),
    )
    taken: list[float] = []
    stream = SyntheticClips(shares=dict.fromkeys(CAMERA, 1.0))

    def note(report: StepReport) -> None:
        taken.append(report.seconds)

    train(config, on_step=note, pipeline=pipeline, stream=stream)
    made = seconds(lambda: [stream.draw(10_000 + number) for number in range(10)]) / 10
    rate = config.batch_size / statistics.median(taken[1:])
    print(f"training at 128×128: {rate:.2f} samples/s (median of {count - 1} steps of {config.batch_size})")
    print(
        f"of which making a clip takes {made:.3f} s; resident memory {psutil.Process().memory_info().rss / 1e9:.2f} GB"
    )


def reading(folder: Path, count: int) -> None:
    """Seconds for a sample of 16 frames at 512×320, and for decoding its frames alone."""
    path = folder / "clips" / "long.mp4"
    path.parent.mkdir()
    write_video(path)
    path.with_suffix(".txt").write_text("noise\n")
    config = DataConfig(path=path.parent, size=(320, 512), min_stride=STRIDE, max_stride=STRIDE)
    dataset = open_dataset(config, motion_unit="frames per second")
    ours, limits = [], []
    for position in range(count):
        ours.append(seconds(lambda position=position: dataset.draw(position)))
        limits.append(seconds(lambda position=position: decode_alone(path, position)))
    sample, limit = statistics.median(ours), statistics.median(limits)
    what = f"reading 16 frames at 512×320, stride {STRIDE}"
    print(f"{what}: {sample:.3f} s; decoding alone {limit:.3f} s; {sample / limit:.2f}×")


def write_video(path: Path, *, width: int = 596, height: int = 336, frames: int = 600) -> None:
    """H.264 of the size of WebVid's files, a point to begin from every 48 frames."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (height // 8, width // 8 + frames, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"g": "48", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            shown = np.ascontiguousarray(base[:height, 4 * number : 4 * number + width])
            picture = np.zeros((height, width, 3), np.uint8)
            picture[: shown.shape[0], : shown.shape[1]] = shown
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def decode_alone(path: Path, position: int) -> None:
    """Decode from the last point before the sample's first frame to its last one."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        placed = place_frames(
            stream.frames, num_frames=NUM_FRAMES, strides=(STRIDE, STRIDE), draws=draws_at(0, position)
        )
        slots = placed.slots(NUM_FRAMES)
        assert stream.time_base is not None
        container.seek(int(slots[0] / 24 / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            assert frame.pts is not None
            if frame.pts * stream.time_base * 24 >= slots[-1]:
                break


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
