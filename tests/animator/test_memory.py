"""A budget that forces savings, and memory that runs out all the same: one line, and the next job works."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dynamicrafter import AnimateOptions, Animator, DynamiCrafterPipeline
from dynamicrafter.animator import animator as module
from dynamicrafter.errors import InputError, MemoryShortageError
from dynamicrafter.memory import devices
from dynamicrafter.memory.advice import is_out_of_memory
from dynamicrafter.memory.plan import make_plan
from dynamicrafter.memory.reload import is_unloaded
from dynamicrafter.pipeline.lora import write_lora
from tiny import network

QUICK = {"steps": 2, "frames": 3, "seed": 4}
PICTURE = Image.new("RGB", (80, 64), (30, 90, 200))


def write_adapters(path):
    """Adapters that change something, on one module of the small UNet."""
    name = "unet.middle.spatial.self_attention.to_q"
    shape = network("unet", "tiny512").middle.spatial.self_attention.to_q.weight.shape
    down, up = torch.full((2, shape[1]), 0.1), torch.full((shape[0], 2), 0.1)
    write_lora(path, {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, rank=2, alpha=2.0)
    return path


def load(**settings):
    animator = Animator.from_pretrained("seeded:tiny", device="cpu", dtype="float32", **settings)
    animator.pipeline.set_progress_bar_config(disable=True)
    return animator


@pytest.fixture(scope="module")
def want():
    return load().animate(PICTURE, "waves", **QUICK).frames


def test_a_budget_chooses_measures_and_leaves_the_pixels(want):
    animator = load(memory="0.98GB")
    plan = animator.plan(AnimateOptions(**QUICK))
    assert plan.measures == ("encoders",)
    clip = animator.animate(PICTURE, "waves", **QUICK)
    assert animator.pipeline.offloader.plan == plan
    assert is_unloaded(animator.pipeline.text_encoder)
    # The passes went one by one, which rounds otherwise.
    assert np.abs(clip.frames.astype(int) - want).max() <= 1
    assert clip.metadata["memory"] == []


def test_ample_memory_takes_no_measures(want):
    animator = load(memory="64GB")
    assert animator.plan(AnimateOptions(**QUICK)).measures == ()
    assert np.array_equal(animator.animate(PICTURE, "waves", **QUICK).frames, want)
    assert not any(map(is_unloaded, animator.pipeline.networks.values()))


def test_a_clip_says_which_measures_changed_its_numbers(monkeypatch, want):
    def rounded(footprint, **settings):
        return replace(make_plan(footprint, **settings), measures=("encoders", "int8"))

    animator = load()
    monkeypatch.setattr("dynamicrafter.memory.advice.make_plan", rounded)
    clip = animator.animate(PICTURE, "waves", **QUICK)
    assert clip.metadata["memory"] == ["int8"]
    assert not np.array_equal(clip.frames, want)
    assert np.abs(clip.frames.astype(int) - want).mean() < 10
    monkeypatch.undo()
    assert np.array_equal(animator.animate(PICTURE, "waves", **QUICK).frames, want)


def test_adapters_keep_the_denoiser_in_place(tmp_path, want):
    animator = load(memory="0.98GB", lora=write_adapters(tmp_path / "mine.safetensors"))
    clip = animator.animate(PICTURE, "waves", **QUICK)
    assert not is_unloaded(animator.pipeline.unet)
    assert is_unloaded(animator.pipeline.text_encoder)
    again = animator.animate(PICTURE, "waves", **QUICK)
    assert np.array_equal(clip.frames, again.frames)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_ends_in_one_line_and_the_next_job_works(monkeypatch, want, error):
    animator = load()
    forward = animator.pipeline.unet.forward
    calls = []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:  # in the second step
            raise error
        return forward(*args, **kwargs)

    monkeypatch.setattr(module, "free_memory", lambda _: 98 * 10**7)
    with monkeypatch.context() as broken:
        broken.setattr(animator.pipeline.unet, "forward", failing)
        with pytest.raises(MemoryShortageError) as shortage:
            animator.animate(PICTURE, "waves", **QUICK)
    assert str(shortage.value) == "out of memory on cpu; --memory 0.98GB makes it fit (encoders)."
    assert shortage.value.__cause__ is shortage.value.__context__ is None
    assert np.array_equal(animator.animate(PICTURE, "waves", **QUICK).frames, want)


def test_other_errors_stay_what_they_are(monkeypatch):
    animator = load()
    monkeypatch.setattr(animator.pipeline.unet, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        animator.animate(PICTURE, "waves", **QUICK)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_budget_must_be_a_size():
    with pytest.raises(InputError, match=r"memory must be a size such as 24GB, got '8MB'\."):
        load(memory="8MB")


def test_a_budget_may_be_what_is_free_when_a_run_begins(monkeypatch):
    animator = load(memory="free")
    budgets = iter([64 * 10**9, 98 * 10**7])
    monkeypatch.setattr(devices, "free_memory", lambda _: next(budgets))
    assert animator.plan(AnimateOptions(**QUICK)).measures == ()
    assert animator.plan(AnimateOptions(**QUICK)).measures == ("encoders",)


def test_networks_may_wait_where_they_were_read(monkeypatch):
    moved = []
    monkeypatch.setattr(DynamiCrafterPipeline, "to", lambda self, *args: moved.append(args))
    load(place=False)
    assert not moved
    load()
    assert len(moved) == 1
