"""`story`: shots, title cards and transitions in a file become one film, which goes on where it was stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from dynamicrafter import hub
from dynamicrafter.cli.commands import Switch
from dynamicrafter.cli.console import Progress, Stopped, importing, one_line, time_in_words
from dynamicrafter.cli.like import is_ours
from dynamicrafter.cli.story_progress import StoryProgress
from dynamicrafter.errors import InputError
from dynamicrafter.specs.model import ModelDescription, ModelSpec

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.story.format import Story
    from dynamicrafter.story.kept import KeptShots, Records
    from dynamicrafter.story.plan import Crossfade, Segment, StoryPlan


@dataclass(frozen=True, kw_only=True)
class StoryCommand:
    """Make a film of a file that lists shots and transitions: dynamicrafter story trip.yaml -o trip.mp4

    Each shot is kept in a folder beside the film (trip.shots), so that the same command goes on where it was stopped,
    and makes again only what was changed.
    """

    story: Annotated[Positional[Path], arg(metavar="STORY", help_behavior_hint="")]
    """The YAML file; pictures in it are looked for from its folder."""
    output: Annotated[
        Path | None,
        arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(default: named after the story, in this folder)"),
    ] = None
    """The film to write or replace: mp4, or webm where there is no sound."""
    crf: Annotated[int | None, arg(help_behavior_hint="(default: mp4 16, webm 24)")] = None
    """Quality of mp4 (0 to 51) and webm (0 to 63); a smaller number looks better and makes a larger file."""
    dry_run: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Show what the film will be, and what is kept and what would be made; make nothing."""
    quiet: Annotated[Switch, arg(aliases=["-q"], help_behavior_hint="")] = False
    """Say nothing but warnings, errors and the result's path."""
    transition_model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: as for the shots)")] = (
        None
    )
    """The model that makes generated transitions, such as interp; it wears no adapters of --lora."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """What makes the shots, and on what; goes before what the file says."""


def run(command: StoryCommand) -> None:
    """Make what is missing, join it, and print the film's path once it is complete.

    Raises:
        InputError: whatever is wrong with the story, found before a model is loaded.
        Stopped: interrupted; what was made until then is kept.
    """
    from dynamicrafter.story.format import read_story
    from dynamicrafter.story.kept import KeptShots

    said = Progress(quiet=command.quiet)
    story = read_story(command.story)
    output = command.output or Path(f"{command.story.stem}.mp4")
    target = _checked_output(command, story, output)
    said.phase(f"Reading {command.story}…")
    plan = _planned(command, story, said)
    shots = KeptShots(target.with_suffix(".shots"))
    if command.dry_run:
        print("\n".join(_table(plan, shots)))
        return
    said.phase(_summary(plan))
    with shots.locked():
        _make(command, plan, shots, target, said)
    print(output)


def _checked_output(command: StoryCommand, story: Story, output: Path) -> Path:
    """The film's path, links followed.

    Raises:
        InputError: it can't be written there, or not so.
    """
    from dynamicrafter.media.film import film_format
    from dynamicrafter.media.video import check_output

    if str(output) == "-":
        raise InputError("output must be a file, got -, which would be standard output; try -o story.mp4.")
    film_format(output, sound=story.sound is not None)
    check_output(output, fps=story.fps, crf=command.crf)
    target = Path(os.path.realpath(output))
    if story.sound is not None and target.exists() and target.samefile(story.sound):
        raise InputError(f"output {output} would replace the sound that the film is to have; choose another name.")
    return target


def _planned(command: StoryCommand, story: Story, said: Progress) -> StoryPlan:
    with importing():
        import dynamicrafter.pipeline  # noqa: F401
    from dynamicrafter.pipeline.describing import describe
    from dynamicrafter.story.plan import plan_story

    asked = replace(command.model, download=command.model.download and not command.dry_run)
    name = _model_name(asked.name, story.model, download=asked.download) or _best_model(said)
    model = describe(replace(asked, name=name))
    other = _model_name(command.transition_model, story.transition_model, download=asked.download)
    between = None if other is None else describe(replace(asked, name=other, preset=None, encoders=None, lora=()))
    return plan_story(story, model=model, transition_model=between)


def _model_name(flag: str | None, written: str | None, *, download: bool) -> str | None:
    if flag is None and written is not None and download and not is_ours(written):
        raise InputError(
            f"the story asks for the model {written!r}, which is not downloaded on a file's word; run it with "
            f"--model or --transition-model {written} if you trust it."
        )
    return written if flag is None else flag


def _best_model(said: Progress) -> str:
    name = hub.best_local("animate").preset
    assert name is not None
    said.phase(f"No model named; using {name}")
    return name


def _make(command: StoryCommand, plan: StoryPlan, shots: KeptShots, target: Path, said: Progress) -> None:
    from dynamicrafter.story.joining import film_metadata, is_made, join
    from dynamicrafter.story.making import find_kept, make_clips

    began = time.monotonic()
    progress = StoryProgress(plan, find_kept(plan, shots), quiet=command.quiet)

    def load(model: ModelDescription) -> Animator:
        return _loaded(model, plan, command, said)

    try:
        records = make_clips(plan, shots, load=load, callbacks=progress)
        metadata = film_metadata(plan, records, crf=command.crf)
        if is_made(target, metadata):
            said.phase("The film is there already, and is what it would be now")
            return
        join(target, plan, shots, records, metadata=metadata, crf=command.crf, on_frame=progress.on_frame)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped; {progress.num_there} of {len(plan.clips)} clips are kept in {shots.folder.name}, and the same "
            f"command goes on from there"
        ) from None
    finally:
        progress.close()
    said.phase(
        f"Made {progress.num_made} clips, kept {progress.num_kept}; {time_in_words(time.monotonic() - began)} in all"
    )


def _loaded(model: ModelDescription, plan: StoryPlan, command: StoryCommand, said: Progress) -> Animator:
    from dynamicrafter.cli.make import load_animator

    animator = load_animator(model.spec, said)
    animator.pipeline.set_progress_bar_config(disable=True)
    return animator


def _summary(plan: StoryPlan) -> str:
    height, width = plan.size
    shots = len(plan.story.shots)
    length = f"{plan.num_frames} frames, {time_in_words(float(plan.seconds))} at {plan.story.fps} frames a second"
    return f"{shots} shots, {length}, {width}×{height}"


def _table(plan: StoryPlan, shots: KeptShots) -> Iterator[str]:
    """The plan as a person reads it."""
    from dynamicrafter.story.making import find_kept

    there = find_kept(plan, shots)
    yield one_line(_summary(plan))
    yield ""
    yield f"{'start':>8}  {'frames':>6}  {'what':<44}  state"
    start = 0
    for part in plan.timeline:
        what, state = _described(part, there)
        yield f"{float(start / plan.story.fps):>7.2f}s  {part.num_frames:>6}  {one_line(what):<44}  {state}".rstrip()
        start += part.num_frames
    making = [piece for piece in plan.clips if piece.key not in there]
    yield ""
    yield f"{len(plan.clips) - len(making)} clips kept in {shots.folder.name}, {len(making)} to make"


def _described(part: Segment | Crossfade, there: Records) -> tuple[str, str]:
    from dynamicrafter.story.format import TitleCard
    from dynamicrafter.story.plan import Crossfade

    if isinstance(part, Crossfade):
        return f"crossfade from {part.number} to {part.number + 1}", ""
    content = part.content
    if isinstance(content, TitleCard):
        return f"{part.number}. title {content.look.text.splitlines()[0][:30]!r}", "drawn"
    state = f"kept as {content.folder}" if content.key in there else "to make"
    if content.mode == "interpolate":
        return f"generated from {part.number} to {part.number + 1}", state
    return f"{part.number}. {content.prompt[:38]!r}", state
