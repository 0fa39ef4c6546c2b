"""Error and operations of samplers, guidance intervals, feature caches and qualities, against 1000 steps of DDIM.

    python benchmarks/sampling.py --model bundled --out bundled.csv    # a few minutes on an idle core
    python benchmarks/sampling.py --model seeded:tiny --out tiny.csv
    python benchmarks/sampling.py --plot speed.png bundled.csv tiny.csv
    python benchmarks/sampling.py --model bundled --strip strip.png    # a frame of each quality, side by side

All without fresh noise (eta 0), as with it every run is another clip. The error is ‖x − reference‖/‖reference‖ of the
final latents, and PSNR that of the decoded frames, both against the reference: 1000 steps of DDIM, all guided, nothing
cached. Operations are counted on shapes (a multiplication and an addition are 2) and weighted with the calls that a run
made; projecting text and picture, encoding and decoding are left out, as they are the same for all.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dynamicrafter import DynamiCrafterPipeline
from dynamicrafter.memory.counting import UNetCost, count_unet
from dynamicrafter.presets import QUALITIES
from dynamicrafter.randomness import generator_for

PROMPT = "the camera pans left"
PICTURE = Path(__file__).parent.parent / "examples" / "rocket.jpg"
COLUMNS = ("model", "group", "name", "calls", "rows", "tflop", "error", "psnr")


@dataclass(frozen=True)
class Run:
    """One way to sample, by the arguments of the pipeline's call."""

    group: str
    name: str
    arguments: dict[str, Any]


def main() -> None:
    options = parse()
    if options.plot:
        from speed_plot import plot

        plot([row for file in options.csv for row in csv.DictReader(file.open())], options.plot)
        return
    torch.set_num_threads(options.threads)
    bench = Bench(options.model, frames=options.frames)
    if options.strip:
        bench.strip().save(options.strip)
        return
    rows = []
    for row in bench.rows(
        options.groups, steps=options.steps, reference=options.reference, kept=options.keep_reference
    ):
        rows.append(row)
        print("  ".join(f"{row[name]}" for name in COLUMNS), flush=True)
        if options.out:
            with options.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="*", type=Path, help="with --plot, what earlier calls wrote")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--reference", type=int, default=1000, help="steps of DDIM that stand for the truth")
    parser.add_argument(
        "--keep-reference", type=Path, help="file to keep the reference's latents in, or take them from"
    )
    parser.add_argument("--groups", nargs="+", default=["sampler", "interval", "cache", "quality"])
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 8, 10, 12, 15, 20, 30, 50], help="of the samplers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--strip", type=Path)
    return parser.parse_args()


