"""`inspect` of a file of adapters: which layers it adapts, at which ranks, and how strongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynamicrafter.faces.progress import one_line

if TYPE_CHECKING:
    from dynamicrafter.pipeline.lora import AdapterFile

_MARKS = ("lora_A", "lora_B", "lora_down", "lora_up")


def adapters_at(name: str) -> AdapterFile | None:
    """The adapters in a file or folder; None for what holds none.

    Raises:
        CheckpointError: adapters of a kind that can't be used.
    """
    from safetensors import SafetensorError, safe_open

    from dynamicrafter.pipeline.lora import lora_file, read_adapters

    path = lora_file(Path(name).expanduser())
    if not path.is_file() or path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            holds = any(mark in key for key in file.keys() for mark in _MARKS)
    except (OSError, SafetensorError):  # what it is instead, whoever reads weights says better
        return None
    return read_adapters(path) if holds else None


def adapters_as_json(adapters: AdapterFile) -> dict[str, Any]:
    """Plain values."""
    layers = {name: {"rank": each.rank, "scale": each.alpha / each.rank} for name, each in adapters.layers.items()}
    return {"where": adapters.name, "layers": layers}


def describe_adapters(adapters: AdapterFile) -> Iterator[str]:
    """A report, line by line."""
    layers = adapters.layers.values()
    ranks = Counter(layer.rank for layer in layers)
    scales = Counter(round(layer.alpha / layer.rank, 4) for layer in layers)
    convolutions = sum(layer.down.ndim == 4 for layer in layers)
    numbers = sum(layer.down.numel() + layer.up.numel() for layer in layers)
    yield f"{one_line(adapters.name)}: adapters (LoRA), which go on a model with --lora"
    beside = f", {convolutions} of them convolutions" if convolutions else ""
    yield f"  layers       {len(adapters.layers)}{beside}, {numbers / 1e6:,.2f} M numbers"
    yield f"  rank         {_listed(ranks)}"
    yield f"  scale        {_listed(scales)} (alpha / rank, times the scale of --lora FILE:SCALE)"
    parts = Counter(name.replace("_", ".").split(".")[0] for name in adapters.layers)
    yield f"  parts        {', '.join(f'{one_line(name)} {count}' for name, count in parts.most_common())}"


def _listed(counts: Counter[Any]) -> str:
    if len(counts) == 1:
        return f"{next(iter(counts)):g}"
    return ", ".join(f"{value:g} ({times} layers)" for value, times in sorted(counts.items()))
