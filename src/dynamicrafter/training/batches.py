"""Which positions a process takes, and the workers that read them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from dynamicrafter.data.stream import ClipStream, Sample
from dynamicrafter.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How a step's clips are divided: `accumulation` rounds of `batch_size` clips on each of `world` processes.

    Step k takes the positions k·B … (k+1)·B − 1, B being `global_batch`; round by round, and in a round process by
    process, so that two processes read the micro-batches that one would with twice the accumulation.
    """

    batch_size: int
    accumulation: int
    rank: int = 0
    world: int = 1

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.accumulation * self.world

    def start(self, step: int, micro: int) -> int:
        """Position of the first clip of this process's micro-batch."""
        return ((step * self.accumulation + micro) * self.world + self.rank) * self.batch_size

    def positions(self, step: int, micro: int) -> list[int]:
        """Positions of this process's micro-batch."""
        start = self.start(step, micro)
        return list(range(start, start + self.batch_size))


def micro_batches(
    stream: ClipStream, share: Share, *, first_step: int, last_step: int, workers: int
) -> Iterator[list[Sample]]:
    """This process's micro-batches of the steps from `first_step` up to, not including, `last_step`.

    Raises:
        InputError: as the stream does, wherever it is read.
    """
    batches = (
        share.positions(step, micro) for step in range(first_step, last_step) for micro in range(share.accumulation)
    )
    loader = DataLoader(
        _Positions(stream.draw),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_leave_signals_to_the_parent,
    )
    for batch in loader:
        for sample in batch:
            if isinstance(sample, InputError):
                raise sample
        yield batch


class _Positions(Dataset):
    def __init__(self, draw: Callable[[int], Sample]) -> None:
        self._draw = draw

    def __getitem__(self, index: int) -> Sample | InputError:
        try:
            return self._draw(index)
        except InputError as error:  # as a value, for the loader would wrap it into a page of text
            return error


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the workers must live on until the parent has used their clips."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
