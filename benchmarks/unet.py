"""Time and memory of one call of the full-size UNet, beside the matrix-multiplication rate of the same machine.

    python benchmarks/unet.py                       # 256×256 pixels, 16 frames, bfloat16
    python benchmarks/unet.py --size 576x1024 --device cuda --json
    python benchmarks/unet.py --profile             # where the time goes, by operator

Weights are random: time does not depend on them. Calls and matrix multiplications alternate, so that a neighbour who
takes half the machine takes half of both, and the ratio between the two stays.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynamicrafter.architectures import FULL, TEXT_LENGTH
from dynamicrafter.benchmarking.clock import PeakMemory, bytes_in_use, device_name, matmul_flop_per_second, seconds
from dynamicrafter.checkpoints.networks import build_empty
from dynamicrafter.memory.malloc import keep_freed_memory
from dynamicrafter.models.unet import Context, DynamiCrafterUNet
from dynamicrafter.presets import NUM_FRAMES, get_preset

QUERIES_PER_FRAME = 16


def main() -> None:
    options = parse()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    shape = {"batch": options.batch, "frames": options.frames, "size": options.size}
    flop = count_flop(**shape)

    unet = random_unet(device, dtype)
    if options.compile:
        unet.compile_repeated_blocks(dynamic=False)
    inputs = make_inputs(unet, **shape)
    if device.type == "cpu":
        keep_freed_memory()  # as the pipeline does
    weights = bytes_in_use(device)

    with PeakMemory(device) as peak, torch.inference_mode():
        first = seconds(lambda: unet(**inputs), device)
        calls, matmuls = [], [matmul_flop_per_second(device, dtype)]
        for _ in range(options.calls):
            calls.append(seconds(lambda: unet(**inputs), device))
            matmuls.append(matmul_flop_per_second(device, dtype))
    # Each call is held against the two matmul measurements around it.
    ratios = [flop / call / ((matmuls[i] + matmuls[i + 1]) / 2) for i, call in enumerate(calls)]
    report = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": options.dtype,
        "height": options.size[0],
        "width": options.size[1],
        "frames": options.frames,
        "batch": options.batch,
        "tflop": flop / 1e12,
        "first_call_s": first,
        "call_min_s": min(calls),
        "call_median_s": statistics.median(calls),
        "tflop_per_s": flop / statistics.median(calls) / 1e12,
        "matmul_tflop_per_s": statistics.median(matmuls) / 1e12,
        "ratio_to_matmul_median": statistics.median(ratios),
        "ratio_to_matmul_range": [min(ratios), max(ratios)],
        "memory_before_gb": weights / 1e9,
        "memory_peak_gb": peak.bytes / 1e9,
    }
    print(json.dumps(report, indent=2) if options.json else "\n".join(f"{k:24} {show(v)}" for k, v in report.items()))
    if options.profile:
        print_profile(unet, inputs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=height_and_width, default=(256, 256), metavar="HEIGHTxWIDTH", help="in pixels")
    parser.add_argument("--frames", type=int, default=NUM_FRAMES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--calls", type=int, default=5, help="timed calls, after one that warms up")
    parser.add_argument("--compile", action="store_true", help="compile the repeated blocks with torch.compile")
    parser.add_argument("--profile", action="store_true", help="print time by operator as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def height_and_width(text: str) -> tuple[int, int]:
    height, width = (int(side) for side in text.split("x"))
    if height <= 0 or width <= 0 or height % 64 or width % 64:
        raise argparse.ArgumentTypeError(f"sides must be positive multiples of 64 pixels, got {text}; try 256x256.")
    return height, width


def default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def random_unet(device: torch.device, dtype: torch.dtype) -> DynamiCrafterUNet:
    """The published architecture with small random weights, made in place: never more than one copy in memory."""
    unet = build_empty("unet", FULL, get_preset("512")).to(dtype).to_empty(device=device)
    torch.manual_seed(0)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.ones_(parameter)
    # As the pipeline has it: convolutions work in channels-last memory, and would re-lay their weights in every call.
    return unet.to(memory_format=torch.channels_last)


def make_inputs(unet: DynamiCrafterUNet, *, batch: int, frames: int, size: tuple[int, int]) -> dict[str, object]:
    """Arguments of one call, with keys and values of the contexts projected beforehand as the pipeline has them."""
    like = {"device": unet.device, "dtype": unet.dtype}
    width = unet.config.cross_attention_dim
    with torch.inference_mode():
        context: Context = unet.project_context(
            torch.randn(batch, TEXT_LENGTH, width, **like),
            torch.randn(batch, frames, QUERIES_PER_FRAME, width, **like),
        )
    return {
        "sample": torch.randn(batch, unet.config.in_channels, frames, size[0] // 8, size[1] // 8, **like),
        "timestep": torch.full((batch,), 601, device=unet.device),
        "context": context,
    }


def count_flop(*, batch: int, frames: int, size: tuple[int, int]) -> int:
    """Arithmetic of one call, a multiplication and an addition counting 2, from shapes alone."""
    unet = build_empty("unet", FULL, get_preset("512")).to("meta")
    inputs = make_inputs(unet, batch=batch, frames=frames, size=size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        unet(**inputs)
    return counter.get_total_flops()


def print_profile(unet: nn.Module, inputs: dict[str, Tensor]) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile, torch.inference_mode():
        unet(**inputs)
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=50))
    by_shape = profile.key_averages(group_by_input_shape=True)
    print(by_shape.table(sort_by=key, row_limit=40, max_name_column_width=40, max_shapes_column_width=70))


def show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return " … ".join(show(item) for item in value)
    return str(value)


if __name__ == "__main__":
    main()
