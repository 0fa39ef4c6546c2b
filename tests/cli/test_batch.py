"""The command `batch`: a list in, clips out, whatever interrupts it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dynamicrafter.animator.animator import Animator
from dynamicrafter.cli import batch
from dynamicrafter.cli.parsing import parse
from dynamicrafter.errors import InputError
from dynamicrafter.hub.folders import BUNDLED_FOLDER
from dynamicrafter.jobs.worker import Worker, WorkerReady, WorkerSetup, answer
from dynamicrafter.media.video import read_clip, read_metadata
from quick_jobs import MODEL, ScriptedPool

EXAMPLE = Path(__file__).parents[2] / "examples"
TINY = ("--model", "seeded:tiny", "--device", "cpu", "--dtype", "float32", "--steps", "1", "--frames", "2")
PATIENCE = 300  # seconds; a machine that is shared takes its time


@pytest.fixture
def in_process(monkeypatch):
    """Real clips, without the seconds that a process takes to start; gives the pools that were opened."""
    pools = []

    def opened(setup: WorkerSetup, devices: list[str], *, aside: Path) -> ScriptedPool:
        maker = Worker.__new__(Worker)
        maker.setup, maker.animator = (
            setup,
            Animator.load(replace(setup.model, device=setup.model.device or "cpu", dtype=None)),
        )
        pools.append(ScriptedPool(lambda _, orders: answer(maker, orders), len(devices)))
        return pools[-1]

    monkeypatch.setattr(batch, "LocalPool", opened)
    return pools


def given(pools):
    return [output for pool in pools for _, outputs in pool.given for output in outputs]


@pytest.fixture
def listed(photo):
    """A list of three jobs, five clips."""
    path = photo.parent / "jobs.csv"
    path.write_text("name,image,prompt,seed,samples\na,photo.png,rain,1,\nb,photo.png,snow,2,2\nc,photo.png,wind,,2\n")
    return path


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]


def test_a_list_is_made_once_and_changed_jobs_again(cli, listed, in_process):
    done = cli("batch", "jobs.csv", "-o", "out", *TINY, "--format", "npy", "--seed", "9")
    assert (done.code, done.err.count("warning")) == (0, 0)
    assert sorted(done.out.split()) == [f"out/{name}.npy" for name in ("a", "b-2", "b", "c-2", "c")]
    assert "3 jobs, of which 0 are done; clips to make: 5" in done.err
    assert [line["key"] for line in lines("out")] == ["a", "b", "c"]
    again = cli("batch", "jobs.csv", "-o", "out", *TINY, "--format", "npy", "--seed", "9")
    assert (again.code, again.out) == (0, "")
    assert "3 jobs, of which 3 are done; clips to make: 0" in again.err
    listed.write_text(listed.read_text().replace("snow", "hail").replace("rain,1,", "rain,1,2"))
    changed = cli("batch", "jobs.csv", "-o", "out", *TINY, "--format", "npy", "--seed", "9")
    assert sorted(changed.out.split()) == ["out/a-2.npy", "out/b-2.npy", "out/b.npy"]
    assert "b is made again: prompt changed from 'snow' to 'hail'" in changed.err
    assert sorted(line["key"] for line in lines("out")) == ["a", "b", "c"]


def test_a_clip_depends_on_its_key_and_seed_and_carries_what_repeats_it(cli, listed, in_process, photo):
    assert cli("batch", "jobs.csv", "-o", "out", *TINY, "--format", "npy", "-q").code == 0
    animator = Animator.from_pretrained("seeded:tiny", device="cpu")
    expected = animator.animate(photo, "snow", steps=1, frames=2, seed=2, item="b", sample=1)
    np.testing.assert_array_equal(np.load("out/b-2.npy"), expected.frames)
    assert read_metadata("out/b-2.npy")["pictures"][0]["path"] == "../photo.png"
    os.chdir("out")
    assert cli("animate", "--like", "b-2.npy", "-o", "again.npy").code == 0
    np.testing.assert_array_equal(np.load("again.npy"), expected.frames)


def test_batches_change_rounding_only(cli, listed, in_process):
    flags = ("-o", "out", *TINY, "--format", "npy", "-q")
    assert cli("batch", "jobs.csv", *flags).code == 0
    alone = {path.name: np.load(path).astype(int) for path in Path("out").glob("*.npy")}
    shutil.rmtree("out")
    assert cli("batch", "jobs.csv", *flags, "--batch-size", "4").code == 0
    assert [len(outputs) for _, outputs in in_process[-1].given] == [4, 1]
    for name, frames in alone.items():
        assert np.abs(np.load(f"out/{name}").astype(int) - frames).max() <= 1


def test_a_folder_of_pictures_with_prompts_is_a_list_too(cli, photo, other_photo, in_process):
    folder = photo.parent / "pictures"
    folder.mkdir()
    for number, path in enumerate((photo, other_photo), start=1):
        path.rename(folder / f"cat_{number}.png")
    (folder / "cat.txt").write_text("it turns")
    done = cli("batch", "pictures", "-o", "out", *TINY)
    assert (done.code, done.out) == (0, "out/cat.mp4\n")
    assert "1 pairs of pictures are interpolated, such as cat_1.png and cat_2.png" in done.err
    assert read_metadata("out/cat.mp4")["mode"] == "interpolate"
    (folder / "cat.txt").write_text("one\ntwo\nthree\n")
    wrong = cli("batch", "pictures", "-o", "out", *TINY, "--published-layout")
    assert wrong.code == 2
    assert "line 3: 'three' | (no picture)" in wrong.err
    assert wrong.errors == [
        "error: pictures/cat.txt has 3 lines and its folder 2 pictures, where there must be a picture for each line:"
    ]


def test_all_problems_are_said_before_anything_is_made(cli, listed, in_process):
    listed.write_text("name,image,steps,samples\na,photo.png,0,\nb,gone.png,1,\nc,photo.png,1,2\nc-2,photo.png,1,\n")
    done = cli("batch", "jobs.csv", "-o", "out", *TINY)
    assert (done.code, done.out, in_process) == (2, "", [])
    said = done.err.splitlines()
    assert said[0] == "Checking 3 jobs…"
    assert said[1] == "jobs.csv, line 2: steps must be between 1 and 1000, got 0; try 1."
    assert said[2].startswith("jobs.csv, line 3: gone.png does not exist")
    assert said[3].startswith("jobs.csv, line 5: output c-2.mp4 is also that of jobs.csv, line 4 ('c')")
    assert said[4:] == ["error: 3 problems; mend them all, and run it again. Nothing was made."]
    assert not Path("out").exists()


def test_a_job_that_fails_is_named_and_decides_the_exit_code(cli, listed, in_process, monkeypatch):
    def failing(self: Worker, orders, on_step=None):
        raise MemoryError if orders[0].clip.item == "b" else StopIteration

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "make", failing)
        done = cli("batch", "jobs.csv", "-o", "out", *TINY)
    assert done.code == batch.SOME_FAILED
    assert "failed: jobs.csv, line 3 (b): out of memory; try a smaller size" in done.err
    assert "0 of 3 jobs are done" in done.err
    assert done.err.splitlines()[-1] == "3 jobs failed (a, b, c); the same command tries these again"
    assert [line["status"] for line in lines("out")] == ["failed"] * 3
    assert cli("batch", "jobs.csv", "-o", "out", *TINY).code == 0
    assert [line["status"] for line in lines("out")] == ["done"] * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--output is missing; name a folder for the clips: -o clips"),
        (["-o", "out", "--workers", "0"], "workers must be between 1 and 100000, got 0; try 1."),
        (["-o", "out", "--batch-size", "0"], "batch-size must be between 1 and 100000, got 0; try 1."),
        (["-o", "out", "--mode", "dance"], "mode must be one of animate, interpolate, loop, text, got 'dance'."),
        (["-o", "no/out"], "output no/out can't be made: there is no folder no; create it first."),
        (["-o", "photo.png"], "output photo.png is a file, where a folder for the clips is wanted"),
        (["-o", "out", "--model", "gone.ckpt"], "model gone.ckpt is a path to nothing"),
        (["-o", "out", "--device", "cpu", "--devices", "cpu"], "--device and --devices exclude each other"),
        (["-o", "out", "--ray", "local", "--devices", "cpu"], "--devices must be left out with --ray"),
        (["-o", "out", "--published-layout"], "is no folder, where --published-layout wants one"),
    ],
)
def test_flags_that_cannot_be_followed_end_in_one_line(cli, listed, words, said):
    done = cli("batch", "jobs.csv", *words, "--quiet", *(["--model", "seeded:tiny"] if "--model" not in words else []))
    assert (done.code, done.out) == (2, "")
    [error] = done.errors
    assert said in error


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        (["--devices", "cuda:0, cuda:1"], ["cuda:0", "cuda:1"]),
        (["--devices", "cuda:0,cuda:1", "--workers", "3"], ["cuda:0", "cuda:1", "cuda:0"]),
        (["--device", "cuda:1"], ["cuda:1"]),
        (["--device", "cpu"], ["cpu"] * 5),  # 8 cores, and 5 GiB for workers of one
        (["--device", "cpu", "--threads", "4"], ["cpu"] * 2),
        (["--device", "cpu", "--workers", "7"], ["cpu"] * 7),
    ],
)
def test_each_device_has_a_worker_and_a_cpu_as_many_as_it_bears(monkeypatch, words, devices):
    monkeypatch.setattr(batch.psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(batch.psutil, "virtual_memory", lambda: SimpleNamespace(available=5 << 30))
    command = parse(batch.BatchCommand, ["jobs.csv", "-o", "out", *words], prog="dynamicrafter batch")
    assert batch._devices(command, MODEL) == devices


def test_a_clusters_workers_get_whole_paths(cli, listed, monkeypatch):
    given = []

    def joined(setup, address, **numbers):
        given.append((setup, address, numbers))
        raise InputError("as far as this.")

    monkeypatch.setattr(batch, "RayPool", joined)
    Path("model").symlink_to(BUNDLED_FOLDER)
    done = cli("batch", "jobs.csv", "-o", "out", "--model", "model", "--ray", "auto", "--workers", "2")
    assert done.errors == ["error: as far as this."]
    [(setup, address, numbers)] = given
    assert Path(setup.model.name).is_absolute()
    assert (address, numbers) == ("auto", {"num_workers": 2, "most": 5})


def test_checking_alone_makes_nothing(cli, listed, in_process):
    done = cli("batch", "jobs.csv", "-o", "out", *TINY, "--check")
    assert (done.code, done.out, in_process) == (0, "", [])
    assert "3 jobs, of which 0 are done; clips to make: 5" in done.err
    assert not Path("out").exists()


def test_the_example_is_made_as_it_stands(cli, in_process, monkeypatch):
    flags = ("--steps", "1", "--size", "64x64", "--device", "cpu", "--model", "bundled")
    done = cli("batch", EXAMPLE / "batch" / "jobs.csv", "-o", "out", *flags)
    assert done.code == 0
    assert sorted(done.out.split()) == ["out/left-2.mp4", "out/left.mp4", "out/right.mp4", "out/up.gif"]
    assert read_clip("out/up.gif")[0].shape == (8, 64, 64, 3)
    assert read_clip("out/left.mp4")[0].shape == (16, 64, 64, 3)


def test_where_nobody_watches_a_line_now_and_then_says_how_much_is_left(monkeypatch, capfd):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    watcher = batch._Watcher(quiet=False)
    watcher.advanced(0.0)  # before any worker is ready, nothing can be foretold
    watcher.ready("worker 1", WorkerReady("cpu", "", 0))
    for seconds, share in ((10, 0.1), (20, 0.25), (25, 0.3), (60, 0.5)):
        clock[0] = 100.0 + seconds
        watcher.advanced(share)
    assert capfd.readouterr().err.splitlines() == ["0/0 clips, 1 min 0 s left", "0/0 clips, 1 min 0 s left"]


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "dynamicrafter.cli", "batch", "jobs.csv", "-o", "out", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_at_random_moments_it_loses_nothing_and_repeats_nothing(listed):
    """The short form of benchmarks/kill_batch.py."""
    folder, printed, draw = listed.parent, [], random.Random(3)
    for attempt in range(3):
        with start(folder, *TINY, "--steps", "12", "--format", "npy", "--workers", "1") as process:
            if attempt < 2:
                printed.append(process.stdout.readline())  # so that the kill falls into the making
                time.sleep(draw.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
            printed += process.stdout.readlines()
            said = process.stderr.read()
            assert process.wait(PATIENCE) == (0 if attempt == 2 else -signal.SIGKILL), said
    assert sorted(line["key"] for line in lines(folder / "out")) == ["a", "b", "c"]
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["a.npy", "b-2.npy", "b.npy", "c-2.npy", "c.npy", "results.jsonl"]
    told = [line.strip() for line in printed]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_what_is_done_and_leaves_nothing_half_written(listed, number):
    folder = listed.parent
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with start(folder, *TINY, "--steps", "50", "--workers", "1") as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout.readline() == "out/a.mp4\n"
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 128 + number
    assert said.splitlines()[-1] == "stopped; 1 of 3 jobs are done; the same command goes on from there"
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.mp4", "results.jsonl"]
