"""From clips to a report: what was measured of each, means by group, as JSON or as a table to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.carriage import Carried, measure_carried
from dynamicrafter.evaluation.closure import loop_closure, window_seam
from dynamicrafter.evaluation.fidelity import Fidelity, compare
from dynamicrafter.evaluation.flicker import LightChange, flicker, light_change
from dynamicrafter.evaluation.frames import check_clip
from dynamicrafter.evaluation.joints import Joints, first_jump, measure_joints
from dynamicrafter.evaluation.motion import (
    SMALLEST_SIDE,
    CameraMotion,
    Kind,
    LocalMotion,
    NominalMotion,
    classify,
    measure_motion,
    speed_along,
)

if TYPE_CHECKING:
    from dynamicrafter.evaluation.similarity import ClipTowers

Reconstruct = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What a clip is held against; whatever is None is not measured.

    name: how the report calls it. group: clips of one group share a line of means. mode: animate, interpolate or loop.
    expected: the camera motion asked for. nominal: its speed; None for the usual. picture, last_picture: uint8
    (h, w, 3), of the clip's size: what the first and the last frame are to show. borders: of windows over time. joints:
    frames that are key pictures. closed: whether the clip goes on from its last frame to its first, as loops do.
    """

    name: str
    group: str = ""
    mode: str = "animate"
    prompt: str = ""
    expected: Kind | None = None
    nominal: NominalMotion | None = None
    picture: np.ndarray | None = None
    last_picture: np.ndarray | None = None
    borders: tuple[int, ...] = ()
    joints: tuple[int, ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReport:
    """What was measured of one clip. Units stand with each measure's function; None was not asked or can't be had.

    found: the camera motion seen. right: whether it is the one expected. speed: along the expected direction, else the
    one found, as a ratio to nominal. jump: from the first frame, where it has a picture. closure: of what loops. seam:
    of clips that were made in windows over time. carried: of pans from a picture, some frames laid over it.
    """

    name: str
    group: str
    mode: str
    prompt: str
    num_frames: int
    size: tuple[int, int]
    expected: Kind | None
    nominal: NominalMotion
    found: Kind | None = None
    right: bool | None = None
    speed: float | None = None
    camera: CameraMotion | None = None
    local: LocalMotion | None = None
    light: LightChange | None = None
    flicker: float | None = None
    first: Fidelity | None = None
    last: Fidelity | None = None
    jump: float | None = None
    closure: float | None = None
    seam: float | None = None
    joints: Joints | None = None
    carried: tuple[Carried, ...] = ()
    text_similarity: float | None = None
    image_similarity: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def evaluate_clip(
    frames: np.ndarray,
    question: Question,
    *,
    reconstruct: Reconstruct | None = None,
    towers: ClipTowers | None = None,
    details: Mapping[str, Any] | None = None,
) -> ClipReport:
    """Measure one clip in every way that its question and its length allow.

    Args:
        frames: (f, h, w, 3), uint8. Motion needs two frames of 32 pixels a side, flicker and closure three.
        question: what it is held against.
        reconstruct: what the autoencoder makes of a picture; gives `Fidelity.loss`.
        towers: give the similarities.
        details: kept in the report as they are.

    Raises:
        InputError: frames of another type or shape, or a picture of another size than they.
    """
    check_clip(frames)
    height, width = frames.shape[1:3]
    seen: dict[str, Any] = {}
    if len(frames) >= 2 and min(height, width) >= SMALLEST_SIDE:
        seen = _moved(frames, question)
    if len(frames) >= 2:
        seen["light"] = light_change(frames)
    if len(frames) >= 3:
        seen["flicker"] = flicker(frames)
        if question.mode == "loop" or question.closed:
            seen["closure"] = loop_closure(frames)
        if question.borders:
            seen["seam"] = window_seam(frames, question.borders)
    if len(frames) >= 6 and question.joints:
        seen["joints"] = measure_joints(frames, question.joints, closed=question.closed)
    if len(frames) >= 4 and question.picture is not None:
        seen["jump"] = first_jump(frames)
    for name, frame, picture in (("first", frames[0], question.picture), ("last", frames[-1], question.last_picture)):
        if picture is not None:
            if picture.shape != frame.shape:
                raise InputError(f"{name} picture of {question.name} must be {width}x{height}, got {picture.shape}.")
            seen[name] = compare(frame, picture, None if reconstruct is None else reconstruct(picture))
    seen["carried"] = _laid_over(frames, question)
    if towers is not None:
        from dynamicrafter.evaluation.similarity import measure_similarity

        alike = measure_similarity(towers, frames, prompt=question.prompt, picture=question.picture)
        seen |= {"text_similarity": alike.text, "image_similarity": alike.image}
    return ClipReport(
        name=question.name,
        group=question.group,
        mode=question.mode,
        prompt=question.prompt,
        num_frames=len(frames),
        size=(height, width),
        expected=question.expected,
        nominal=question.nominal or NominalMotion.usual(height, width),
        details=dict(details or {}),
        **seen,
    )


def _laid_over(frames: np.ndarray, question: Question) -> tuple[Carried, ...]:
    if question.picture is None or not (question.expected or "").startswith("pan"):
        return ()
    return measure_carried(frames, question.picture)


def _moved(frames: np.ndarray, question: Question) -> dict[str, Any]:
    nominal = question.nominal or NominalMotion.usual(*frames.shape[1:3])
    camera, local = measure_motion(frames)
    verdict = classify(camera, nominal)
    expected = question.expected
    return {
        "found": verdict.kind,
        "right": None if expected is None else verdict.kind == expected,
        "speed": verdict.speed if expected is None else speed_along(camera, expected, nominal),
        "camera": camera,
        "local": local,
    }


@dataclass(frozen=True, slots=True)
class _Column:
    """One number of a report: what tables call it, how it is found, and with how many decimals it is shown."""

    title: str
    value: Callable[[ClipReport], float | None]
    decimals: int


def _fidelity(end: str, name: str) -> Callable[[ClipReport], float | None]:
    return lambda report: getattr(getattr(report, end), name, None)


def _joints(name: str) -> Callable[[ClipReport], float | None]:
    return lambda report: getattr(report.joints, name, None)


def _local(name: str) -> Callable[[ClipReport], float | None]:
    return lambda report: getattr(report.local, name, None)


def _carried(name: str) -> Callable[[ClipReport], float | None]:
    """Of the last frame that was laid over the picture, which has gone furthest."""
    return lambda report: getattr(report.carried[-1], name) if report.carried else None


COLUMNS: dict[str, _Column] = {
    "right": _Column("right", lambda report: None if report.right is None else float(report.right), 2),
    "speed": _Column("speed", lambda report: report.speed, 2),
    "first_psnr": _Column("dB", _fidelity("first", "psnr"), 1),
    "first_loss": _Column("loss", _fidelity("first", "loss"), 2),
    "first_ssim": _Column("SSIM", _fidelity("first", "ssim"), 3),
    "last_psnr": _Column("last dB", _fidelity("last", "psnr"), 1),
    "last_loss": _Column("last loss", _fidelity("last", "loss"), 2),
    "carried_psnr": _Column("carried dB", _carried("psnr"), 1),
    "carried_energy": _Column("energy", _carried("energy"), 2),
    "flicker": _Column("flicker", lambda report: report.flicker, 2),
    "jump": _Column("jump", lambda report: report.jump, 2),
    "joint_pace": _Column("pace", _joints("pace"), 2),
    "joint_jerk": _Column("jerk", _joints("jerk"), 2),
    "joint_colour": _Column("step", _joints("colour"), 2),
    "closure": _Column("closure", lambda report: report.closure, 2),
    "seam": _Column("seam", lambda report: report.seam, 2),
    "local_speed": _Column("local", _local("speed"), 2),
    "shimmer": _Column("shimmer", _local("shimmer"), 1),
    "brightness": _Column("light", lambda report: getattr(report.light, "brightness", None), 1),
    "colour": _Column("colour", lambda report: getattr(report.light, "colour", None), 1),
    "text_similarity": _Column("CLIP text", lambda report: report.text_similarity, 3),
    "image_similarity": _Column("CLIP image", lambda report: report.image_similarity, 3),
    "seconds": _Column("seconds", lambda report: report.details.get("seconds"), 1),
}


def means(reports: Iterable[ClipReport]) -> dict[str, float]:
    """Means of what was measured, and `clips`, how many there are; what no clip has is left out."""
    listed = list(reports)
    found: dict[str, float] = {"clips": len(listed)}
    for name, column in COLUMNS.items():
        values = [value for report in listed if (value := column.value(report)) is not None]
        if values:
            found[name] = float(np.mean(values))
    return found


def as_json(reports: Sequence[ClipReport], **more: Any) -> dict[str, Any]:
    """A report as JSON values: every clip, means by group and of all, and whatever else is given."""
    return {
        "clips": [asdict(report) for report in reports],
        "groups": {group: means(members) for group, members in by_group(reports).items()},
        "all": means(reports),
        **more,
    }


def by_group(reports: Iterable[ClipReport]) -> dict[str, list[ClipReport]]:
    """Reports by their group, in the order of their first clips."""
    groups: dict[str, list[ClipReport]] = {}
    for report in reports:
        groups.setdefault(report.group, []).append(report)
    return groups


def clip_table(reports: Sequence[ClipReport]) -> str:
    """A line for each clip: what was expected, what was found, and the numbers."""
    rows = [
        [
            report.name,
            report.expected or "–",
            report.found or "–",
            *(_shown(column, column.value(report)) for column in _used(reports)),
        ]
        for report in reports
    ]
    return _aligned([["clip", "expected", "found", *(column.title for column in _used(reports))], *rows], words=3)


def group_table(reports: Sequence[ClipReport]) -> str:
    """A line of means for each group, and one for all."""
    used = {name: column for name, column in COLUMNS.items() if column in _used(reports)}
    lines = [(group or "–", means(members)) for group, members in by_group(reports).items()]
    lines.append(("all", means(reports)))
    rows = [
        [name, str(found["clips"]), *(_shown(column, found.get(key)) for key, column in used.items())]
        for name, found in lines
    ]
    return _aligned([["group", "clips", *(column.title for column in used.values())], *rows], words=1)


def _used(reports: Sequence[ClipReport]) -> list[_Column]:
    return [column for column in COLUMNS.values() if any(column.value(report) is not None for report in reports)]


def _shown(column: _Column, value: float | None) -> str:
    return "–" if value is None else f"{value:.{column.decimals}f}"


def _aligned(rows: Sequence[Sequence[str]], *, words: int) -> str:
    """Columns of text, the first few aligned to the left and numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
