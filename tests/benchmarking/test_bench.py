"""The bench: what is timed, what is left out and why, and the curves through a sweep."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dynamicrafter.benchmarking import choice
from dynamicrafter.benchmarking.cases import Bench, BenchCase
from dynamicrafter.benchmarking.choice import CaseEstimate, choose, combine, estimate, in_groups
from dynamicrafter.benchmarking.growth import Point, fit, settings
from dynamicrafter.cli.bench import BenchCommand
from dynamicrafter.cli.bench import check as check_command
from dynamicrafter.cli.parsing import parse
from dynamicrafter.errors import InputError

CPU = torch.device("cpu")
SMALL = BenchCase(preset="bundled", dtype="float32", frames=2)


def test_a_measurement_adds_up(monkeypatch):
    monkeypatch.setattr("dynamicrafter.benchmarking.clock.MATMUL_WIDTH", 128)
    found = Bench(CPU).measure(SMALL, calls=2)
    assert (found.height, found.width) == (128, 128)
    assert 0 < found.best <= found.warm
    assert found.first > 0
    assert found.flop_per_second == pytest.approx(found.flop / found.warm)
    assert found.share > 0
    assert 0 < found.memory_before <= found.memory_peak
    json.dumps(found.as_dict())


def test_weights_are_drawn_once_for_cases_that_share_them(monkeypatch):
    drawn = []

    def draw(case):
        drawn.append(case.option)
        return torch.nn.Identity()

    monkeypatch.setattr("dynamicrafter.benchmarking.cases.make_unet", draw)
    monkeypatch.setattr("dynamicrafter.benchmarking.cases.measure", lambda case, *_, **__: case)
    bench = Bench(CPU)
    for case in in_groups([replace(SMALL, option=option) for option in ("int8", "plain", "together")]):
        bench.measure(case)
    bench.measure(SMALL)
    assert drawn == ["plain", "plain"]  # the second, as 8 bits had changed the first


def test_a_call_of_two_passes_counts_twice_and_longer_clips_more():
    one = estimate(SMALL, flop_per_second=1e12, calls=3)
    two = estimate(replace(SMALL, option="together"), flop_per_second=1e12, calls=3)
    long = estimate(replace(SMALL, frames=16), flop_per_second=1e12, calls=3)
    assert one.seconds < two.seconds < long.seconds
    assert one.bytes < two.bytes < long.bytes
    assert estimate(SMALL, flop_per_second=1e9, calls=3).seconds > one.seconds


def test_what_takes_too_long_or_too_much_is_left_out_with_its_reason(monkeypatch):
    monkeypatch.setattr(choice, "free_memory", lambda _: 10 * 10**9)
    cases = [replace(SMALL, frames=frames) for frames in (1, 2, 3, 4)]
    needs = ((50.0, 1), (80.0, 1), (30.0, 1), (1.0, 9 * 10**9))
    took = [CaseEstimate(case=case, seconds=s, bytes=size) for case, (s, size) in zip(cases, needs, strict=True)]
    chosen, left = choose(took, granted=90, device=CPU)
    assert chosen == [cases[0], cases[2]]
    assert left == [(cases[1], "would take about 80 s"), (cases[3], "needs 9.0 GB, 10.0 GB are free")]
    assert choose(took[1:2], granted=1, device=CPU)[0] == [cases[1]]  # the first always runs


def test_what_says_most_comes_first():
    cases = combine(presets=("bundled", "256"), dtypes=("bfloat16", "float32"), options=("plain", "int8"))
    assert len(set(cases)) == len(cases) == 8
    assert cases[0] == BenchCase(preset="bundled", dtype="bfloat16")
    assert cases.index(BenchCase(preset="256", dtype="bfloat16")) < cases.index(
        BenchCase(preset="bundled", dtype="float32")
    )


def test_the_fit_finds_the_line_and_the_power():
    line = fit("frames", [Point(at=at, seconds=3 + 0.5 * at, memory_peak=0) for at in (16, 32, 64)])
    assert (line.base, line.slope) == pytest.approx((3, 0.5))
    square = fit("pixels", [Point(at=at, seconds=2e-6 * at**2, memory_peak=0) for at in (100, 200, 400)])
    assert square.exponent == pytest.approx(2)
    assert fit("steps", [Point(at=1, seconds=2.0, memory_peak=0)]).exponent is None


def test_a_sweep_goes_from_the_presets_own_size_to_eight_times_its_frames():
    animator = SimpleNamespace(preset=SimpleNamespace(height=320, width=512))
    frames = list(settings(animator, "frames", steps=2))
    assert (frames[0], frames[-1]) == ((16, {"frames": 16, "steps": 2}), (128, {"frames": 128, "steps": 2}))
    sizes = [options["size"] for _, options in settings(animator, "pixels", steps=2)]
    assert sizes[0] == (320, 512)
    assert all(side % 64 == 0 for size in sizes for side in size)
    assert next(iter(settings(animator, "steps", steps=2))) == (1, {"steps": 1})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"preset": "2048"}, "preset must be one of"),
        ({"seconds": 0.5}, "seconds must be between 1 and 86400, got 0.5; try 180."),
        ({"calls": 0}, "calls must be between 1 and 1000, got 0; try 3."),
        ({"steps": 0}, "steps must be between 1 and 1000, got 0; try 2."),
        ({"option": ("plain", "fast")}, "option must be one of plain, together, int8, blocks, compile, got 'fast'."),
    ],
)
def test_options_that_break_their_rule_are_refused(changes, line):
    with pytest.raises(InputError, match=line):
        check_command(BenchCommand(**changes))


def test_options_are_read_from_the_command_line():
    words = ["--option", "plain", "--option", "int8", "--quick"]
    assert parse(BenchCommand, words, prog="bench") == BenchCommand(option=("plain", "int8"), quick=True)
