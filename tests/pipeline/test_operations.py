"""What each quality costs with each preset, in calls of the UNet and their rows, so that none creep in.

A row is one pass of one video through the UNet; its arithmetic is counted on shapes.
"""

from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image

from dynamicrafter import DynamiCrafterPipeline, DynamiCrafterScheduler
from dynamicrafter.memory.counting import count_unet
from dynamicrafter.models.deep_features import DeepFeatures
from dynamicrafter.presets import BUNDLED, PRESETS, QUALITIES, get_preset
from tiny import network, pipeline

CALLS = {"exact": 50, "high": 20, "fast": 9, "draft": 5}
GUIDED_ROWS = {"exact": 100, "high": 40, "fast": 15, "draft": 8}


def rows_of(preset, monkeypatch, **arguments):
    """Rows of every call of a run with a UNet that answers nothing, by a preset's schedule and guidance."""
    made = pipeline("tiny512")
    small = replace(preset, height=64, width=64)
    pipe = DynamiCrafterPipeline(
        **made.components | {"scheduler": DynamiCrafterScheduler.from_preset(small)}, preset=asdict(small)
    )
    pipe.set_progress_bar_config(disable=True)
    rows = []

    def answer(sample, *_args, **_options):
        rows.append(len(sample))
        return torch.zeros_like(sample[:, :4])

    monkeypatch.setattr(pipe.unet, "forward", answer)
    pipe(
        Image.new("RGB", (64, 64)),
        "waves",
        num_frames=1,
        output_type="latent",
        guidance_batching="together",
        **arguments,
    )
    return rows


@pytest.mark.parametrize("name", [*PRESETS, BUNDLED.name])
@pytest.mark.parametrize("quality", QUALITIES)
def test_a_quality_makes_these_calls_and_no_more(name, quality, monkeypatch):
    preset, sampling = get_preset(name), QUALITIES[quality]
    rows = rows_of(
        preset,
        monkeypatch,
        num_inference_steps=sampling.steps,
        sampler=sampling.sampler,
        guidance_interval=sampling.guidance_interval,
        cache=sampling.cache,
    )
    assert len(rows) == CALLS[quality]
    assert sum(rows) == (CALLS if preset is BUNDLED else GUIDED_ROWS)[quality]


@pytest.mark.parametrize(("name", "rows"), [("512", 100), ("bundled", 12)])
def test_without_a_quality_a_run_costs_what_its_preset_says(name, rows, monkeypatch):
    assert sum(rows_of(get_preset(name), monkeypatch)) == rows


def test_fast_costs_a_fifth_of_exact_or_less():
    assert 5 * GUIDED_ROWS["fast"] <= GUIDED_ROWS["exact"]
    assert 5 * CALLS["fast"] <= CALLS["exact"]


def test_a_row_costs_this_arithmetic_and_less_where_deep_features_are_kept():
    cost = count_unet(network("unet", "tiny512"), num_frames=2, height=8, width=8)
    # Of the small UNet; 0.10 of the published one's is surface, see docs/speed.md.
    assert (cost.whole, cost.surface) == (260_743_168, 111_616_000)


def test_a_call_with_kept_features_runs_the_surface_alone():
    unet = network("unet", "tiny512")
    units = [name for name, _ in unet.named_modules() if ".units." in name and name.count(".") == 3]
    ran, hooks = [], []
    for name in ("conv_in", "init_temporal", "middle", "conv_out", *units):
        part = unet.get_submodule(name)
        hooks.append(part.register_forward_hook(lambda *_, name=name: ran.append(name)))
    width = unet.config.cross_attention_dim
    memory, sample = DeepFeatures(tolerance=1.0), torch.ones(1, 8, 2, 8, 8)
    try:
        with torch.no_grad():
            context = unet.project_context(torch.ones(1, 77, width), torch.ones(1, 2, 16, width))
            for _ in range(2):
                ran.clear()
                unet(sample, torch.tensor([500]), context=context, memory=memory)
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == ["conv_in", "init_temporal", units[-1], "conv_out"]
