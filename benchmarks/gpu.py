"""All that needs a card, in one run of under nine minutes: first whether it is right there, then how fast it is.

    python benchmarks/gpu.py --out gpu.json                  # CUDA, full size
    python benchmarks/gpu.py --device cpu --tiny             # the same paths on small networks, anywhere
    python benchmarks/gpu.py --only unet runs                # some sections

Needs a checkout, whose golden files it reads, and no weights. Each section stands on its own: one that fails is told
and the next begins, none begins after --seconds, and the results so far are written after each.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import tiny as small
from dynamicrafter.architectures import FULL, TINY
from dynamicrafter.benchmarking.clock import PeakMemory, device_name, matmul_flop_per_second, seconds
from dynamicrafter.checkpoints.networks import COMPONENTS, build_empty, dtype_for
from dynamicrafter.guidance import plan_passes
from dynamicrafter.kernels.layout import in_memory_format
from dynamicrafter.kernels.precision import full_float32
from dynamicrafter.memory.counting import count_unet
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.presets import NUM_FRAMES, get_preset
from dynamicrafter.randomness import generator_for
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from goldens import MODULE_TOLERANCE, TRAJECTORY_TOLERANCE, load, relative_error
from goldens import TINY as GOLDENS

PROMPT = "a sailboat sailing in rough seas with a dramatic sunset"
SIZES = {"256": (256, 256), "512": (320, 512), "1024": (576, 1024)}
Row = dict[str, Any]


class Check:
    """The sections, and what they share: the device, the size of the networks, the time that is left."""

    def __init__(self, device: torch.device, *, tiny: bool, limit: float) -> None:
        self.device, self.tiny = device, tiny
        self._end = time.monotonic() + limit

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def goldens(self) -> Iterator[Row]:
        """The published code's numbers, in float32 and in bfloat16."""
        for dtype in (torch.float32, torch.bfloat16):
            for golden in GOLDENS[:1] if self.tiny else GOLDENS:
                small.network.cache_clear()  # casting is in place
                pipe: Any = small.pipeline(golden).to(self.device, dtype)
                with full_float32(dtype, self.device), torch.no_grad():
                    errors = {"unet": self._unet_error(pipe, golden), "run": self._run_error(pipe, golden)}
                small.network.cache_clear()
                limits = {"unet": MODULE_TOLERANCE, "run": TRAJECTORY_TOLERANCE}
                for name, error in errors.items():
                    row = {"case": f"{golden} {name} {str(dtype)[6:]}", "relative_error": error}
                    yield row | ({"passes": error < limits[name]} if dtype is torch.float32 else {})

    def _unet_error(self, pipe: Any, golden: str) -> float:
        want = load(f"{golden}.unet")
        context = want["context"].to(self.device, pipe.unet.dtype)
        made = pipe.unet(
            want["x"].to(context), want["t"].to(self.device), context[:, :77],
            context[:, 77:].unflatten(1, (NUM_FRAMES, -1)), want["fs"].to(self.device),
        )  # fmt: skip
        return relative_error(made.float().cpu(), want["out"])

    def _run_error(self, pipe: Any, golden: str) -> float:
        want, given = load(f"{golden}.i2v"), load(f"{golden}.conditioning")
        plan = plan_passes(7.5, rescale=pipe.preset.guidance_rescale)
        pipe.scheduler.set_timesteps(len(want["step_noise"]))
        first = pipe.encode_image_latents(given["image"], noise=want["posterior_noise"][:, 0])
        contexts = pipe.prepare_contexts(
            plan.passes,
            text=pipe.encode_prompt([PROMPT]),
            negative_text=lambda: pipe.encode_prompt([""]),
            image=pipe.encode_image(given["image"]),
            batching="together",
            latent_size=(8, 8),
        )
        motion = torch.tensor([pipe.preset.motion.default])
        made = pipe.denoise(
            want["x_T"].to(self.device), pipe.place_image_latents(first, None, NUM_FRAMES), contexts, plan,
            motion=motion, eta=1.0, step_noise=want["step_noise"],
        )  # fmt: skip
        return relative_error(made.float().cpu(), want["latents"])

    def measures(self) -> Iterator[Row]:
        """Every memory measure against none; and this device against the processor."""
        kinds = [(), ("encoders",), ("encoders", "networks")]
        if self.device.type == "cuda":
            kinds += [("encoders", "networks", "blocks"), ("encoders", "networks", "int8")]
        base = self._frames((), torch.device("cpu"))
        for measures in kinds:
            made = self._frames(measures, self.device)
            exact = "int8" not in measures
            found = decibels(made, base)
            yield {"case": "+".join(measures) or "none", "decibels_from_cpu": found} | (
                {"passes": found > 40} if exact else {}
            )

    def _frames(self, measures: tuple[str, ...], device: torch.device) -> np.ndarray:
        pipe: Any = DynamiCrafterPipeline.from_pretrained("seeded:tiny", dtype=torch.float32, lazy=True)
        pipe.set_progress_bar_config(disable=True)
        plan = pipe.plan_memory(height=64, width=64, num_frames=NUM_FRAMES, passes=2, device=device)
        pipe.apply_plan(replace(plan, measures=measures, together=False), device)
        return pipe(
            picture(), "a boat", num_inference_steps=3, output_type="uint8", generator=generator_for(1)
        ).frames  # fmt: skip

    def unet(self) -> Iterator[Row]:
        """Seconds and share of the product rate: one row and two, channels last and first, compiled."""
        networks = self._networks("1024")
        unet = networks["unet"]
        dtype, kind = unet.dtype, self.device.type
        sizes = {"tiny": (64, 64)} if self.tiny else SIZES
        ways: dict[str, tuple[torch.memory_format, bool]] = {
            "eager, channels last": (torch.channels_last, False),
            "eager, channels first": (torch.contiguous_format, False),
            "compiled, channels last": (torch.channels_last, True),
        }
        for way, (layout, compiled) in ways.items():
            nn.Module.to(unet, memory_format=layout)
            for name, (height, width) in sizes.items():
                if self.left < (20 if self.tiny else 90 if compiled else 45):
                    yield {"case": f"{name} {way}", "left_out": "no time left"}
                    continue
                if compiled:  # one graph; on a processor traced only, as its kernels say nothing of a card's
                    unet.compile(fullgraph=True, dynamic=False, backend="eager" if kind == "cpu" else "inductor")
                for rows in (1, 2):
                    inputs = self._inputs(unet, rows, height // 8, width // 8)
                    flop = rows * count_unet(unet, num_frames=NUM_FRAMES, height=height // 8, width=width // 8).whole
                    with in_memory_format(kind, layout), torch.inference_mode(), PeakMemory(self.device) as peak:
                        first = seconds(lambda inputs=inputs: unet(**inputs), self.device)
                        rates = [matmul_flop_per_second(self.device, dtype)]
                        took = [seconds(lambda inputs=inputs: unet(**inputs), self.device) for _ in range(3)]
                        rates.append(matmul_flop_per_second(self.device, dtype))
                    took_one, rate = statistics.median(took), statistics.mean(rates)
                    yield {
                        "case": f"{name} {way}, rows {rows}", "first_seconds": first, "seconds": took_one,
                        "matmul_tflops": rate / 1e12, "share": flop / took_one / rate, "peak_gb": peak.bytes / 1e9,
                    }  # fmt: skip
                unet._compiled_call_impl = None

    def runs(self) -> Iterator[Row]:
        """Whole clips with random weights, peak memory against the plan, and the decoder alone."""
        cases = {"tiny": (64, 64)} if self.tiny else {name: SIZES[name] for name in ("1024", "512")}
        for name, (height, width) in cases.items():
            networks = self._networks("512" if self.tiny else name)
            preset = replace(get_preset("512" if self.tiny else name), height=height, width=width)
            scheduler = DynamiCrafterScheduler.from_preset(preset)
            pipe: Any = DynamiCrafterPipeline(**networks, scheduler=scheduler, preset=asdict(preset))
            pipe.set_progress_bar_config(disable=True)
            steps = 2 if self.tiny else 50
            plan = pipe.plan_memory(height=height, width=width, num_frames=NUM_FRAMES, passes=2, device=self.device)
            options = {"output_type": "uint8", "generator": generator_for(1)}
            pipe(picture(), "a boat", num_inference_steps=1, **options)
            with PeakMemory(self.device) as peak:
                took = seconds(partial(pipe, picture(), "a boat", num_inference_steps=steps, **options), self.device)
            yield {
                "case": f"{name}, {steps} steps", "seconds": took, "peak_gb": peak.bytes / 1e9,
                "plan_gb": plan.peak_bytes / 1e9, "together": plan.together,
            }  # fmt: skip
            latents = torch.randn(1, 4, NUM_FRAMES, height // 8, width // 8, device=self.device)
            with PeakMemory(self.device) as peak:
                took = seconds(partial(pipe.decode_latents, latents), self.device)
            yield {"case": f"{name}, decoder", "seconds": took, "peak_gb": peak.bytes / 1e9}

    def _networks(self, preset_name: str) -> dict[str, Any]:
        """All five networks with random weights, made on the device."""
        architecture, preset = (TINY if self.tiny else FULL), get_preset(preset_name)
        generator, made = torch.Generator(self.device).manual_seed(0), {}
        for component in COMPONENTS:
            network: Any = build_empty(component, architecture, preset)
            dtype = dtype_for(component, torch.bfloat16)
            for module in network.modules():
                for name, empty in list(module._parameters.items()):
                    if empty is None:
                        continue
                    values = torch.full(empty.shape, float(name == "weight"), device=self.device)
                    if empty.ndim > 1:
                        values = torch.randn(empty.shape, generator=generator, device=self.device)
                        values *= 0.5 / math.sqrt(empty[0].numel())
                    module._parameters[name] = nn.Parameter(values.to(dtype), requires_grad=False)
            made[component] = network.to(self.device).eval()
        return made

    def _inputs(self, unet: Any, rows: int, height: int, width: int) -> Row:
        like: Any = {"device": self.device, "dtype": unet.dtype}
        depth = unet.config["cross_attention_dim"]
        with torch.inference_mode():
            context = unet.project_context(
                torch.randn(rows, 77, depth, **like), torch.randn(rows, NUM_FRAMES, 16, depth, **like)
            )
        numbers = torch.full((rows,), 24, device=self.device)
        sample = torch.randn(rows, unet.config["in_channels"], NUM_FRAMES, height, width, **like)
        return {"sample": sample, "timestep": numbers, "motion": numbers, "context": context}


SECTIONS: dict[str, Callable[[Check], Iterator[Row]]] = {
    "goldens": Check.goldens,
    "measures": Check.measures,
    "unet": Check.unet,
    "runs": Check.runs,
}


def decibels(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 frames; infinite where they are equal."""
    error = float(np.square(ours.astype(np.float64) - theirs).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def picture() -> Image.Image:
    """Something to animate; its content takes no time."""
    return Image.linear_gradient("L").convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="small networks and sizes, to try every path")
    parser.add_argument("--seconds", type=float, default=530, help="no section begins later")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    device = torch.device(options.device)
    check = Check(device, tiny=options.tiny, limit=options.seconds)
    rows: list[Row] = [{"section": "machine", "case": device_name(device), "torch": torch.__version__}]
    for name in options.only:
        rows += run_section(check, name)
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1))
    sys.exit(any("error" in row or row.get("passes") is False for row in rows))


def run_section(check: Check, name: str) -> list[Row]:
    """A section's rows, each printed as it comes; an error becomes the last of them."""
    rows: list[Row] = []
    try:
        for row in SECTIONS[name](check) if check.left > 0 else iter([{"case": "all", "left_out": "no time left"}]):
            rows.append({"section": name} | row)
            print("  ".join(f"{key}={tell(value)}" for key, value in rows[-1].items()), flush=True)
    except Exception as error:
        rows.append({"section": name, "case": "failed", "error": f"{type(error).__name__}: {error}"})
        print(rows[-1], flush=True)
    with torch.cuda.device(check.device) if check.device.type == "cuda" else nullcontext():
        torch.cuda.empty_cache()
    return rows


def tell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