class Bench:
    """A model, a picture and a prompt, sampled in many ways from the same noise."""

    def __init__(self, model: str, *, frames: int) -> None:
        self.model, self.frames = model, frames
        self.pipe = DynamiCrafterPipeline.from_pretrained(model, dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.guided = self.pipe.preset.guidance != 1
        self.calls = Calls(self.pipe.unet)
        preset, factor = self.pipe.preset, self.pipe.vae_scale_factor
        self.cost: UNetCost = count_unet(
            self.pipe.unet, num_frames=frames, height=preset.height // factor, width=preset.width // factor
        )

    def sample(self, **arguments: Any) -> Tensor:
        """Final latents, (1, c, f, h, w)."""
        self.calls.reset()
        return self.pipe(
            Image.open(PICTURE), PROMPT, generator=generator_for(1), eta=0.0, output_type="latent",
            num_frames=self.frames, deterministic_image_latents=True, **arguments,
        ).frames  # fmt: skip

    def rows(
        self, groups: list[str], *, steps: list[int], reference: int, kept: Path | None
    ) -> Iterator[dict[str, Any]]:
        if kept and kept.exists():
            truth = torch.load(kept, weights_only=True)
        else:
            truth = self.sample(num_inference_steps=reference)
            if kept:
                torch.save(truth, kept)
        against = {"": (truth, self.pipe.decode_latents(truth))}
        for run in [run for group in groups for run in runs(group, steps, guided=self.guided)]:
            made = self.sample(**run.arguments)
            frames = self.pipe.decode_latents(made)
            if run.name == "exact":
                against["quality"] = (made, frames)
            yield self._row(run, made, frames, *against[""])
            if run.group == "quality" and run.name != "exact":
                against_exact = Run("quality to exact", run.name, run.arguments)
                yield self._row(against_exact, made, frames, *against["quality"])

    def _row(self, run: Run, made: Tensor, frames: Tensor, truth: Tensor, true_frames: Tensor) -> dict[str, Any]:
        values = (
            self.model, run.group, run.name, self.calls.calls, self.calls.computed + self.calls.reused,
            f"{self.calls.flops(self.cost) / 1e12:.4f}", f"{relative_error(made, truth):.5f}",
            f"{psnr(frames, true_frames):.2f}",
        )  # fmt: skip
        return dict(zip(COLUMNS, values, strict=True))

    def strip(self) -> Image.Image:
        """The middle and the last frame at each quality, one column each."""
        columns = []
        for quality in QUALITIES:
            frames = self.pipe.decode_latents(self.sample(**quality_arguments(quality)))[0]
            shown = torch.cat([frames[:, index] for index in (self.frames // 2, self.frames - 1)], dim=1)
            columns.append(((shown.clamp(-1, 1) + 1) * 127.5).round().byte())
        return Image.fromarray(torch.cat(columns, dim=2).permute(1, 2, 0).numpy())


def quality_arguments(quality: str) -> dict[str, Any]:
    sampling = QUALITIES[quality]
    return {
        "num_inference_steps": sampling.steps,
        "sampler": sampling.sampler,
        "guidance_interval": sampling.guidance_interval,
        "cache": sampling.cache,
    }


def runs(group: str, counts: list[int], *, guided: bool) -> Iterator[Run]:
    match group:
        case "sampler":
            for sampler in ("ddim", "dpm++", "unipc"):
                for steps in counts:
                    yield Run(group, f"{sampler} {steps}", {"sampler": sampler, "num_inference_steps": steps})
        case "interval" if guided:
            for interval in ((0, 999), (100, 999), (200, 999), (400, 999), (0, 800), (0, 600), (200, 800)):
                arguments = {"sampler": "unipc", "num_inference_steps": 20, "guidance_interval": interval}
                yield Run(group, f"unipc 20, {interval[0]}-{interval[1]}", arguments)
        case "cache":
            for sampler, steps in (("ddim", 50), ("unipc", 20)):
                for tolerance in (0.02, 0.05, 0.1, 0.2):
                    arguments = {"sampler": sampler, "num_inference_steps": steps, "cache": tolerance}
                    yield Run(group, f"{sampler} {steps}, cache {tolerance}", arguments)
        case "quality":
            for quality in QUALITIES:
                yield Run(group, quality, quality_arguments(quality))


class Calls:
    """Counts what goes through a UNet."""

    def __init__(self, unet: torch.nn.Module) -> None:
        unet.register_forward_hook(self._note, with_kwargs=True)
        self.reset()

    def reset(self) -> None:
        self.calls = self._plain = 0
        self._memories: dict[int, Any] = {}

    def _note(self, _: Any, arguments: tuple[Any, ...], options: dict[str, Any], __: Any) -> None:
        self.calls += 1
        memory = options.get("memory")
        if memory is None:
            self._plain += arguments[0].shape[0]
        else:
            self._memories[id(memory)] = memory

    @property
    def computed(self) -> int:
        """Rows, a pass of a video each, that went through the whole UNet."""
        return self._plain + sum(memory.computed for memory in self._memories.values())

    @property
    def reused(self) -> int:
        """Rows that went through its surface alone."""
        return sum(memory.reused for memory in self._memories.values())

    def flops(self, cost: UNetCost) -> int:
        return self.computed * cost.whole + self.reused * cost.surface


def relative_error(made: Tensor, truth: Tensor) -> float:
    return ((made.double() - truth.double()).norm() / truth.double().norm()).item()


def psnr(frames: Tensor, truth: Tensor) -> float:
    """Of frames as they would be shown, in [0, 1]."""
    one, other = ((video.clamp(-1, 1).double() + 1) / 2 for video in (frames, truth))
    return (-10 * (one - other).square().mean().log10()).item()


if __name__ == "__main__":
    main()
