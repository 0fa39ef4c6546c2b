"""What a source holds, before a training run finds out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.placement import Draws, place_frames
from dynamicrafter.data.reader import ClipInfo, framed, opened_clip
from dynamicrafter.data.records import ClipRecord, PackedRecords
from dynamicrafter.data.sources import Source, Tally, find_source, read_records
from dynamicrafter.data.suitability import RecipeReport
from dynamicrafter.errors import InputError
from dynamicrafter.presets import MotionControl

_VIEWS = 3  # first, middle and last frame
_THUMBNAIL_WIDTH = 192  # pixels
_AHEAD = 4  # clips waiting for each reader


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCheck:
    """One clip as it was found.

    problem: why it would be passed over; else info, size (height, width) as shown and, where asked for, thumbnails,
    uint8 (3, h, w, 3). remarks: what its frames are converted from, such as HDR.
    """

    key: str
    problem: str | None = None
    info: ClipInfo | None = None
    size: tuple[int, int] = (0, 0)
    thumbnails: np.ndarray | None = None
    remarks: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class DataReport:
    """All clips that were looked at. Counters count usable clips, by (height, width), frames per second, and stride."""

    source: Source
    tally: Tally
    clips: int
    looked_at: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    motion_captions: int = 0
    seconds: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    rates: Counter[float] = field(default_factory=Counter)
    strides: Counter[int] = field(default_factory=Counter)
    converted: Counter[str] = field(default_factory=Counter)
    sheet: list[tuple[str, np.ndarray]] = field(default_factory=list)
    recipe: RecipeReport | None = None

    @property
    def usable(self) -> int:
        return len(self.seconds)

    def as_json(self) -> dict[str, Any]:
        """All but the pictures, as JSON values."""
        tally = asdict(self.tally)
        if self.tally.least_confidence > self.tally.most_confidence:
            tally |= {"least_confidence": None, "most_confidence": None}
        return {
            "kind": self.source.kind,
            "root": str(self.source.root),
            "list": tally,
            "clips": self.clips,
            "looked_at": self.looked_at,
            "usable": self.usable,
            "skipped": self.problems,
            "motion_captions": self.motion_captions,
            "seconds": spread(self.seconds),
            "frames": spread(self.frames),
            "sizes": {f"{width}x{height}": count for (height, width), count in self.sizes.most_common()},
            "frames_per_second": {f"{rate:g}": count for rate, count in self.rates.most_common()},
            "converted": dict(self.converted.most_common()),
            "largest_stride": {str(stride): count for stride, count in sorted(self.strides.items())},
            **({} if self.recipe is None else {"recipe": self.recipe.as_json()}),
        }


def spread(values: list[float] | list[int]) -> dict[str, float] | None:
    """Least, middle, most and sum; None of nothing."""
    if not values:
        return None
    return {"least": min(values), "median": float(np.median(values)), "most": max(values), "sum": sum(values)}


def check_data(
    config: DataConfig,
    *,
    limit: int | None = None,
    workers: int | None = None,
    sheet_clips: int = 0,
    motion: MotionControl | None = None,
    on_clip: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Look at a source's clips: open each, and decode its first, middle and last frame.

    Args:
        limit: look at no more than so many, spread evenly over the list.
        workers: clips looked at side by side; None for as many as there are cores.
        sheet_clips: keep thumbnails of so many usable clips, spread evenly.
        motion: the motion numbers that a recipe's model knows; then each usable clip is judged for that recipe.
        on_clip: called with clips done and clips in all.

    Raises:
        InputError: the list itself can't be used, limit or workers is not positive.
    """
    for name, value in (("limit", limit), ("workers", workers)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be 1 or more, got {value}; leave it out.")
    source, tally = find_source(config), Tally()
    records = PackedRecords(read_records(source, config, tally), root=source.root)
    chosen = _spread_over(len(records), limit or len(records))
    pictured = {chosen[place] for place in _spread_over(len(chosen), sheet_clips)} if sheet_clips else set()
    report = DataReport(source=source, tally=tally, clips=len(records))
    report.recipe = None if motion is None else RecipeReport(config=config, motion=motion)
    jobs = ((records[index], index in pictured) for index in chosen)
    for record, checked in _side_by_side(jobs, config, workers or os.cpu_count() or 1):
        _count(report, record, checked, config)
        if on_clip is not None:
            on_clip(report.looked_at, len(chosen))
    return report


def _spread_over(count: int, wanted: int) -> list[int]:
    wanted = min(count, wanted)
    return [place * count // wanted for place in range(wanted)]


def _side_by_side(
    jobs: Iterator[tuple[ClipRecord, bool]], config: DataConfig, workers: int
) -> Iterator[tuple[ClipRecord, ClipCheck]]:
    """Look at clips in threads, as libav lets go of Python's lock, and give them in order; few wait at a time."""
    waiting: list[tuple[ClipRecord, Future[ClipCheck]]] = []
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            for record, pictured in islice(jobs, workers * _AHEAD - len(waiting)):
                waiting.append((record, pool.submit(check_clip, record, config, pictured=pictured)))
            if not waiting:
                return
            record, future = waiting.pop(0)
            yield record, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_clip(record: ClipRecord, config: DataConfig, *, pictured: bool = False) -> ClipCheck:
    """Find out whether a clip can be used; damage between its first, middle and last frame stays unseen."""
    height, width = config.size
    thumbnail = framed((max(1, round(_THUMBNAIL_WIDTH * height / width)), _THUMBNAIL_WIDTH))
    try:
        with opened_clip(record.path) as clip:
            info = clip.info
            place_frames(
                info.num_frames,
                num_frames=config.num_frames,
                strides=(config.min_stride, config.max_stride),
                draws=Draws(0, 0, 0),
            )
            views = [place * (info.num_frames - 1) // (_VIEWS - 1) for place in range(_VIEWS)]
            # One by one: from one view to the next it is a seek, not a reading of all between.
            seen = [
                clip.pick([view], lambda pixels: (pixels.shape[:2], thumbnail(pixels) if pictured else None))[0]
                for view in views
            ]
            remarks = tuple(clip.remarks)
    except InputError as error:
        return ClipCheck(key=record.key, problem=str(error).removeprefix(f"{record.path} "))
    pictures = [picture for _, picture in seen if picture is not None]
    height, width = seen[0][0]
    thumbnails = np.stack(pictures) if pictures else None
    return ClipCheck(key=record.key, info=info, size=(height, width), thumbnails=thumbnails, remarks=remarks)


def _count(report: DataReport, record: ClipRecord, checked: ClipCheck, config: DataConfig) -> None:
    report.looked_at += 1
    if checked.info is None:
        report.problems[checked.key] = checked.problem or ""
        return
    info = checked.info
    report.motion_captions += record.motion_caption is not None
    report.seconds.append(info.seconds)
    report.frames.append(info.num_frames)
    report.sizes[checked.size] += 1
    report.converted.update(checked.remarks)
    report.rates[round(float(info.fps), 2)] += 1
    fits = (info.num_frames - 1) // max(config.num_frames - 1, 1)
    report.strides[min(fits, config.max_stride) if config.num_frames > 1 else config.max_stride] += 1
    if report.recipe is not None:
        report.recipe.add(checked.key, num_frames=info.num_frames, fps=info.fps, size=checked.size)
    if checked.thumbnails is not None:
        report.sheet.append((checked.key, checked.thumbnails))
