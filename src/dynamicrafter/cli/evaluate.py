"""`evaluate`: measure clips against their pictures and prompts, or a model by clips that it makes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

from dynamicrafter.cli.commands import Silent, Switch
from dynamicrafter.cli.console import Progress, time_in_words
from dynamicrafter.cli.make import load_animator
from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import check_target, one_line_errors, replacing_file
from dynamicrafter.modes import ANIMATE, INTERPOLATE, LOOP, MODE, MODES
from dynamicrafter.presets import BUNDLED
from dynamicrafter.schema import Called, Range, Unset
from dynamicrafter.specs.model import ModelSpec

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.evaluation.cases import Case
    from dynamicrafter.evaluation.motion import NominalMotion
    from dynamicrafter.evaluation.report import ClipReport, Question
    from dynamicrafter.media.fit import Fit
    from dynamicrafter.specs.metadata import StoredClip

logger = logging.getLogger(__name__)

_CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".webp", ".npy")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFlags:
    """What clips are held against, where their files don't say it or say it wrongly."""

    input: Annotated[Path | None, arg(metavar="PICTURE", help_behavior_hint="(default: as the clip's file says)")] = (
        None
    )
    """The picture that the clips were made of."""
    last: Annotated[Path | None, arg(metavar="PICTURE", help_behavior_hint="(default: as the clip's file says)")] = None
    """The picture that the clips are to end on."""
    prompt: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="(default: as the clip's file says)")] = None
    """What was asked for; a camera motion that it names is what the clip is to show."""
    expect: Annotated[str | None, arg(metavar="MOTION", help_behavior_hint="(default: by the prompt)")] = None
    """The camera motion to show: "still", "pan left", "zoom in", "rotate clockwise", …"""
    mode: Annotated[str | None, MODE, Unset("as the clip's file says")] = None
    """How the clips were made: animate, interpolate or loop."""
    nominal: Annotated[
        str | None, arg(metavar="PAN,ZOOM,TURN", help_behavior_hint="(default: a 128th of the side, 1/64, 1/64)")
    ] = None
    """The speed asked for, per frame: pixels of a pan, logarithm of a zoom, radians of a turn, as in 1,0.015,0.015."""

    windows: Annotated[
        str | None, arg(metavar="SIZE,STRIDE", help_behavior_hint="(default: as the clip's file says)")
    ] = None
    """The windows over time that a long clip was made in, as in 16,4; what shows at their borders is its seam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFlags:
    """Networks that judge, and clips to compare with."""

    similarity: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """A complete checkpoint, whose own CLIP towers say how much clips are like their prompt and picture."""
    features: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """I3D's weights as a state dict, for the Fréchet video distance to --reference."""
    reference: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """A folder of real clips, as long as those that are evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFlags:
    """A model's examination, instead of clips."""

    suite: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Make clips with --model and measure them: bundled uses pictures and wordings that the bundled model never saw."""
    num_clips: Annotated[int, Called("clips"), Range(1, 1_000_000)] = 100
    """How many clips the suite makes."""
    kinds: Annotated[str | None, arg(metavar="LIST", help_behavior_hint="(default: all)")] = None
    """Motions that the suite asks for, such as "pan left,pan right"."""
    steps: Annotated[int | None, arg(help_behavior_hint="(default: the model's)")] = None
    """Denoising steps of the suite's clips."""
    save: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Keep the suite's clips in this folder."""


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Measure clips: motion against the prompt, fidelity to the picture, flicker, loops; or examine a model.

    dynamicrafter evaluate clips/*.mp4 --json report.json
    """

    paths: Annotated[tuple[Path, ...], Positional, arg(metavar="[CLIP …]"), Silent] = ()
    """Clips, or folders of clips."""
    asked: AskedFlags = field(default_factory=AskedFlags)
    """What they are held against."""
    judges: JudgeFlags = field(default_factory=JudgeFlags)
    """What judges them besides."""
    suite: SuiteFlags = field(default_factory=SuiteFlags)
    """A model's examination."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """The suite's model; with clips, the one whose autoencoder they are compared with."""
    json: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write everything that was measured here."""
    quiet: Annotated[Switch, arg(aliases=["-q"], help_behavior_hint="")] = False
    """Say nothing but the tables, warnings and errors."""


def run(command: EvaluateCommand) -> None:
    """Print tables on stdout, and write the JSON file where one is named.

    Raises:
        InputError: a clip, picture or option that can't be used; nothing to evaluate.
    """
    _check(command)
    progress = Progress(quiet=command.quiet)
    report = _examine(command, progress) if command.suite.suite else _evaluate(command, progress)
    if command.json is not None:
        target = command.json.absolute()
        with one_line_errors(target), replacing_file(target) as aside:
            aside.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


def _check(command: EvaluateCommand) -> None:
    """Refuse what needs no clip and no model to be seen wrong."""
    suite = command.suite
    if command.json is not None:
        check_target(command.json.absolute(), folder=False)
    if bool(command.paths) == (suite.suite is not None):
        raise InputError(
            "clips or --suite must be given, not both; try dynamicrafter evaluate clip.mp4, or dynamicrafter evaluate "
            "--suite bundled --model NAME."
        )
    if suite.suite is None and suite != SuiteFlags():
        raise InputError("clips, kinds, steps and save go with --suite; leave them out, or pass --suite bundled.")
    if suite.suite is not None and (command.asked, command.judges) != (AskedFlags(), JudgeFlags()):
        raise InputError("a suite knows what it asks for; leave out what clips are held against or judged by.")
    if suite.suite not in (None, BUNDLED.name):
        raise InputError(f"suite must be bundled, got {suite.suite!r}.")
    if suite.suite is None and command.model.lora:
        raise InputError("lora changes the clips of a --suite, and none that are there; leave it out.")
    if suite.suite is not None and command.model.name is None:
        raise InputError("model is missing; name the one to examine: --suite bundled --model NAME.")
    if command.asked.windows is not None:
        _window_and_stride(command.asked.windows)


def _evaluate(command: EvaluateCommand, progress: Progress) -> dict[str, Any]:
    from dynamicrafter.evaluation.fidelity import reconstruct
    from dynamicrafter.evaluation.report import as_json, clip_table, evaluate_clip, group_table

    asked = _checked(command.asked)
    paths, reference = find_clips(command.paths), _reference(command.judges)
    towers = _towers(command)
    animator = None if command.model.name is None else _load(command, progress)
    more: dict[str, Any] = {}
    if command.judges.features is not None:
        progress.phase("Comparing both sets of clips…")
        more["frechet_video_distance"] = _distance(command.judges.features, paths, reference)
    reports: list[ClipReport] = []
    for path in paths:
        frames, question = question_of(path, command.asked, *asked)
        reports.append(
            evaluate_clip(
                frames,
                question,
                reconstruct=None if animator is None else lambda picture: reconstruct(animator.pipeline, picture),
                towers=towers,
            )
        )
        progress.phase(f"{len(reports)}/{len(paths)} {path}")
    print(clip_table(reports))
    if len(reports) > 1:
        print(f"\n{group_table(reports)}")
    if more:
        print(f"\nFréchet video distance to {len(reference)} clips: {more['frechet_video_distance']:.2f}")
    return as_json(reports, **more)


def find_clips(places: Sequence[Path]) -> list[Path]:
    """Clips by name, and those in folders that are no clips themselves.

    Raises:
        InputError: a place that is not there, or a folder without clips.
    """
    found: list[Path] = []
    for place in places:
        if not place.is_dir() or _is_frames(place):
            found.append(place)
            continue
        inside = [path for path in sorted(place.iterdir()) if path.suffix.lower() in _CLIPS or _is_frames(path)]
        if not inside:
            raise InputError(f"{place} holds no clips ({', '.join(_CLIPS)} or folders of frames); name another folder.")
        found += inside
    return found


def _is_frames(path: Path) -> bool:
    return path.is_dir() and (path / "clip.json").is_file()


def question_of(
    path: Path, asked: AskedFlags, expected: Any = None, nominal: NominalMotion | None = None
) -> tuple[np.ndarray, Question]:
    """A clip's frames, and what it is held against: what is asked here, else what its file says.

    Raises:
        InputError: it can't be read, or a picture can't.
    """
    from dynamicrafter.evaluation.asked import asked_motion
    from dynamicrafter.evaluation.report import Question
    from dynamicrafter.media.video import read_clip

    frames, _ = read_clip(path)
    stored = _stored_in(path)
    mode = asked.mode or (stored.mode if stored else ANIMATE)
    prompt = asked.prompt if asked.prompt is not None else stored.prompt if stored else ""
    kind = expected or (asked_motion(prompt) if mode == ANIMATE else None)
    fit: Fit = stored.options.fit if stored else "cover"
    num_stored = len(stored.pictures) if stored else 0
    keys = stored.keys if stored and mode == INTERPOLATE else None
    closed = keys is not None and keys.closed
    return frames, Question(
        name=str(path),
        group=kind or mode,
        mode=mode,
        prompt=prompt,
        expected=kind,
        nominal=nominal,
        picture=_framed(asked.input, stored, 0, frames, fit) if asked.input or num_stored else None,
        last_picture=_framed(asked.last, stored, num_stored - 1, frames, fit)
        if asked.last or (mode == INTERPOLATE and num_stored > 1 and not closed)
        else None,
        borders=_borders(asked.windows, stored, mode, len(frames)),
        joints=() if keys is None else keys.frames,
        closed=closed,
    )


def _borders(given: str | None, stored: StoredClip | None, mode: str, num_frames: int) -> tuple[int, ...]:
    """Where windows over time meet in a clip of so many frames; nowhere in one that is no longer than a window."""
    from dynamicrafter.models.windows import TimeWindows

    made = num_frames + (mode == LOOP)  # whose last frame, a repeat of the first, is left out
    if given is not None:
        size, stride = _window_and_stride(given)
    elif stored is not None and stored.options.frames == made:
        size, stride = stored.options.window, stored.options.window_stride
    else:
        return ()
    if made <= size:
        return ()
    windows = TimeWindows(size, stride, () if mode == ANIMATE else (0, made - 1))
    return tuple(border for border in windows.borders(made) if border < num_frames)


def _window_and_stride(text: str) -> tuple[int, int]:
    try:
        size, stride = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"windows must be two whole numbers, SIZE,STRIDE, got {text!r}; try 16,4.") from None
    return size, stride


def _stored_in(path: Path) -> StoredClip | None:
    from dynamicrafter.media.video import read_metadata
    from dynamicrafter.specs.metadata import read_clip_metadata

    try:
        return read_clip_metadata(read_metadata(path), clip=path)
    except InputError:
        return None


def _framed(
    given: Path | None, stored: StoredClip | None, place: int, frames: np.ndarray, fit: Fit
) -> np.ndarray | None:
    """A picture as the clip's frames show it; None, with a warning, where the one that the file names is gone."""
    from dynamicrafter.cli.like import find_picture
    from dynamicrafter.media.framing import frame_picture
    from dynamicrafter.media.pictures import read_picture

    if given is None:
        assert stored is not None
        try:
            given = find_picture(stored.pictures[place], clip=stored.clip)
        except InputError as error:
            reason = str(error).partition(";")[0]
            logger.warning("%s; its frames are not compared with it (--input PICTURE names it).", reason)
            return None
    return frame_picture(read_picture(given), frames.shape[1:3], fit=fit)


def _checked(asked: AskedFlags) -> tuple[Any, NominalMotion | None]:
    """The expected kind and the nominal speed of the command line."""
    from dynamicrafter.evaluation.asked import parse_kind
    from dynamicrafter.evaluation.motion import NominalMotion

    kind = None if asked.expect is None else parse_kind(asked.expect)
    if asked.nominal is None:
        return kind, None
    try:
        pan, zoom, rotation = (float(part) for part in asked.nominal.split(","))
    except ValueError:
        raise InputError(
            f"nominal must be three numbers, PAN,ZOOM,TURN, got {asked.nominal!r}; try 1,0.015,0.015."
        ) from None
    return kind, NominalMotion(pan=pan, zoom=zoom, rotation=rotation)


def _reference(judges: JudgeFlags) -> list[Path]:
    if (judges.features is None) != (judges.reference is None):
        raise InputError("features and reference go together; pass both --features FILE and --reference FOLDER.")
    return [] if judges.reference is None else find_clips([judges.reference])


def _distance(features: Path, paths: Sequence[Path], reference: Sequence[Path]) -> float:
    from dynamicrafter.evaluation.frechet import frechet_video_distance
    from dynamicrafter.media.video import read_clip

    def read(listed: Sequence[Path]) -> Iterator[np.ndarray]:
        return (read_clip(path)[0] for path in listed)

    return frechet_video_distance(features, list(read(paths)), list(read(reference)))


def _towers(command: EvaluateCommand) -> Any:
    if command.judges.similarity is None:
        return None
    from dynamicrafter.evaluation.similarity import load_towers
    from dynamicrafter.hub import resolve
    from dynamicrafter.memory.devices import choose_device
    from dynamicrafter.pipeline.loading import encoders_for

    flags = command.model
    model = resolve(command.judges.similarity, download=flags.download)
    encoders = None if model.kind == "folder" else encoders_for(model.path, flags.encoders, download=flags.download)
    return load_towers(model, encoders=encoders, device=str(choose_device(flags.device)))


def _load(command: EvaluateCommand, progress: Progress) -> Animator:
    animator = load_animator(command.model, progress)
    animator.pipeline.set_progress_bar_config(disable=True)
    return animator


def _examine(command: EvaluateCommand, progress: Progress) -> dict[str, Any]:
    from dynamicrafter.evaluation.cases import bundled_cases
    from dynamicrafter.evaluation.report import group_table
    from dynamicrafter.evaluation.suite import evaluate_model, summary_lines

    folder = _made_folder(command.suite.save)
    animator = _load(command, progress)
    preset = animator.preset
    motions = sorted({preset.motion.calm, preset.motion.default, preset.motion.lively})
    cases = bundled_cases(
        command.suite.num_clips,
        size=(preset.height, preset.width),
        motions=motions,
        modes=[mode for mode in MODES if mode in preset.modes] or [ANIMATE],
        kinds=None if command.suite.kinds is None else [kind.strip() for kind in command.suite.kinds.split(",")],
    )
    began, done = time.monotonic(), 0

    def told(case: Case, clip: Any, report: ClipReport) -> None:
        nonlocal done
        done += 1
        if folder is not None:
            clip.save(folder / f"{case.name.replace(' ', '-')}.mp4")
        left = (time.monotonic() - began) / done * (len(cases) - done)
        progress.phase(f"{done}/{len(cases)} {case.name}: {report.found}, {time_in_words(left)} left")

    settings = {} if command.suite.steps is None else {"steps": command.suite.steps}
    examination = evaluate_model(animator, cases, settings=settings, on_clip=told)
    print(group_table(examination.reports))
    print("\n" + "\n".join(summary_lines(examination.summary)))
    return examination.as_json()


def _made_folder(folder: Path | None) -> Path | None:
    if folder is not None:
        with one_line_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    return folder
