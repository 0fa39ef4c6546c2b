"""The curve of docs/speed.md: error over calls of the UNet, drawn from what benchmarks/sampling.py wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot


def plot(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """One panel for each model: a line for each sampler, a dot for each quality."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, panels = pyplot.subplots(1, len(models), figsize=(5 * len(models), 3.6), squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        mine = [row for row in rows if row["model"] == model]
        for sampler in ("ddim", "dpm++", "unipc"):
            points = [row for row in mine if row["group"] == "sampler" and row["name"].split()[0] == sampler]
            panel.plot(*_axes(points), marker="o", markersize=3, label=sampler)
        qualities = [row for row in mine if row["group"] == "quality"]
        panel.scatter(*_axes(qualities), marker="s", facecolors="none", edgecolors="black", label="qualities", zorder=3)
        for row in qualities:
            place = (float(row["tflop"]), float(row["error"]))
            panel.annotate(row["name"], place, xytext=(4, 4), textcoords="offset points", fontsize=8)
        panel.set(xscale="log", yscale="log", title=model, xlabel="TFLOP in the UNet", ylabel="error of the latents")
        panel.grid(visible=True, which="both", alpha=0.3)
        panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def _axes(rows: Sequence[Mapping[str, str]]) -> tuple[list[float], list[float]]:
    return [float(row["tflop"]) for row in rows], [float(row["error"]) for row in rows]
