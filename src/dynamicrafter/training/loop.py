"""The training loop: what a recipe says, until its steps are done, it is told to stop, or a loss is no number.

A step: read the clips at its positions, encode them, draw noise and drops, sum up gradients, clip, step, average.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dynamicrafter.data.stream import ClipStream
from dynamicrafter.errors import InputError
from dynamicrafter.training import checkpoints, settings
from dynamicrafter.training.batches import Share
from dynamicrafter.training.config import TrainConfig, check, lr_factor
from dynamicrafter.training.draws import draw_sample, seed_dropout
from dynamicrafter.training.encoding import assemble
from dynamicrafter.training.export import read_motions, write_motions
from dynamicrafter.training.history import History
from dynamicrafter.training.optimizers import Average, build_optimizer, copy_into, set_rate
from dynamicrafter.training.parallel import (
    all_losses,
    build_accelerator,
    forget_processes,
    gathered,
    is_sharded,
    optimizer_state,
    restore_optimizer,
    scattered,
    unwrapped,
)
from dynamicrafter.training.sources import ClipSource, open_source
from dynamicrafter.training.trainee import build_trainee
from dynamicrafter.training.validation import validate

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
CLIPS = "clips"  # among the settings of a run: what its clips are
# What may differ when a run goes on: none of it changes what a step computes.
_FREE = (
    *("output", "steps", "minutes", "workers", "device", "checkpoint_", "keep", "tracker"),
    *("validation.", "data.report", CLIPS),
)
_PATHS = ("data.path", "data.root", "cache", "encoders", "model")
_DIVIDES = ("batch_size", "accumulation")  # only their product with the processes counts


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step, as it went: `step` counts from 1; `seconds` since the one before; `clips` taken so far.

    `steps` is how many there will be, of a run that is measured in minutes as its pace so far says.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: steps done, its newest checkpoint, and the signal that stopped it early, if any."""

    step: int
    checkpoint: Path
    signal: int | None
    is_main: bool  # the one process of a launch that reports


OnStep = Callable[[StepReport], None]


def train(
    config: TrainConfig, *, on_step: OnStep | None = None, stream: ClipStream | None = None, pipeline: Any = None
) -> Outcome:
    """Train, from the newest checkpoint in the output folder where there is one.

    Args:
        on_step: called after every step, on the main process.
        stream: clips, instead of those that the settings name.
        pipeline: a model, instead of the one that the settings name; its networks are taken over.

    Raises:
        InputError: a setting breaks its rule, the run in the output folder had others, nothing can be read, or a loss
            is no finite number: then the message names the step and its clips.
    """
    check(config)
    try:
        return _train(_Run(config, stream=stream, pipeline=pipeline), on_step)
    finally:
        forget_processes()


def _train(run: _Run, on_step: OnStep | None) -> Outcome:
    config = run.config
    with run.source as source, _signals() as came:
        batches = source.batches(run.share, first_step=run.step, last_step=run.last_step)
        while run.step < run.last_step and not run.clock.is_over:
            report, stop = run.advance(batches, stop=bool(came))
            if on_step is not None and run.is_main:
                on_step(report)
            last = stop or run.step == run.last_step or run.clock.is_over
            every = config.validation.every
            if last or run.step % config.checkpoint_every == 0 or run.clock.asks_for_checkpoint:
                run.save()
            if every and not stop and run.step % every == 0:
                run.validate()
            if stop:
                break
    return run.finish(came[0] if came else None)


class Clock:
    """What a run's minutes ask for; runs without any are never over.

    The processes of a launch must take the same steps, and so each is to have begun at about the same time: the first
    one to be over waits for no other. Measure runs of several processes in steps.
    """

    def __init__(self, minutes: float | None, checkpoint_minutes: float | None) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self._between = None if checkpoint_minutes is None else 60 * checkpoint_minutes
        self._began = self._saved = time.monotonic()

    @property
    def spent(self) -> float | None:
        """Share of the minutes that have passed, 1 at most; None without minutes."""
        return None if self._seconds is None else min(1.0, (time.monotonic() - self._began) / self._seconds)

    @property
    def is_over(self) -> bool:
        return self.spent == 1.0

    @property
    def asks_for_checkpoint(self) -> bool:
        return self._between is not None and time.monotonic() - self._saved >= self._between

    def note_checkpoint(self) -> None:
        self._saved = time.monotonic()


