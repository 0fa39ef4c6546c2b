"""Runs that are killed, stopped, or divided among processes, against runs that weren't."""

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import threading
import time

import pytest

from dynamicrafter.training.loop import train
from training_runs import FakeClips, losses, run_in_two, run_on_one_thread, small

PATIENCE = 120  # seconds; a machine that is shared takes its time
# Largest difference of a loss, relative, that two processes have made from one: one bit of float32.
ROUNDING = 3e-7


@pytest.fixture(scope="module")
def processes():
    """Processes that start with everything imported, and share no state with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dynamicrafter.training.loop", "training_runs"])
    return context


def wait_for_lines(path, count):
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} didn't reach {count} lines")


def test_a_run_killed_at_random_moments_goes_on_as_if_it_never_had_been(tmp_path, processes):
    changes = {"steps": 8, "ema": 0.9, "checkpoint_every": 2, "keep": 2}
    train(small(tmp_path / "unbroken", **changes), stream=FakeClips())
    killed = small(tmp_path / "killed", **changes)
    seed = time.time_ns()
    chance = random.Random(seed)
    for least in (2, 4, 6):
        process = processes.Process(target=run_on_one_thread, args=(killed,))
        process.start()
        wait_for_lines(killed.output / "losses.jsonl", least)
        time.sleep(chance.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    run_on_one_thread(killed)
    assert losses(killed.output) == losses(tmp_path / "unbroken"), f"seed {seed}"
    for name in ("trained.safetensors", "average.safetensors"):
        ends = [run / "checkpoints" / "step-00000008" / name for run in (killed.output, tmp_path / "unbroken")]
        assert ends[0].read_bytes() == ends[1].read_bytes(), name
    names = sorted(path.name for path in (killed.output / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000008"]


def free_ports(count):
    """Ports to meet at, below those that the system hands to whatever connects or listens meanwhile."""
    found = []
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            found.append(port)
    return found[:count]


def test_two_processes_train_as_one_with_twice_the_accumulation_and_one_goes_on_with_their_run(tmp_path, processes):
    one = small(tmp_path / "one", accumulation=4, batch_size=1)
    shared = small(tmp_path / "shared", accumulation=2, batch_size=1)
    sharded = small(tmp_path / "sharded", accumulation=2, batch_size=1, sharding="fsdp2", ema=0.9, checkpoint_every=2)
    begun = small(tmp_path / "begun", accumulation=2, batch_size=1, steps=2)
    train(one, stream=FakeClips())
    ports = free_ports(3)
    ranks = [processes.Process(target=run_in_two, args=(rank, ports, [shared, sharded, begun])) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(PATIENCE)
        assert rank.exitcode == 0
    train(small(begun.output, accumulation=4, batch_size=1), stream=FakeClips())
    for run in (shared, sharded, begun):
        for (loss, norm), (want, want_norm) in zip(losses(run.output), losses(one.output), strict=True):
            assert loss == pytest.approx(want, rel=ROUNDING)
            assert norm == pytest.approx(want_norm, rel=10 * ROUNDING)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, number):
    config = small(tmp_path / "run", steps=50)

    def ask(report):
        if report.step == 2:
            threading.Timer(0, os.kill, (os.getpid(), number)).start()

    outcome = train(config, stream=FakeClips(), on_step=ask)
    assert outcome.signal == number
    assert 2 <= outcome.step < 50
    assert outcome.checkpoint.name == f"step-{outcome.step:08}"
    train(small(tmp_path / "run", steps=outcome.step + 1), stream=FakeClips())
    train(small(tmp_path / "unbroken", steps=outcome.step + 1), stream=FakeClips())
    assert losses(config.output) == losses(tmp_path / "unbroken")
