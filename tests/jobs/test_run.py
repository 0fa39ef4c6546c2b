"""A run through a list: every job has one line, whatever workers do. Their part is played by a script here."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from dynamicrafter.errors import InputError, MachineError, OutputError
from dynamicrafter.jobs.ledger import read_entries
from dynamicrafter.jobs.outputs import OutputFiles, OutputFolder, collect
from dynamicrafter.jobs.pool import WorkerEvent, WorkerLost
from dynamicrafter.jobs.run import run_list
from dynamicrafter.jobs.worker import TasksDone, TasksFailed
from dynamicrafter.media.video import write_clip
from quick_jobs import QUICK, ScriptedPool


def clip_for(order):
    """What no worker would make, but a file that says of which job it is."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / order.name
        note = {"key": order.clip.item, "fingerprint": order.fingerprint}
        frames = np.full((1, 2, 2, 3), order.clip.sample, np.uint8)
        write_clip(path, frames, fps=Fraction(8), metadata={"job": note}, format=order.output.format)
        return collect(path)


def make(name, orders):
    return TasksDone(tuple(map(clip_for, orders)), 1.0, ("a warning",))


class Heard:
    """Remembers what it was told."""

    def __init__(self):
        self.plan = None
        self.lost_workers, self.paths, self.endings, self.shares = [], [], {}, []

    def planned(self, plan):
        self.plan = plan

    def ready(self, name, hello):
        pass

    def lost(self, name, text):
        self.lost_workers.append(text)

    def made(self, path, seconds):
        assert path.exists()
        self.paths.append(path.name)

    def ended(self, job, error):
        assert job.job.key not in self.endings
        self.endings[job.job.key] = error

    def advanced(self, share):
        self.shares.append(share)


@pytest.fixture
def run(tmp_path):
    """Run jobs with a scripted pool; gives the pool, the watcher and the lines."""

    def run(jobs, reply=make, *, num_workers=1, batch_size=1):
        pool, heard = ScriptedPool(reply, num_workers), Heard()
        try:
            run_list(
                Path("list"),
                jobs,
                tmp_path / "out",
                batch_size=batch_size,
                open_pool=lambda num_batches, aside: pool,
                watcher=heard,
            )
        finally:
            lines = (tmp_path / "out" / "results.jsonl").read_text().count("\n")
            entries = read_entries(tmp_path / "out")
            assert lines == len(entries)
            assert not list((tmp_path / "out").glob(".*"))
        return pool, heard, entries

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_job_gets_one_line_and_its_files_and_a_second_run_nothing(check, run, tmp_path, caplog):
    jobs = check(a={"samples": 2}, b={"format": "png"}, c={"format": "mp4"})
    pool, heard, entries = run(jobs, num_workers=2)
    assert names(tmp_path / "out") == ["a-2.npy", "a.npy", "b", "c.mp4", "results.jsonl"]
    assert sorted(heard.paths) == ["a-2.npy", "a.npy", "b", "c.mp4"]
    assert entries["a"].outputs == ("a.npy", "a-2.npy")
    assert {entry.status for entry in entries.values()} == {"done"}
    assert entries["a"].seconds == 2.0
    assert heard.endings == dict.fromkeys("abc", "")
    assert heard.shares == sorted(heard.shares)
    assert heard.shares[-1] == 1
    assert pool.closed
    assert "a warning" in caplog.text
    pool, heard, again = run(jobs)
    assert (pool.given, heard.paths, again) == ([], [], entries)


def test_a_failing_job_stops_no_other_and_is_tried_again_by_the_next_run(check, run):
    def reply(name, orders):
        return TasksFailed("no luck", by_rule=True) if orders[0].name == "b-2.npy" else make(name, orders)

    jobs = check(a={}, b={"samples": 3}, c={})
    pool, heard, entries = run(jobs, reply)
    assert {key: entry.status for key, entry in entries.items()} == {"a": "done", "b": "failed", "c": "done"}
    assert (entries["b"].error, entries["b"].outputs) == ("no luck", ("b.npy", "b-3.npy"))
    assert heard.endings == {"a": "", "b": "no luck", "c": ""}
    assert pool.replaced == []
    pool, _, entries = run(jobs)
    assert [outputs for _, outputs in pool.given] == [["b-2.npy"]]
    assert (entries["b"].status, entries["b"].outputs) == ("done", ("b.npy", "b-2.npy", "b-3.npy"))


def test_a_job_whose_worker_dies_is_made_again_and_given_up_after_three(check, run):
    deaths = {"b.npy": 2, "c.npy": 3}

    def reply(name, orders):
        [order] = orders
        deaths[order.name] = deaths.get(order.name, 0) - 1
        return WorkerLost("was ended by SIGKILL") if deaths[order.name] >= 0 else make(name, orders)

    _, heard, entries = run(check(a={}, b={}, c={}, d={}), reply, num_workers=2)
    assert {key: entry.status for key, entry in entries.items()} == {
        "a": "done",
        "b": "done",
        "c": "failed",
        "d": "done",
    }
    assert entries["b"].attempts == 3
    assert entries["c"].error == "its worker was ended by SIGKILL, 3 times"
    assert heard.lost_workers == ["was ended by SIGKILL"] * 5
    assert sorted(heard.paths) == ["a.npy", "b.npy", "d.npy"]


