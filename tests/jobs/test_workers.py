"""Workers as real processes and as real actors of Ray: the same bits from all, and none of their deaths loses a job."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from dynamicrafter import Animator
from dynamicrafter.errors import InputError
from dynamicrafter.jobs.checks import check_jobs
from dynamicrafter.jobs.cluster import RayPool
from dynamicrafter.jobs.ledger import read_entries
from dynamicrafter.jobs.local import LocalPool
from dynamicrafter.jobs.run import run_list
from dynamicrafter.jobs.worker import WorkerSetup
from dynamicrafter.specs.model import ModelSpec
from quick_jobs import MODEL, QUICK, job

SETUP = WorkerSetup(model=ModelSpec(name="seeded:tiny", device="cpu", dtype="float32"))
KEYS = "abcde"
PATIENCE = 120  # seconds; a machine that is shared takes its time


class Killer:
    """Watches a run, and kills the worker that gets the third order, a little after it has begun."""

    def __init__(self, pool):
        self.pool, self.give = pool, pool.give
        self.num_orders, self.lost_workers, self.paths, self.processes = 0, [], [], {}
        pool.give = self.killing

    def killing(self, name, orders):
        self.give(name, orders)
        self.num_orders += 1
        if self.num_orders == 3:
            threading.Timer(0.1, os.kill, (self.processes[name], signal.SIGKILL)).start()


class BatchObserver:
    """Passes on to a killer what it must know; the killer comes with the pool."""

    def __init__(self, killers):
        self.killers = killers

    def planned(self, plan):
        pass

    def ready(self, name, hello):
        assert hello.device == "cpu"
        self.killers[0].processes[name] = hello.process

    def lost(self, name, text):
        self.killers[0].lost_workers.append(text)

    def made(self, path, seconds):
        self.killers[0].paths.append(path.name)

    def ended(self, job, error):
        assert error == ""

    def advanced(self, share):
        pass


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Jobs that take long enough to be met at work."""
    folder = tmp_path_factory.mktemp("list")
    picture = folder / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(picture)
    options = replace(QUICK, steps=12, seed=5)
    listed = [job(key, pictures=(picture,), prompt=key, options=options) for key in KEYS]
    return check_jobs(folder, listed, folder / "out", model=MODEL)[0]


@pytest.fixture(scope="module")
def expected(jobs):
    """The frames of each job, made in this process."""
    animator = Animator.from_pretrained("seeded:tiny", device="cpu", dtype="float32")
    return {
        job.job.key: animator.animate(
            job.job.pictures[0], job.job.clip.prompts[0], options=job.job.clip.options, item=job.job.key
        ).frames
        for job in jobs
    }


def check_outcome(folder: Path, killer: Killer, expected):
    assert len(killer.lost_workers) == 1
    assert sorted(killer.paths) == [f"{key}.npy" for key in KEYS]  # none lost, none twice
    entries = read_entries(folder)
    assert {key: entry.status for key, entry in entries.items()} == dict.fromkeys(KEYS, "done")
    assert sorted(entry.attempts for entry in entries.values()) == [1] * (len(KEYS) - 1) + [2]
    for key in KEYS:
        np.testing.assert_array_equal(np.load(folder / f"{key}.npy"), expected[key])


def run(jobs, folder, open_pool):
    killers = []

    def opened(num_batches, aside):
        killers.append(Killer(open_pool(num_batches, aside)))
        return killers[0].pool

    run_list(Path("list"), jobs, folder, batch_size=1, open_pool=opened, watcher=BatchObserver(killers))
    return killers[0]


def test_three_processes_of_which_one_is_killed_make_every_job_once_with_the_same_bits(jobs, expected, tmp_path):
    killer = run(jobs, tmp_path / "out", lambda _, aside: LocalPool(SETUP, ["cpu"] * 3, aside=aside))
    assert killer.lost_workers == ["was ended by SIGKILL"]
    check_outcome(tmp_path / "out", killer, expected)
    assert not list((tmp_path / "out").glob(".*"))


def test_a_ray_cluster_of_which_a_worker_is_killed_makes_every_job_once_with_the_same_bits(
    jobs, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or whatever else runs goes first
    ours = signal.getsignal(signal.SIGTERM)
    killer = run(jobs, tmp_path / "out", lambda most, _: RayPool(SETUP, "local", num_workers=2, most=most))
    assert signal.getsignal(signal.SIGTERM) == ours
    assert "was lost" in killer.lost_workers[0]
    check_outcome(tmp_path / "out", killer, expected)


def test_a_cluster_that_is_not_there_is_said_in_one_line():
    with pytest.raises(InputError, match="ray's cluster nowhere:1 can't be joined"):
        RayPool(SETUP, "nowhere:1", num_workers=1, most=1)


def test_a_model_that_cannot_be_loaded_is_refused_by_its_worker(tmp_path):
    pool = LocalPool(replace(SETUP, model=ModelSpec(name="seeded:huge", device="cpu")), ["cpu"], aside=tmp_path)
    try:
        [event] = pool.wait(PATIENCE)
        assert event.what.by_rule
        assert "'seeded:huge' must be one of" in event.what.text
    finally:
        pool.close()


def test_workers_end_with_their_parent_however_that_ends(tmp_path):
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from dynamicrafter.jobs.local import LocalPool\n"
        "from dynamicrafter.jobs.worker import WorkerSetup\n"
        "from dynamicrafter.specs.model import ModelSpec\n"
        "if __name__ == '__main__':\n"
        "    setup = WorkerSetup(model=ModelSpec(name='seeded:tiny', device='cpu'))\n"
        f"    pool = LocalPool(setup, ['cpu'], aside=Path({str(tmp_path)!r}))\n"
        "    [event] = pool.wait(120)\n"
        "    print(event.what.process, flush=True)\n"
        "    time.sleep(120)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(program)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    worker.wait(PATIENCE)
    assert not worker.is_running()
