"""What of a list is done already, what is missing, and which takes go through the network together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynamicrafter.jobs.job import CheckedJob, JobsError
from dynamicrafter.jobs.ledger import LedgerEntry
from dynamicrafter.jobs.outputs import Found, find_output
from dynamicrafter.specs.options import PER_CLIP

_SHOWN = 40  # characters of a value that changed


@dataclass(frozen=True, slots=True)
class Take:
    """One clip to be made: the job, and which sample of its stream."""

    of: CheckedJob
    sample: int

    @property
    def output(self) -> str:
        return self.of.job.output_name(self.sample)


Batch = tuple[Take, ...]


@dataclass(slots=True)
class BatchPlan:
    """What a run has to do.

    Attributes:
        num_jobs: of the list.
        kept: entries of the account that still hold, by key; those of other lists too.
        complete: jobs whose files are all there, but which have no line yet.
        batches: what is to be made, in the list's order.
        present: takes of unfinished jobs that are there already.
        again: jobs that were done and are made again, by key, and why.
    """

    num_jobs: int
    kept: dict[str, LedgerEntry] = field(default_factory=dict)
    complete: list[CheckedJob] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    present: set[Take] = field(default_factory=set)
    again: dict[str, str] = field(default_factory=dict)


def make_plan(
    source: Path, jobs: Sequence[CheckedJob], folder: Path, entries: Mapping[str, LedgerEntry], *, batch_size: int
) -> BatchPlan:
    """Compare a list with what its output folder holds.

    Batches are formed from the whole list, so that they depend on neither the workers nor what is done. Takes with a
    line in the account then leave theirs; a batch that a kill left without its lines is made again, unless all of its
    files are there, since the rest of it alone would round otherwise.

    Raises:
        JobsError: something that no job made lies where an output is to go.
    """
    plan = BatchPlan(len(jobs), kept=dict(entries))
    state: dict[Take, str] = {}
    problems: list[str] = []
    for job in jobs:
        _look_at(job, folder, plan, state, problems)
    if problems:
        raise JobsError(source, problems)
    for batch in form_batches(jobs, batch_size):
        open_takes = [take for take in batch if state[take] != "recorded"]
        missing = any(state[take] == "missing" for take in open_takes)
        if missing and batch_size > 1:
            plan.batches.append(tuple(open_takes))
        elif missing:
            plan.batches += [(take,) for take in open_takes]
        else:
            plan.present |= set(open_takes)
    to_make = {take for batch in plan.batches for take in batch}
    for job in jobs:
        takes = takes_of(job)
        if job.job.key not in plan.kept and not to_make & set(takes):
            plan.complete.append(job)
    return plan


def takes_of(job: CheckedJob) -> list[Take]:
    return [Take(job, sample) for sample in range(job.job.output.samples)]


def together(job: CheckedJob) -> str:
    """Equal for jobs that may go through the network as one batch."""
    options = {name: value for name, value in job.options.as_dict().items() if name not in PER_CLIP}
    return json.dumps([job.job.clip.mode, options])


def form_batches(jobs: Sequence[CheckedJob], size: int) -> Iterator[Batch]:
    """Takes that share what a batch must share, up to `size` together; by the list alone, in the order of its lines."""
    growing: dict[str, list[Take]] = {}
    batches: list[list[Take]] = []
    for take in (take for job in jobs for take in takes_of(job)):
        alike = together(take.of)
        batch = growing.get(alike)
        if batch is None or len(batch) == size:
            batch = growing[alike] = []
            batches.append(batch)
        batch.append(take)
    return map(tuple, batches)


def _look_at(job: CheckedJob, folder: Path, plan: BatchPlan, state: dict[Take, str], problems: list[str]) -> None:
    """Say of each take whether it is recorded, present without a line, or missing."""
    key = job.job.key
    entry = plan.kept.get(key)
    holds = entry is not None and entry.status == "done" and entry.made_from == job.made_from
    found = {take: _find(take, folder, entry if holds else None) for take in takes_of(job)}
    for take, what in found.items():
        if what == "foreign" and not (entry is not None and take.output in entry.outputs):
            problems.append(
                f"{job.job.where}: {folder / take.output} is there already and was not made by this job; move it "
                f"away, or choose another folder or name."
            )
    if holds and all(what == "same" for what in found.values()):
        state |= dict.fromkeys(found, "recorded")
        return
    plan.kept.pop(key, None)
    state |= {take: "present" if what == "same" else "missing" for take, what in found.items()}
    why = _why(job, entry, found)
    if why:
        plan.again[key] = why


def _find(take: Take, folder: Path, entry: LedgerEntry | None) -> Found:
    """Like `find_output`, believing an entry that holds, so that a long list's files need not all be opened."""
    path = folder / take.output
    if entry is not None and take.output in entry.outputs:
        return "same" if path.exists() else "absent"
    return find_output(path, key=take.of.job.key, fingerprint=take.of.fingerprint)


def _why(job: CheckedJob, entry: LedgerEntry | None, found: Mapping[Take, Found]) -> str:
    """Why a job that was done before is made again; empty where it wasn't."""
    if entry is not None and entry.made_from != job.made_from:
        return "; ".join(_changes(entry.made_from, job.made_from))
    if entry is not None and entry.status == "done":
        gone = [take.output for take, what in found.items() if what == "absent" and take.output in entry.outputs]
        return f"{', '.join(gone)} is gone" if gone else ""
    return "its options or pictures changed" if "earlier" in found.values() else ""


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    flat_then, flat_now = _flat(then), _flat(now)
    for name in sorted(flat_then.keys() | flat_now.keys()):
        before, after = flat_then.get(name), flat_now.get(name)
        if before == after:
            continue
        if name == "pictures":
            yield "the picture changed"
        else:
            yield f"{name} changed from {_short(before)} to {_short(after)}"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options, and what tells the model, beside everything else."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _short(value: Any) -> str:
    text = "its default" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
