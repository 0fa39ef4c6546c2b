"""`data check`: what a source of clips holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tqdm import tqdm
from tyro.conf import Positional, arg

from dynamicrafter.cli.commands import Switch
from dynamicrafter.cli.console import one_line, say
from dynamicrafter.data.check import DataReport, check_data, spread
from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.suitability import RecipeReport
from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import check_target, one_line_errors, replacing_file
from dynamicrafter.media.contact_sheet import contact_sheet
from dynamicrafter.presets import MotionControl, get_preset
from dynamicrafter.training.recipes import get_recipe

_SHEET_CLIPS = 8
_MOST_SHOWN = 6  # sizes and rates


@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Say what a list or folder of clips holds, which clips training would skip, and why.

    Of each clip the first, middle and last frame are decoded. Exit code 2 if no clip can be used.
    """

    path: Annotated[Positional[Path], arg(metavar="PATH", help_behavior_hint="")]
    """A CSV or JSONL file that lists clips (WebVid's, or one's own), or a folder of videos."""
    kind: Annotated[Literal["auto", "webvid", "table", "folder"], arg(help_behavior_hint="(default: auto)")] = "auto"
    """What the path is, where its columns don't tell."""
    root: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: the list's folder)")] = None
    """Folder that the list's paths start from."""
    captions: Annotated[Literal["required", "optional"], arg(help_behavior_hint="(default: required)")] = "required"
    """Whether every clip must have a caption."""
    recipe: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Judge each clip for this recipe of `train`: rate, phase, length used, shape; and say what to do about it."""
    frames: Annotated[int | None, arg(help_behavior_hint="(default: the recipe's, or 16)")] = None
    """Frames of a sample; shorter clips can't be used."""
    min_stride: Annotated[int | None, arg(help_behavior_hint="(default: the recipe's, or 1)")] = None
    """Least distance of a sample's frames in the clip."""
    max_stride: Annotated[int | None, arg(help_behavior_hint="(default: the recipe's, or 6)")] = None
    """Largest distance of a sample's frames in the clip."""
    min_confidence: Annotated[float | None, arg(help_behavior_hint="")] = None
    """Leave out clips whose dynamic_confidence is lower."""
    sources: Annotated[str | None, arg(metavar="NAMES", help_behavior_hint="")] = None
    """Leave out clips whose dynamic_source_category is none of these, such as camera,person."""
    limit: Annotated[int | None, arg(help_behavior_hint="(default: all)")] = None
    """Look at no more clips than this, spread evenly over the list."""
    workers: Annotated[int | None, arg(help_behavior_hint="(default: the number of cores)")] = None
    """Clips looked at side by side."""
    sheet: Annotated[Path | None, arg(metavar="FILE.png", help_behavior_hint="")] = None
    """Draw a contact sheet: first, middle and last frame of up to 8 clips, a row each."""
    json: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Print JSON."""

    @property
    def config(self) -> DataConfig:
        names = None if self.sources is None else tuple(filter(None, map(str.strip, self.sources.split(","))))
        usual = DataConfig() if self.recipe is None else get_recipe(self.recipe).make().data
        return replace(
            usual,
            path=self.path,
            kind=self.kind,
            root=self.root,
            captions=self.captions,
            min_confidence=self.min_confidence,
            motion_sources=names,
            num_frames=usual.num_frames if self.frames is None else self.frames,
            min_stride=usual.min_stride if self.min_stride is None else self.min_stride,
            max_stride=usual.max_stride if self.max_stride is None else self.max_stride,
        )

    @property
    def motion(self) -> MotionControl | None:
        """The motion numbers that the recipe's model knows."""
        return None if self.recipe is None else get_preset(get_recipe(self.recipe).make().model).motion


def check(command: CheckCommand) -> None:
    """Look at the clips and print what was found.

    Raises:
        InputError: the list can't be read, the sheet can't be written, or no clip can be used.
    """
    if command.sheet is not None:
        if command.sheet.suffix.lower() != ".png":
            raise InputError(f"sheet must end in .png, got {command.sheet}; try {command.sheet.with_suffix('.png')}.")
        check_target(command.sheet.absolute(), folder=False)
    with tqdm(desc="Looking", unit="clip", leave=False, disable=not sys.stderr.isatty()) as bar:

        def on_clip(done: int, count: int) -> None:
            bar.total = count
            bar.update(done - bar.n)

        report = check_data(
            command.config,
            limit=command.limit,
            workers=command.workers,
            sheet_clips=0 if command.sheet is None else _SHEET_CLIPS,
            motion=command.motion,
            on_clip=on_clip,
        )
    print(json.dumps(report.as_json(), indent=2) if command.json else "\n".join(_describe(report, command)))
    if not report.usable:
        key, reason = next(iter(report.problems.items()))
        raise InputError(f"{command.path}: none of {report.looked_at} clips can be used; {key}: {reason}")
    if command.sheet is not None:
        _draw(report, command.sheet.absolute())