class _Run:
    """The state between two steps."""

    def __init__(self, config: TrainConfig, *, stream: ClipStream | None, pipeline: Any) -> None:
        self.config = config
        self.accelerator = build_accelerator(config)
        self.is_main = self.accelerator.is_main_process
        self.share = Share(
            batch_size=config.batch_size,
            accumulation=config.accumulation,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        self.settings = run_settings(config, global_batch=self.share.global_batch)
        self.folder = config.output / CHECKPOINTS
        snapshot = self._newest()
        self.source: ClipSource = open_source(config, self.accelerator.device, stream=stream, pipeline=pipeline)
        self.pipeline = self.source.pipeline
        self._check_clips(snapshot)
        trainee = build_trainee(self.pipeline, config)
        optimizer = build_optimizer(trainee, config.optimizer)
        self.model, self.optimizer = self.accelerator.prepare(trainee, optimizer)
        self.trainee, self.parameters = unwrapped(self.accelerator, self.model)
        self.average = None if config.ema is None else Average(self.parameters, config.ema)
        self.step = 0
        self.motions: Counter[int] = Counter()  # of the clips that this process read
        if snapshot is not None:
            self._restore(snapshot)
            self.motions = read_motions(config)
        self.last_step = config.steps if config.minutes is None else sys.maxsize
        self.clock = Clock(config.minutes, config.checkpoint_minutes)
        self.history = History(config.output, self.accelerator, self.settings, step=self.step, tracker=config.tracker)
        self._began = time.monotonic()

    def advance(self, batches: Iterator[Any], *, stop: bool) -> tuple[StepReport, bool]:
        """One step; and whether any process was asked to stop."""
        config, accelerator = self.config, self.accelerator
        position = self.step * self.share.global_batch
        factor = lr_factor(config, self.step, position=position, spent=self.clock.spent)
        set_rate(self.optimizer, factor)
        losses, keys = [], []
        for micro in range(config.accumulation):
            clips = next(batches)
            keys += [clip.key for clip in clips]
            self.motions.update(round(clip.motion) for clip in clips if math.isfinite(clip.motion))
            positions = self.share.positions(self.step, micro)
            draws = [draw_sample(config, position) for position in positions]
            batch = assemble(self.pipeline, clips, draws, self.source.nothing, device=accelerator.device)
            seed_dropout(config, positions[0])
            with accelerator.accumulate(self.model):
                loss = self.model(**batch)
                accelerator.backward(loss.mean())
            losses.append(loss.detach())
        every, stop = all_losses(accelerator, torch.stack(losses), stop=stop)
        gradient: Any = accelerator.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_norm)
        norm = float(gradient)
        self._require_finite(every, norm, keys)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.average is not None:
            self.average.update(self.parameters, step=self.step)
        return self._report(every.double().mean().item(), norm, factor), stop

    def save(self) -> None:
        """Write a checkpoint; every process must call it."""
        trained = gathered(self.parameters)
        average = {} if self.average is None else gathered(self.average.values)
        optimizer = optimizer_state(self.accelerator, self.model, self.optimizer)
        if self.is_main:
            self.history.flush()
            write_motions(self.config, self.motions)
            snapshot = checkpoints.Snapshot(
                step=self.step, settings=self.settings, trained=trained, average=average, optimizer=optimizer
            )
            checkpoints.write(self.folder, snapshot, keep=self.config.keep, part=self.config.checkpoint_part)
        self.clock.note_checkpoint()
        self.accelerator.wait_for_everyone()

    def validate(self) -> None:
        """Make a clip with the weights as they are, or their average; of sharded ones every process makes it."""
        if self.is_main or is_sharded(self.accelerator):
            path = validate(self.source, self.accelerator, self.config, self.average, self.parameters, step=self.step)
            logger.info("validation clip: %s", path)
        self.accelerator.wait_for_everyone()
        self.trainee.train()

    def finish(self, number: int | None) -> Outcome:
        """Close what is open, and say how it went."""
        self.history.close()
        self.accelerator.end_training()
        newest = checkpoints.found(self.folder)[-1]
        return Outcome(step=self.step, checkpoint=newest, signal=number, is_main=self.is_main)

    def _newest(self) -> checkpoints.Snapshot | None:
        """The checkpoint to go on from, held against the settings before anything large is loaded."""
        if self.is_main:
            checkpoints.clear_away(self.folder)
        self.accelerator.wait_for_everyone()
        there = checkpoints.found(self.folder)
        if not there:
            return None
        snapshot = checkpoints.read(there[-1])
        check_same(snapshot.settings, self.settings, folder=self.config.output)
        if self.config.minutes is None and snapshot.step > self.config.steps:
            raise InputError(
                f"steps must be at least {snapshot.step}, which {self.config.output} has reached, got "
                f"{self.config.steps}; raise it, or choose another --output."
            )
        return snapshot

    def _check_clips(self, snapshot: checkpoints.Snapshot | None) -> None:
        """Note what the clips are, and refuse to go on with others."""
        found = self.source.fingerprint
        before = found if snapshot is None else snapshot.settings.get(CLIPS)
        if found is not None and before is not None and before != found:
            raise InputError(
                f"{self.config.output} holds a run with other clips than those that {self.config.data.path} holds now; "
                f"put them back as they were, or choose another --output."
            )
        self.settings[CLIPS] = found

    def _restore(self, snapshot: checkpoints.Snapshot) -> None:
        copy_into(self.parameters, scattered(snapshot.trained, self.parameters))
        if self.average is not None:
            copy_into(self.average.values, scattered(snapshot.average, self.average.values))
        restore_optimizer(self.accelerator, self.model, self.optimizer, snapshot.optimizer)
        self.step = snapshot.step

    def _require_finite(self, losses: torch.Tensor, norm: float, keys: list[str]) -> None:
        if bool(losses.isfinite().all()) and math.isfinite(norm):
            return
        from accelerate.utils import gather_object

        named = sorted(set(gather_object(keys)))
        what = "loss" if not bool(losses.isfinite().all()) else "gradient"
        raise InputError(
            f"{what} is no finite number at step {self.step + 1}, with the clips {', '.join(named)}; look at those, or "
            f"lower optimizer.lr; {len(checkpoints.found(self.folder))} checkpoints from before are kept."
        )

    def _steps_in_all(self) -> int:
        spent = self.clock.spent
        return self.config.steps if spent is None else max(self.step, round(self.step / max(spent, 1e-3)))

    def _report(self, loss: float, norm: float, factor: float) -> StepReport:
        now = time.monotonic()
        seconds, self._began = now - self._began, now
        report = StepReport(
            step=self.step,
            steps=self._steps_in_all(),
            loss=loss,
            grad_norm=norm,
            lr=self.config.optimizer.lr * factor,
            seconds=seconds,
            clips=self.step * self.share.global_batch,
        )
        self.history.add(report.step, {"loss": loss, "grad_norm": norm, "lr": report.lr}, seconds=seconds)
        return report


