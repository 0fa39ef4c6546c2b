"""A model's examination: clips of many cases, made as a user would make them, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.carriage import Carried
from dynamicrafter.evaluation.cases import Case, motion_of
from dynamicrafter.evaluation.fidelity import reconstruct
from dynamicrafter.evaluation.motion import CameraMotion, NominalMotion
from dynamicrafter.evaluation.report import ClipReport, Question, as_json, evaluate_clip, means

_KEPT = ("psnr", "energy")
_MONOTONE = {True: "; monotone", False: "; not monotone", None: ""}


class MadeClip(Protocol):
    """What an animator gives back; frames are uint8 (f, h, w, 3)."""

    @property
    def frames(self) -> np.ndarray: ...


class Maker(Protocol):
    """What the suite needs of `animator.Animator`."""

    pipeline: Any

    def animate(self, image: Any, prompt: str = "", **settings: Any) -> MadeClip: ...

    def interpolate(self, first: Any, last: Any, prompt: str = "", **settings: Any) -> MadeClip: ...

    def loop(self, image: Any, prompt: str = "", **settings: Any) -> MadeClip: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A report on each clip, and what they come to; see `summarise`."""

    reports: tuple[ClipReport, ...]
    summary: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return as_json(self.reports, summary=self.summary)


def evaluate_model(
    animator: Maker,
    cases: Iterable[Case],
    *,
    settings: Mapping[str, Any] | None = None,
    on_clip: Callable[[Case, MadeClip, ClipReport], None] | None = None,
) -> Examination:
    """Make every case's clip and measure it.

    Args:
        animator: `animator.Animator`, or what can do the same.
        cases: see `cases.bundled_cases`.
        settings: options for all clips, such as steps and seed; size comes from each case's picture.
        on_clip: called with each finished clip, to save it or to say how far it is.

    Raises:
        InputError: no cases, or the animator refuses one.
    """
    kept: dict[bytes, np.ndarray] = {}

    def remembered(picture: np.ndarray) -> np.ndarray:
        key = picture.tobytes()
        if key not in kept:
            kept[key] = reconstruct(animator.pipeline, picture)
        return kept[key]

    reports = []
    for case in cases:
        began = time.perf_counter()
        clip = _make(animator, case, dict(settings or {}))
        seconds = time.perf_counter() - began
        question = Question(
            name=case.name,
            group=case.kind if case.mode == "animate" else case.mode,
            mode=case.mode,
            prompt=case.prompt,
            expected=case.expected,
            nominal=case.nominal,
            picture=case.picture,
            last_picture=case.last_picture if case.mode == "interpolate" else None,
        )
        details = {"seconds": seconds, "motion": case.motion}
        report = evaluate_clip(clip.frames, question, reconstruct=remembered, details=details)
        reports.append(report)
        if on_clip is not None:
            on_clip(case, clip, report)
    if not reports:
        raise InputError("cases must hold at least one case, got none.")
    return Examination(reports=tuple(reports), summary=summarise(reports))


def _make(animator: Maker, case: Case, settings: dict[str, Any]) -> MadeClip:
    settings |= {"item": case.name, "size": case.picture.shape[:2]}
    if case.motion is not None:
        settings["motion"] = case.motion
    if case.mode == "interpolate":
        return animator.interpolate(case.picture, case.last_picture, case.prompt, **settings)
    return (animator.loop if case.mode == "loop" else animator.animate)(case.picture, case.prompt, **settings)


