"""`animate`, `interpolate`, `loop` and `text`: check everything that is cheap to check, then load, make and write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from dynamicrafter import hub
from dynamicrafter.cli import plan
from dynamicrafter.cli.commands import MakeCommand
from dynamicrafter.cli.console import Progress, Stopped, hide_loading_bars, importing, time_in_words, warn
from dynamicrafter.errors import InputError
from dynamicrafter.hub.read_ahead import read_ahead
from dynamicrafter.media.formats import find_format
from dynamicrafter.media.video import check_output
from dynamicrafter.presets import BUNDLED
from dynamicrafter.specs.clip import CheckedClip, check_clip

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.specs.model import ModelDescription, ModelSpec


def run(command: MakeCommand) -> None:
    """Make the takes one after the other; each one's path goes to stdout once its file is complete.

    Raises:
        InputError: whatever can be seen to be wrong, most of it before a model is loaded.
        Stopped: interrupted when some takes were written already.
    """
    began = time.monotonic()
    progress = Progress(quiet=command.output.quiet)
    spec = command.spec().loaded()
    paths = _check_outputs(command)
    check_adapters(command.model)
    if command.output.dry_run:
        plan.show(spec, _chosen(command, progress))
        return
    model = describe_model(_chosen(command, progress), progress)
    clip = check_clip(spec, model.preset, motions=model.motions)
    command.output.form.check(clip.options.size, path=paths[0])
    warn(clip.notes)
    animator = load_animator(model.spec, progress)
    if command.repeats is not None:
        from dynamicrafter.cli.like import warn_of_differences

        warn_of_differences(command.repeats, animator)
    _tell_plan(clip, animator, progress)
    animator.pipeline.set_progress_bar_config(disable=True)
    written: list[Path] = []
    try:
        for number, path in enumerate(paths, start=spec.sample):
            progress.start()
            take = replace(clip, spec=replace(spec, sample=number))
            [made] = animator.run([take], on_step=progress.on_step)
            made.save(path, fps=command.output.fps, crf=command.output.crf, format=command.output.format)
            print(path, flush=True)
            written.append(path)
            progress.phase(f"{progress.pace()}; {time_in_words(time.monotonic() - began)} in all")
    except KeyboardInterrupt:
        if not written:
            raise
        raise Stopped(f"stopped; {len(written)} of {len(paths)} takes were written") from None
    finally:
        progress.close()


def check_adapters(model: ModelSpec) -> None:
    """Raises InputError unless every file of --lora holds adapters."""
    if model.lora:
        from dynamicrafter.pipeline.lora import check_lora_file

        for adapter in model.lora:
            check_lora_file(adapter.path)


def _chosen(command: MakeCommand, progress: Progress) -> ModelSpec:
    """The model with its name, which is told where it was not given."""
    if command.model.name is None:
        local = hub.best_local(command.mode)
        where = "the small model of the package" if local.preset == BUNDLED.name else local.path
        progress.phase(f"No --model given; using {local.preset} ({where})")
    return command.model.chosen((command.mode,))


def describe_model(spec: ModelSpec, progress: Progress) -> ModelDescription:
    """Say what is told of a model before it is loaded, its files asked for meanwhile."""
    progress.phase(f"Loading {spec.name}…")
    read_ahead(str(spec.name))
    with importing():
        from dynamicrafter.pipeline.describing import describe
    hide_loading_bars(keep_downloads=spec.download and not progress.quiet)
    return describe(spec)


def load_animator(spec: ModelSpec, progress: Progress) -> Animator:
    """Load a model, the slow part of starting."""
    with importing():
        from dynamicrafter.animator.animator import Animator

    hide_loading_bars(keep_downloads=spec.download and not progress.quiet)
    return Animator.load(spec)


def _tell_plan(clip: CheckedClip, animator: Animator, progress: Progress) -> None:
    """Say what is done to make the clips fit, where anything is."""
    made = animator.plan_of(clip)
    if made.measures:
        for label, text in made.describe():
            progress.phase(f"{label}: {text}")


def _check_outputs(command: MakeCommand) -> list[Path]:
    output = command.output
    if str(output.output) == "-":
        raise InputError("output must be a file, got -, which would be standard output; try -o clip.mp4.")
    pictures = [picture for picture in command.pictures if picture is not None]
    paths = take_paths(output.output, pictures, num_takes=output.samples, format=output.format)
    for path in paths:
        check_output(path, fps=output.fps, crf=output.crf, format=output.format)
        if any(_same_file(path, picture) for picture in pictures):
            raise InputError(f"output {path} would replace the picture that the clip is made of; choose another name.")
    return paths


def take_paths(output: Path | None, pictures: Sequence[Path], *, num_takes: int, format: str | None) -> list[Path]:  # noqa: A002
    """Where the takes go: FILE, FILE-2, FILE-3, …

    Args:
        output: the first one's file, which may be there already.
        pictures: without `output`, the file is named after the first, in the current folder, and names that are taken
            are passed over.
        format: gives the extension of such a file.
    """
    if output is not None:
        return [_numbered(output, number) for number in range(1, num_takes + 1)]
    name = pictures[0].stem if pictures else "clip"
    first = Path(name + find_format(Path("clip"), format or "mp4").suffix)
    free = (path for number in count(1) if not (path := _numbered(first, number)).exists())
    return [next(free) for _ in range(num_takes)]


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)