def run_settings(config: TrainConfig, *, global_batch: int) -> dict[str, Any]:
    """The settings that decide what steps compute, as JSON keeps them, and the rest beside them."""
    plain = dict(settings.flatten(settings.to_plain(replace(config, output=config.output.absolute()))))
    # A run may go on from another folder, where its relative paths would lead elsewhere.
    plain |= {name: os.path.realpath(plain[name]) for name in _PATHS if plain[name] and os.path.exists(plain[name])}  # noqa: PTH110
    return json.loads(json.dumps(plain | {"global_batch": global_batch}))


def check_same(before: Any, now: Any, *, folder: Path) -> None:
    """Hold the settings of a run that goes on against those it began with.

    Raises:
        InputError: names what differs.
    """
    differing = [
        name
        for name in sorted({*before, *now})
        if not _same(name, before.get(name), now.get(name)) and not name.startswith(_FREE) and name not in _DIVIDES
    ]
    if differing:
        name = differing[0]
        more = f" (and {', '.join(differing[1:])})" if differing[1:] else ""
        raise InputError(
            f"{folder} holds a run with {name} {before.get(name)!r}, not {now.get(name)!r}{more}; go on with the same "
            f"settings, or choose another --output."
        )


def _same(name: str, before: Any, now: Any) -> bool:
    """Whether two values of a setting are the same; paths are by what they lead to, however they are spelt."""
    if name in _PATHS and isinstance(before, str) and isinstance(now, str) and os.path.lexists(now):
        return os.path.realpath(before) == os.path.realpath(now)
    return before == now


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Let a first Ctrl-C or SIGTERM wait for the step's end; a second one does what it always does."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before: dict[int, Any] = {}

    def note(number: int, _frame: object) -> None:
        came.append(number)
        for kind, handler in before.items():
            signal.signal(kind, handler)
        logger.warning("Stopping after this step, with a checkpoint; once more stops at once, without one.")

    for kind in (signal.SIGINT, signal.SIGTERM):
        before[kind] = signal.signal(kind, note)
    try:
        yield came
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
