"""From clips and cards to one film, frame by frame: its memory doesn't grow with the story."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dynamicrafter
from dynamicrafter.errors import InputError
from dynamicrafter.media.completeness import is_cut_short
from dynamicrafter.media.film import write_film
from dynamicrafter.media.video import read_metadata
from dynamicrafter.story.cards import draw_card
from dynamicrafter.story.clips import ShotContent, card_frame
from dynamicrafter.story.format import TitleCard
from dynamicrafter.story.kept import KeptShots, Records
from dynamicrafter.story.plan import Crossfade, StoryPlan, plan_metadata

_MADE_ON = ("generator", "device", "dtype", "torch")  # of a clip's metadata


def film_metadata(plan: StoryPlan, records: Records, *, crf: int | None) -> dict[str, Any]:
    """What the film's file says of its making; `key` is the hash of all that decides its content."""
    metadata = plan_metadata(plan) | {
        "generator": f"dynamicrafter {dynamicrafter.__version__}",
        "sound": None if plan.story.sound is None else _file_digest(plan.story.sound),
        "made_on": _distinct(
            {name: record.metadata.get(name) for name in _MADE_ON} for record in records.values()
        ),
        "output": {"fps": str(plan.story.fps), "crf": crf},
    }  # fmt: skip
    frames = [records[clip.key].frames for clip in plan.clips]
    cards = [card_frame(shot, plan.size).digest for shot in plan.story.shots if isinstance(shot, TitleCard)]
    content = json.dumps([metadata, frames, cards], sort_keys=True).encode()
    return metadata | {"key": hashlib.sha256(content).hexdigest()}


def is_made(path: Path, metadata: dict[str, Any]) -> bool:
    """Whether the film is there, complete, and what it would be now."""
    try:
        with path.open("rb") as file:
            if is_cut_short(file):
                return False
        return read_metadata(path).get("key") == metadata["key"]
    except (InputError, OSError):
        return False


def join(
    path: Path,
    plan: StoryPlan,
    shots: KeptShots,
    records: Records,
    *,
    metadata: dict[str, Any],
    crf: int | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> None:
    """Write the film; it appears under its name only when it is complete.

    Args:
        shots: locked; the film is written in its folder.
        on_frame: called after each frame with the number of frames done.

    Raises:
        InputError: a kept frame or the sound can't be read.
        OutputError: the film can't be written.
    """

    def counted() -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames_of(plan, shots, records), start=1):
            yield frame
            if on_frame is not None:
                on_frame(number)

    write_film(
        path,
        counted(),
        num_frames=plan.num_frames,
        size=plan.size,
        fps=plan.story.fps,
        metadata=metadata,
        crf=crf,
        sound=plan.story.sound,
        within=shots.folder,
    )


def frames_of(plan: StoryPlan, shots: KeptShots, records: Records) -> Iterator[np.ndarray]:
    """The film's frames in order, uint8 (h, w, 3)."""
    for part in plan.timeline:
        if isinstance(part, Crossfade):
            left = _frames(part.left, part.left.num_frames - part.num_frames, part.num_frames, plan, shots, records)
            right = _frames(part.right, 0, part.num_frames, plan, shots, records)
            for index, (below, above) in enumerate(zip(left, right, strict=True), start=1):
                yield blended(below, above, index / (part.num_frames + 1))
        else:
            yield from _frames(part.content, part.start, part.num_frames, plan, shots, records)


def blended(below: np.ndarray, above: np.ndarray, share: float) -> np.ndarray:
    """Two frames over one another; `share` of 0 shows the first, 1 the second."""
    return np.rint(below * np.float32(1 - share) + above * np.float32(share)).astype(np.uint8)


def _frames(
    content: ShotContent, start: int, num_frames: int, plan: StoryPlan, shots: KeptShots, records: Records
) -> Iterator[np.ndarray]:
    if isinstance(content, TitleCard):
        card = draw_card(content.look, plan.size)
        for _ in range(num_frames):
            yield card
    else:
        for index in range(start, start + num_frames):
            yield shots.frame(content, index, records[content.key])


def _distinct(values: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