def test_of_a_batch_that_fails_each_is_made_on_its_own(check, run):
    def reply(name, orders):
        keys = [order.clip.item for order in orders]
        return TasksFailed("no luck", by_rule=False) if "b" in keys else make(name, orders)

    pool, _, entries = run(check(a={}, b={}, c={}, d={}), reply, batch_size=3)
    given = [outputs for _, outputs in pool.given]
    assert given == [["a.npy", "b.npy", "c.npy"], ["a.npy"], ["b.npy"], ["c.npy"], ["d.npy"]]
    assert [key for key, entry in entries.items() if entry.status == "failed"] == ["b"]


def test_a_worker_in_no_state_to_go_on_is_replaced(check, run):
    def reply(name, orders):
        broken = TasksFailed("CUDA error", by_rule=False, broken=True)
        return broken if orders[0].clip.item == "a" else make(name, orders)

    pool, _, entries = run(check(a={}, b={}), reply)
    assert pool.replaced == ["worker 1"]
    assert (entries["a"].status, entries["b"].status) == ("failed", "done")


def test_a_picture_that_is_gone_by_now_fails_its_job_alone(check, run, picture, tmp_path):
    other = tmp_path / "other.png"
    other.write_bytes(picture.read_bytes())
    jobs = check(a={"pictures": (other,)}, b={})
    other.unlink()
    _, _, entries = run(jobs)
    assert (entries["a"].status, entries["b"].status) == ("failed", "done")
    assert "other.png cannot be read any more" in entries["a"].error


def test_a_changed_job_replaces_its_files_whatever_their_kind(check, run, tmp_path):
    for seed in (1, 2):
        run(check(a={"format": "png", "options": replace(QUICK, seed=seed)}))
        note = (tmp_path / "out" / "a" / "clip.json").read_text()
    [now] = check(a={"format": "png", "options": replace(QUICK, seed=2)})
    assert now.fingerprint in note


def test_a_model_that_cannot_be_loaded_ends_the_run(check, run, monkeypatch):
    def refusing(by_rule):
        def pool_wait(self, seconds):
            return [WorkerEvent("worker 1", TasksFailed("no such model", by_rule=by_rule))]

        return pool_wait

    monkeypatch.setattr(ScriptedPool, "wait", refusing(True))
    with pytest.raises(InputError, match=r"^no such model$"):
        run(check(a={}))
    monkeypatch.setattr(ScriptedPool, "wait", refusing(False))
    with pytest.raises(MachineError, match="the model could not be loaded: no such model"):
        run(check(a={}))


def test_workers_that_die_while_loading_end_the_run(check, run, monkeypatch):
    monkeypatch.setattr(
        ScriptedPool, "wait", lambda self, seconds: [WorkerEvent("worker 1", WorkerLost("was ended by SIGKILL"))]
    )
    with pytest.raises(MachineError, match=r"3 workers in a row were lost .* is there memory for the model"):
        run(check(a={}))


def test_an_interrupt_at_any_clip_keeps_what_is_there_and_the_next_run_makes_the_rest(check, run, tmp_path):
    jobs = check(a={}, b={}, c={})
    made = []

    def reply(name, orders):
        made.extend(order.name for order in orders)
        return make(name, orders)

    def interrupted(name, orders):
        if len(made) == 2:
            raise KeyboardInterrupt
        return reply(name, orders)

    with pytest.raises(KeyboardInterrupt):
        run(jobs, interrupted)
    assert list(read_entries(tmp_path / "out")) == ["a", "b"]
    run(jobs, reply)
    assert made == ["a.npy", "b.npy", "c.npy"]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_stops_between_the_files_and_their_lines_is_taken_up_by_the_next_run(check, run, after, monkeypatch):
    jobs = check(a={}, b={})
    publish, published = OutputFolder.publish, []

    def stopping(self, product: OutputFiles):
        if len(published) == after:
            raise KeyboardInterrupt
        published.append(product.name)
        return publish(self, product)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "publish", stopping)
        if after == 2:  # before the line of what was published last
            patch.setattr(OutputFolder, "publish", publish)
            patch.setattr("dynamicrafter.jobs.run._entry", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(jobs, batch_size=2)
    pool, _, entries = run(jobs, batch_size=2)
    assert [outputs for _, outputs in pool.given] == ([] if after == 2 else [["a.npy", "b.npy"]])
    assert {entry.status for entry in entries.values()} == {"done"}
    assert len(entries) == 2


def test_an_output_folder_that_cannot_be_made_is_said(check, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file, where a folder for the clips is wanted"):
        run_list(Path("list"), check(a={}), tmp_path / "out", batch_size=1, open_pool=None, watcher=Heard())
    with pytest.raises(OutputError, match=r"there is no folder .*; create it first"):
        run_list(Path("list"), check(a={}), tmp_path / "no" / "out", batch_size=1, open_pool=None, watcher=Heard())


def test_a_full_disk_ends_a_run_at_once_and_keeps_what_is_done(check, run, tmp_path):
    def reply(name, orders):
        full = "out/b.npy could not be written: the disk is full; free some space or choose another folder."
        return TasksFailed(full, by_rule=True) if orders[0].name == "b.npy" else make(name, orders)

    asked = []
    with pytest.raises(MachineError, match="the disk is full"):
        run(check(a={}, b={}, c={}), lambda name, orders: asked.append(orders[0].name) or reply(name, orders))
    assert asked == ["a.npy", "b.npy"]
    assert list(read_entries(tmp_path / "out")) == ["a"], "so that the same command makes the others"
