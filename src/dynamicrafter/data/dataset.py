"""Clips of a source as training asks for them: by position, with bad files passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.placement import (
    Draws,
    MotionUnit,
    draws_at,
    motion_number,
    place_frames,
    record_order,
)
from dynamicrafter.data.reader import framed, opened_clip
from dynamicrafter.data.records import ClipRecord, PackedRecords
from dynamicrafter.data.sources import find_source, read_records
from dynamicrafter.data.stream import Sample
from dynamicrafter.errors import InputError
from dynamicrafter.files.json_files import append_json_line, read_json_lines
from dynamicrafter.files.names import as_stored

_SIZED = 1000  # files
MOST_TRIES = 10_000  # clips in a row; so many bad ones are a folder that isn't there, not bad luck


def open_dataset(config: DataConfig, *, motion_unit: MotionUnit) -> ClipDataset:
    """Read a source's list and make its clips a stream.

    Args:
        motion_unit: the preset's; the motion number of a sample is its stride or its frames per second.

    Raises:
        InputError: the config or the list breaks a rule. Clips themselves are looked at when they are drawn.
    """
    source = find_source(config)
    return ClipDataset(
        PackedRecords(read_records(source, config), root=source.root), config=config, motion_unit=motion_unit
    )


class ClipDataset:
    """A `ClipStream` over records, shuffled anew in each pass.

    A sample follows from the seed, its position and the files, and from nothing that was drawn before; so worker
    processes, ranks, accumulation and a resumed run see the same. Nothing stays open between draws.
    """

    def __init__(self, records: PackedRecords, *, config: DataConfig, motion_unit: MotionUnit) -> None:
        self._records, self._config, self._unit = records, config, motion_unit
        self._unusable: set[int] = set()  # records that fail however they are drawn
        self._skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._records)

    @property
    def fingerprint(self) -> str:
        """What the source lists, and how large its files are (of many, a thousand evenly), as 16 hex digits."""
        count = len(self._records)
        chosen = range(0, count, max(1, count // _SIZED))
        sizes = []
        for index in chosen:
            path = as_stored(self._records[index].path)
            sizes.append(path.stat().st_size if path.is_file() else -1)
        digest = hashlib.sha256(self._records.content())
        digest.update(repr(sizes).encode())
        return digest.hexdigest()[:16]

    @property
    def skipped(self) -> Mapping[str, str]:
        """Clips that this process passed over, and why; `DataConfig.report` has those of all processes."""
        return MappingProxyType(self._skipped)

    def draw(self, position: int) -> Sample:
        """See `ClipStream`. A clip that can't be read is passed over for the next in order.

        Raises:
            InputError: no clip can be read, or thousands in a row can't.
            OutputError: the report can't be written.
        """
        if position < 0:
            raise InputError(f"position must not be negative, got {position}; the first one is 0.")
        count = len(self._records)
        order, place = record_order(count, self._config.seed, position)
        draws = draws_at(self._config.seed, position)
        tries = 0
        for step in range(count):
            index = int(order[(place + step) % count])
            if index in self._unusable:
                continue
            record = self._records[index]
            try:
                return self._read(index, record, draws)
            except InputError as error:
                self._note(record, str(error).removeprefix(f"{record.path} "))
            tries += 1
            if tries == MOST_TRIES:
                break
        key, reason = next(iter(self._skipped.items()))
        which = f"none of {count} clips" if len(self._unusable) == count else f"none of {tries} clips in a row"
        raise InputError(
            f"{self._config.path}: {which} can be used; {key}: {reason} `dynamicrafter data check` lists them."
        )

    def _read(self, index: int, record: ClipRecord, draws: Draws) -> Sample:
        """Read a record's clip.

        What fails before chance has a part in it fails every time, and is not tried again. Damage in the middle may
        miss the next draw; to remember it would make a sample depend on what this process drew before.
        """
        config, placed = self._config, False
        try:
            with opened_clip(record.path) as clip:
                placement = place_frames(
                    clip.info.num_frames,
                    num_frames=config.num_frames,
                    strides=(config.min_stride, config.max_stride),
                    draws=draws,
                )
                placed = True
                frames = clip.pick(placement.slots(config.num_frames), framed(config.size))
                fps = clip.info.fps
        except InputError:
            if not placed:
                self._unusable.add(index)
            raise
        return Sample(
            pixels=torch.from_numpy(np.ascontiguousarray(np.stack(frames).transpose(3, 0, 1, 2))),
            caption=_caption(record, draws.caption, config.motion_caption_probability),
            motion=motion_number(fps, placement.stride, self._unit),
            key=record.key,
        )

    def _note(self, record: ClipRecord, reason: str) -> None:
        if record.key in self._skipped:
            return
        self._skipped[record.key] = reason
        if self._config.report is not None:
            append_json_line(self._config.report, {"clip": record.key, "reason": reason})


def _caption(record: ClipRecord, drawn: float, motion_probability: float) -> str:
    """The text that a draw, uniform in [0, 1), gives a clip: that of its motion, or one of its captions."""
    retold = 0.0 if record.motion_caption is None else motion_probability
    if record.motion_caption is not None and drawn < retold:
        return record.motion_caption
    captions = (record.caption, *record.other_captions)
    return captions[int((drawn - retold) / (1 - retold) * len(captions))]


def read_report(path: Path) -> dict[str, str]:
    """Clips that a run passed over, and why, each once, however many processes met it."""
    entries, _ = read_json_lines(path, remedy="delete the file")
    return {entry["clip"]: entry["reason"] for _, entry in entries}
