"""Plot what `dynamicrafter bench --sweep --json` measured: seconds against frames, pixels and steps.

    dynamicrafter bench --sweep --json > sweep.json
    python benchmarks/plot_sweep.py sweep.json sweep.png

Needs matplotlib, which the package does not: pip install matplotlib.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="JSON of the sweep")
    parser.add_argument("picture", type=Path, help="PNG or SVG to write")
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(options.sweep.read_text())
    figure, axes = plt.subplots(1, len(found["growth"]), figsize=(12, 4), layout="constrained")
    for axis, growth in zip(axes, found["growth"], strict=True):
        plot(axis, growth)
    machine = found["machine"]
    figure.suptitle(
        f"{found['preset']}, {found['dtype']}, {machine['device']}, {machine['threads']} threads, "
        f"PyTorch {machine['torch']}"
    )
    figure.savefig(options.picture, dpi=120)


def plot(axis: Any, growth: dict[str, Any]) -> None:
    """One axis of the sweep: its points, and the straight line through them."""
    ats = [point["at"] for point in growth["points"]]
    axis.plot(ats, [point["seconds"] for point in growth["points"]], "o")
    axis.plot(ats, [growth["base"] + growth["slope"] * at for at in ats], "-")
    exponent = growth["exponent"]
    axis.set_title("" if exponent is None else f"as {growth['axis']}^{exponent:.2f}")
    axis.set_xlabel(growth["axis"])
    axis.set_ylabel("seconds for a clip")
    axis.set_ylim(bottom=0)
    axis.locator_params(axis="x", nbins=6)


if __name__ == "__main__":
    main()
