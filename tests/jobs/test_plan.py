"""What is done, what is missing, and which takes go through the network together."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.jobs.job import JobsError
from dynamicrafter.jobs.ledger import LedgerEntry
from dynamicrafter.jobs.plan import form_batches, make_plan
from dynamicrafter.media.video import write_clip
from quick_jobs import QUICK

SOURCE = Path("list")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def put(folder, job, sample=0, **note):
    note = {"key": job.job.key, "fingerprint": job.fingerprint} | note
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    write_clip(folder / job.job.output_name(sample), frames, fps=Fraction(8), metadata={"job": note})


def entry(job, **values):
    outputs = tuple(map(job.job.output_name, range(job.job.output.samples)))
    usual = {"key": job.job.key, "status": "done", "outputs": outputs, "made_from": job.made_from}
    return {job.job.key: LedgerEntry(**(usual | values))}


def shown(plan):
    return [[take.output for take in batch] for batch in plan.batches]


def test_without_anything_all_is_to_be_made_in_the_lists_order(check, folder):
    plan = make_plan(SOURCE, check(b={"samples": 2}, a={}), folder, {}, batch_size=1)
    assert shown(plan) == [["b.npy"], ["b-2.npy"], ["a.npy"]]
    assert (plan.kept, plan.complete, plan.again) == ({}, [], {})


def test_what_has_a_line_and_its_files_is_done_and_lines_of_other_lists_stay(check, folder):
    done, other = check(a={"samples": 2}, other={})
    for sample in range(2):
        put(folder, done, sample)
    entries = entry(done) | entry(other)
    plan = make_plan(SOURCE, [done], folder, entries, batch_size=1)
    assert (shown(plan), plan.kept, plan.again) == ([], entries, {})


def test_a_file_without_a_line_is_recognised_by_what_it_carries(check, folder):
    complete, half = check(a={}, b={"samples": 2})
    put(folder, complete)
    put(folder, half, 1)
    plan = make_plan(SOURCE, [complete, half], folder, {}, batch_size=1)
    assert shown(plan) == [["b.npy"]]
    assert plan.complete == [complete]
    assert {take.output for take in plan.present} == {"a.npy", "b-2.npy"}


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({"options": replace(QUICK, seed=7)}, "seed changed from its default to 7"),
        ({"prompt": "rain"}, "prompt changed from '' to 'rain'"),
        ({"mode": "loop", "fps": "9"}, "fps changed from its default to '9'; mode changed from 'animate' to 'loop'"),
    ],
)
def test_a_job_that_changed_is_made_again_and_says_why(check, folder, own, why):
    [before], [now] = check(a={}), check(a=own)
    put(folder, before)
    plan = make_plan(SOURCE, [now], folder, entry(before), batch_size=1)
    assert (shown(plan), plan.kept, plan.again) == ([["a.npy"]], {}, {"a": why})
    without_line = make_plan(SOURCE, [now], folder, {}, batch_size=1)
    assert without_line.again == {"a": "its options or pictures changed"}


def test_a_picture_that_changed_or_a_file_that_is_gone_makes_the_job_again(check, folder, picture):
    [before] = check(a={})
    plan = make_plan(SOURCE, [before], folder, entry(before), batch_size=1)
    assert plan.again == {"a": "a.npy is gone"}
    put(folder, before)
    Image.new("RGB", (64, 64), "red").save(picture)
    [now] = check(a={})
    assert make_plan(SOURCE, [now], folder, entry(before), batch_size=1).again == {"a": "the picture changed"}


def test_more_samples_make_only_what_is_missing_and_failed_jobs_are_tried_again(check, folder):
    [before], [now] = check(a={}), check(a={"samples": 3})
    put(folder, before)
    assert shown(make_plan(SOURCE, [now], folder, entry(before), batch_size=1)) == [["a-2.npy"], ["a-3.npy"]]
    failed = entry(before, status="failed", outputs=())
    assert make_plan(SOURCE, [before], folder, failed, batch_size=1).complete == [before]
    (folder / "a.npy").unlink()
    plan = make_plan(SOURCE, [before], folder, failed, batch_size=1)
    assert (shown(plan), plan.kept, plan.again) == ([["a.npy"]], {}, {})


def test_what_no_job_made_is_not_replaced(check, folder):
    jobs = check(a={}, b={}, c={"format": "png"})
    (folder / "a.npy").write_text("mine")
    put(folder, jobs[1], key="another")
    (folder / "c").mkdir()
    with pytest.raises(JobsError) as caught:
        make_plan(SOURCE, jobs, folder, {}, batch_size=1)
    assert [problem.partition(" is there already")[0] for problem in caught.value.problems] == [
        f"list, {key}: {folder / name}" for key, name in (("a", "a.npy"), ("b", "b.npy"), ("c", "c"))
    ]


def test_batches_come_from_the_list_alone(check, folder):
    other = {"options": replace(QUICK, steps=2)}
    jobs = check(a={}, b=other, c={}, d={"samples": 2}, e=other)
    batches = [[take.output for take in batch] for batch in form_batches(jobs, 3)]
    assert batches == [["a.npy", "c.npy", "d.npy"], ["b.npy", "e.npy"], ["d-2.npy"]]
    put(folder, jobs[2])
    plan = make_plan(SOURCE, jobs, folder, entry(jobs[2]), batch_size=3)
    assert shown(plan) == [["a.npy", "d.npy"], ["b.npy", "e.npy"], ["d-2.npy"]]


def test_a_batch_that_a_kill_left_without_lines_is_made_whole_unless_all_of_it_is_there(check, folder):
    jobs = check(a={}, b={}, c={})
    put(folder, jobs[0])
    assert shown(make_plan(SOURCE, jobs, folder, {}, batch_size=2)) == [["a.npy", "b.npy"], ["c.npy"]]
    put(folder, jobs[1])
    plan = make_plan(SOURCE, jobs, folder, {}, batch_size=2)
    assert (shown(plan), plan.complete) == ([["c.npy"]], jobs[:2])


def test_what_decides_a_job_is_plain_json(check):
    [job] = check(a={"options": replace(QUICK, size=(64, 128))})
    assert job.made_from == json.loads(json.dumps(job.made_from))
    assert job.made_from["options"] == {"steps": 1, "frames": 2, "guidance": 1.0, "size": [64, 128]}
