"""Workers as real processes and as real actors of Ray: the same bits from all, and none of their deaths loses a job."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.jobs.cluster import RayPool
from dynamicrafter.jobs.ledger import read_entries
from dynamicrafter.jobs.local import LocalPool
from dynamicrafter.jobs.maker import Maker, Order, Setup, answer
from dynamicrafter.jobs.run import run_list
from dynamicrafter.media.video import read_metadata
from quick_jobs import QUICK

SETUP = Setup(model="seeded:tiny", device="cpu", dtype="float32")
KEYS = "abcdef"
PATIENCE = 120  # seconds; a machine that is shared takes its time


class Killer:
    """Kills the worker that is the first to be busy once a clip is made."""

    def __init__(self):
        self.pool, self.victim, self.lost_workers, self.paths, self.processes = None, None, [], [], {}

    def planned(self, plan):
        pass

    def ready(self, name, hello):
        assert hello.device == "cpu"
        self.processes[name] = hello.process

    def lost(self, name, text):
        self.lost_workers.append(text)

    def made(self, path, seconds):
        self.paths.append(path.name)
        busy = set(self.processes) - set(self.pool.idle())
        if self.victim is None and busy:
            self.victim = self.processes[min(busy)]
            os.kill(self.victim, signal.SIGKILL)

    def ended(self, job, error):
        assert error == ""

    def advanced(self, share):
        pass


@pytest.fixture
def jobs(check):
    """Six jobs, long enough to be met at work."""
    return check(**{key: {"prompt": key, "options": replace(QUICK, steps=40, seed=5)} for key in KEYS})


@pytest.fixture
def expected(jobs, picture):
    """The frames of each job, made in this process."""
    maker = Maker(SETUP)
    path = (str(picture), picture.read_bytes(), "", jobs[0].hashes[0])
    frames = {}
    for job in jobs:
        order = Order(
            key=job.job.key,
            sample=0,
            fingerprint=job.fingerprint,
            mode="animate",
            prompt=job.job.prompt,
            pictures=(path,),
            options=job.job.options,
            output="clip.npy",
            format="npy",
            fps=None,
            crf=None,
        )
        [product] = answer(maker, [order]).products
        frames[job.job.key] = product.parts[0][1]
    return frames


def check_outcome(folder: Path, killer: Killer, expected):
    assert killer.victim is not None
    assert len(killer.lost_workers) == 1
    assert sorted(killer.paths) == [f"{key}.npy" for key in KEYS]  # none lost, none twice
    entries = read_entries(folder)
    assert {key: entry.status for key, entry in entries.items()} == dict.fromkeys(KEYS, "done")
    assert max(entry.attempts for entry in entries.values()) == 2
    for key in KEYS:
        content = (folder / f"{key}.npy").read_bytes()
        frames = np.load(folder / f"{key}.npy")
        assert content[: frames.nbytes] == expected[key][: frames.nbytes]
        assert read_metadata(folder / f"{key}.npy")["item"] == key


def run(jobs, folder, open_pool):
    killer = Killer()

    def opened(num_batches, aside):
        killer.pool = open_pool(num_batches, aside)
        return killer.pool

    run_list(Path("list"), jobs, folder, batch_size=1, open_pool=opened, watcher=killer)
    return killer


def test_three_processes_of_which_one_is_killed_make_every_job_once_with_the_same_bits(jobs, expected, tmp_path):
    killer = run(jobs, tmp_path / "out", lambda _, aside: LocalPool(SETUP, ["cpu"] * 3, aside=aside))
    assert killer.lost_workers == ["was ended by SIGKILL"]
    check_outcome(tmp_path / "out", killer, expected)
    assert not list((tmp_path / "out").glob(".*"))


def test_a_ray_cluster_of_which_a_worker_is_killed_makes_every_job_once_with_the_same_bits(
    jobs, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or whatever else runs goes first
    killer = run(jobs, tmp_path / "out", lambda most, _: RayPool(SETUP, "local", num_workers=2, most=most))
    assert "was lost" in killer.lost_workers[0]
    check_outcome(tmp_path / "out", killer, expected)


def test_a_cluster_that_is_not_there_is_said_in_one_line():
    with pytest.raises(InputError, match="ray's cluster nowhere:1 can't be joined"):
        RayPool(SETUP, "nowhere:1", num_workers=1, most=1)


def test_a_model_that_cannot_be_loaded_is_refused_by_its_worker(tmp_path):
    pool = LocalPool(replace(SETUP, model="seeded:huge"), ["cpu"], aside=tmp_path)
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
        "from dynamicrafter.jobs.maker import Setup\n"
        "if __name__ == '__main__':\n"
        f"    pool = LocalPool(Setup(model='seeded:tiny', device='cpu'), ['cpu'], aside=Path({str(tmp_path)!r}))\n"
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