def summarise(reports: Sequence[ClipReport]) -> dict[str, Any]:
    """What clips come to.

    Returns:
        direction: share of right ones by kind and by family (pan, zoom, rotate, still). speed: for each kind, by motion
        number, the mean ratio to nominal (`ratio`) and the mean size of the motion per frame (`size`), and whether the
        sizes rise and fall with the number as nominal does (`monotone`; None with one number). autoencoder_psnr,
        first_loss: dB. carried: for each frame of pans that was laid over the picture, psnr in dB and energy, a ratio.
        flicker: grey levels. loop_closure: ratio. interpolation: first_loss and last_loss, dB.
        seconds: mean and largest. peak_bytes: the most memory that this process has held so far; None where the system
        doesn't say.
    """
    animated = [report for report in reports if report.mode == "animate"]
    first = [report.first for report in reports if report.first is not None]
    known = [fidelity.psnr + fidelity.loss for fidelity in first if fidelity.loss is not None]
    interpolated = means(report for report in reports if report.mode == "interpolate")
    seconds = [report.details["seconds"] for report in reports if "seconds" in report.details]
    return {
        "clips": len(reports),
        "direction": _accuracy(animated),
        "speed": {kind: _speeds(members) for kind, members in _moving(animated).items()},
        "autoencoder_psnr": float(np.mean(known)) if known else None,
        "first_loss": means(animated).get("first_loss"),
        "carried": _carried(animated),
        "flicker": means(animated).get("flicker"),
        "loop_closure": means(report for report in reports if report.mode == "loop").get("closure"),
        "interpolation": {key: interpolated.get(key) for key in ("first_loss", "last_loss")},
        "seconds": {"mean": float(np.mean(seconds)), "largest": max(seconds)} if seconds else None,
        "peak_bytes": peak_bytes(),
    }


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """A summary as lines to read."""
    lines = [f"direction right   {name:<24} {share:6.1%}" for name, share in summary["direction"].items()]
    for kind, found in summary["speed"].items():
        ratios = ", ".join(f"{ratio:.2f} at motion {number}" for number, ratio in found["ratio"].items())
        lines.append(f"speed of nominal  {kind:<24} {ratios}{_MONOTONE[found['monotone']]}")
    for number, kept in summary["carried"].items():
        lines.append(f"carried in pans   frame {number:<18} {kept['psnr']:.1f} dB, {kept['energy']:.2f} as sharp")
    for title, value, unit in (
        ("autoencoder", summary["autoencoder_psnr"], "dB"),
        ("first frame, below the autoencoder", summary["first_loss"], "dB"),
        ("flicker", summary["flicker"], "grey levels"),
        ("loop closure", summary["loop_closure"], "of neighbours' difference"),
        ("interpolation, first frame below", summary["interpolation"]["first_loss"], "dB"),
        ("interpolation, last frame below", summary["interpolation"]["last_loss"], "dB"),
        ("time for a clip, mean", (summary["seconds"] or {}).get("mean"), "s"),
        ("time for a clip, longest", (summary["seconds"] or {}).get("largest"), "s"),
        ("peak memory", None if summary["peak_bytes"] is None else summary["peak_bytes"] / 1e9, "GB"),
    ):
        if value is not None:
            lines.append(f"{title:<42} {value:7.2f} {unit}")
    return lines


def peak_bytes() -> int | None:
    """The most memory that this process has held, in bytes; None where the system doesn't say."""
    import sys

    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _accuracy(reports: Iterable[ClipReport]) -> dict[str, float]:
    """Share of right directions by family, then by kind."""
    judged: dict[str, list[bool]] = {}
    for report in reports:
        if report.right is not None and report.expected is not None:
            for name in (report.expected.split()[0] + " (all)", report.expected):
                judged.setdefault(name, []).append(report.right)
    ordered = sorted(judged, key=lambda name: (not name.endswith("(all)"), name))
    return {name: float(np.mean(judged[name])) for name in ordered}


def _carried(reports: Iterable[ClipReport]) -> dict[str, dict[str, float]]:
    """Means over pans of what their frames kept of the picture, by frame number."""
    by_frame: dict[int, list[Carried]] = {}
    for carried in (each for report in reports for each in report.carried):
        by_frame.setdefault(carried.frame, []).append(carried)
    return {
        str(number): {name: float(np.mean([getattr(each, name) for each in by_frame[number]])) for name in _KEPT}
        for number in sorted(by_frame)
    }


def _moving(reports: Iterable[ClipReport]) -> dict[str, list[ClipReport]]:
    kinds: dict[str, list[ClipReport]] = {}
    for report in reports:
        if report.expected not in (None, "still") and report.speed is not None:
            kinds.setdefault(report.expected, []).append(report)
    return kinds


def _speeds(reports: Sequence[ClipReport]) -> dict[str, Any]:
    """Ratios to nominal and sizes of one kind's motion by motion number, in the number's order."""
    numbers = sorted({report.details.get("motion") or 0 for report in reports})
    by_number = {n: [report for report in reports if (report.details.get("motion") or 0) == n] for n in numbers}
    sizes = [float(np.mean([_size(report, report.camera) for report in members])) for members in by_number.values()]
    wanted = [
        _size(members[0], motion_of(str(members[0].expected), members[0].nominal)) for members in by_number.values()
    ]
    return {
        "ratio": {str(n): means(members)["speed"] for n, members in by_number.items()},
        "size": dict(zip(map(str, numbers), sizes, strict=True)),
        "monotone": bool((np.diff(sizes) * np.diff(wanted) > 0).all()) if len(numbers) > 1 else None,
    }


def _size(report: ClipReport, motion: CameraMotion | None) -> float:
    """How large a motion is along the expected one, in that one's unit: negative where it goes the other way."""
    assert motion is not None
    assert report.expected is not None
    one = motion_of(report.expected, NominalMotion(pan=1, zoom=1, rotation=1))
    return sum(getattr(one, name) * value for name, value in asdict(motion).items())