def _draw(report: DataReport, path: Path) -> None:
    if not report.sheet:
        raise InputError("no sheet was drawn, as none of the clips chosen for it can be used; raise --limit.")
    sheet = contact_sheet(np.concatenate([views for _, views in report.sheet]), columns=len(report.sheet[0][1]))
    with one_line_errors(path), replacing_file(path) as aside:
        sheet.save(aside, "PNG")
    say(f"{path}: {', '.join(key for key, _ in report.sheet)}, from above")


def _describe(report: DataReport, command: CheckCommand) -> Iterator[str]:
    for key, problem in report.problems.items():
        yield f"skipped {one_line(key)}: {one_line(problem)}"
    if report.problems:
        yield ""
    kinds = {"webvid": "a WebVid list", "table": "a list of clips", "folder": "a folder"}
    tally = report.tally
    yield f"{one_line(str(command.path))}: {kinds[report.source.kind]}, root {one_line(str(report.source.root))}"
    left_out = tally.unsure + tally.other_sources
    filtered = f", {tally.unsure} left out as unsure, {tally.other_sources} by what moves" if left_out else ""
    yield f"  listed       {tally.listed}{filtered}"
    if tally.least_confidence <= tally.most_confidence:
        yield f"  confidence   {tally.least_confidence:g} to {tally.most_confidence:g} in all that is listed"
    part = "" if report.looked_at == report.clips else f" of {report.clips}"
    yield f"  looked at    {report.looked_at}{part}"
    yield f"  usable       {report.usable}, skipped {len(report.problems)}"
    seconds, frames = spread(report.seconds), spread(report.frames)
    if seconds and frames:
        yield f"  captions     {report.clips - tally.uncaptioned} of {report.clips}; {report.motion_captions} of motion"
        yield (
            f"  length       {seconds['least']:.2f} to {seconds['most']:.2f} s, median {seconds['median']:.2f}, "
            f"{seconds['sum'] / 3600:.2f} h in all; {frames['least']} to {frames['most']} frames"
        )
        yield f"  sizes        {_counts({f'{w}x{h}': n for (h, w), n in report.sizes.most_common()})}"
        yield f"  frames/s     {_counts({f'{rate:g}': n for rate, n in report.rates.most_common()})}"
        if report.converted:
            yield f"  converted    {_counts(dict(report.converted.most_common()))}; see docs/data.md"
        fits = {f"{stride}": n for stride, n in sorted(report.strides.items())}
        yield f"  stride       the largest that fits, up to {command.config.max_stride}: {_counts(fits)}"
    if report.recipe is not None and report.recipe.clips:
        yield from _describe_recipe(report.recipe, command)


def _describe_recipe(report: RecipeReport, command: CheckCommand) -> Iterator[str]:
    yield ""
    for key, clip in report.clips.items():
        if clip.remarks:
            yield f"  {one_line(key)}: {'; '.join(clip.remarks.values())}"
    clips, motion, (height, width) = report.clips.values(), report.motion, report.config.size
    numbers = _range((end for clip in clips for end in clip.motions), "d")
    seconds = _range((end for clip in clips for end in clip.seconds), ".2f")
    yield f"For {command.recipe}:"
    yield f"  good         {report.good} of {len(report.clips)}"
    yield f"  rate         motion number {numbers}; {motion.low} to {motion.high} are known, {motion.default} is usual"
    yield f"  length used  a sample shows {seconds} s, {_range((clip.shown for clip in clips), '.0%')} of its clip"
    yield f"  shape        {width}x{height}, for which {_range((clip.cropped for clip in clips), '.0%')} is cut off"
    for advice in report.advice():
        yield f"  do           {advice}"


def _range(values: Iterable[float], form: str) -> str:
    """The least and the most of values, as one where they read the same."""
    ends = sorted(values)
    first, last = format(ends[0], form), format(ends[-1], form)
    return first if first == last else f"{first} to {last}"


def _counts(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:_MOST_SHOWN]]
    return ", ".join(shown) + f" and {len(counts) - _MOST_SHOWN} more" * (len(counts) > _MOST_SHOWN)
