"""`animate`, `interpolate` and `loop`: check everything that is cheap to check, then load, make and write."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from dynamicrafter import hub
from dynamicrafter.animator.adapters import parse_adapters
from dynamicrafter.animator.keys import KeyShot, plan_gaps
from dynamicrafter.animator.options import AnimateOptions, check_prompt, unwarned
from dynamicrafter.cli import plan
from dynamicrafter.cli.commands import InterpolateCommand, MakeCommand, ModelFlags
from dynamicrafter.cli.console import Progress, Stopped, hush_loading_bars, importing, minutes
from dynamicrafter.errors import InputError
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.hub.read_ahead import read_ahead
from dynamicrafter.media.formats import find_format
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.media.video import check_output
from dynamicrafter.presets import BUNDLED, PRESETS, Preset, get_preset
from dynamicrafter.units import parse_memory

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator, Shot
    from dynamicrafter.animator.clip import Clip

logger = logging.getLogger(__name__)

MOST_TAKES = 1000


def run(command: MakeCommand) -> None:
    """Make the takes one after the other; each one's path goes to stdout once its file is complete.

    Raises:
        InputError: whatever can be seen to be wrong, most of it before a model is loaded.
        Stopped: interrupted when some takes were written already.
    """
    began = time.monotonic()
    paths = check(command)
    progress = Progress(quiet=command.output.quiet)
    if command.output.dry_run:
        plan.show(command, _model_name(command, progress))
        return
    animator = _load(command, progress)
    _tell_plan(command, animator, progress)
    progress.attach(animator.pipeline, several_runs=_has_gaps(command))
    written: list[Path] = []
    try:
        for shot, path in zip(_shots(command), paths, strict=True):
            progress.start()
            clip = _made(animator, shot, progress)
            clip.save(path, fps=command.output.fps, crf=command.output.crf, format=command.output.format)
            print(path, flush=True)
            written.append(path)
            progress.phase(f"{progress.pace()}; {minutes(time.monotonic() - began)} in all")
    except KeyboardInterrupt:
        if not written:
            raise
        raise Stopped(f"stopped; {len(written)} of {len(paths)} takes were written") from None


def check(command: MakeCommand) -> list[Path]:
    """Everything that can be checked without a model.

    Returns:
        Where the takes go.

    Raises:
        InputError: a picture, an option or an output breaks its rule.
    """
    if not 1 <= command.output.samples <= MOST_TAKES:
        raise InputError(f"samples must be between 1 and {MOST_TAKES}, got {command.output.samples}; try 1.")
    for name, picture in zip(command.picture_names, command.pictures, strict=True):
        if picture is None:
            usage = " ".join(name.upper() for name in command.picture_names[:2])
            raise InputError(
                f'{name} is missing; name it: dynamicrafter {command.mode} {usage} "PROMPT", or repeat a clip with '
                f"--like CLIP."
            )
        read_picture(picture)
    for prompt in command.prompts:
        check_prompt("prompt", prompt)
    if isinstance(command, InterpolateCommand):
        plan_gaps(len(command.pictures), command.prompts, closed=command.closed)
    check_prompt("negative", command.clip.negative)
    _check_options(command)
    if command.model.memory is not None:
        parse_memory(command.model.memory)
    check_adapters(command.model)
    return _check_outputs(command)


def check_adapters(flags: ModelFlags) -> None:
    """Raises InputError unless every file of --lora is there and holds adapters."""
    adapters = parse_adapters(flags.lora)
    if adapters:
        from dynamicrafter.pipeline.lora import check_lora_file

        for adapter in adapters:
            check_lora_file(adapter.path)


def _check_options(command: MakeCommand) -> None:
    preset = known_preset(command.model, command.model.model or str(hub.best_local(command.mode).preset))
    assert command.pictures[0] is not None
    picture = read_picture(command.pictures[0])
    shape = {"mode": command.mode, "picture": (picture.height, picture.width)}
    if preset is not None:
        command.clip.resolved(preset, **shape)
        return
    with unwarned():
        command.clip.resolved(PRESETS["512_interp"], **shape)


def known_preset(flags: ModelFlags, name: str) -> Preset | None:
    """A model's preset where its name tells; the network's own may be another only for files and folders."""
    if flags.preset is not None:
        return get_preset(flags.preset)
    try:
        return get_preset(name.removeprefix(SEEDED))
    except InputError:
        return None


def _check_outputs(command: MakeCommand) -> list[Path]:
    output = command.output
    if str(output.output) == "-":
        raise InputError("output must be a file, got -, which would be standard output; try -o clip.mp4.")
    paths = take_paths(output.output, command.pictures[0], num_takes=output.samples, format=output.format)
    for path in paths:
        check_output(path, fps=output.fps, crf=output.crf, format=output.format)
        if any(picture is not None and _same_file(path, picture) for picture in command.pictures):
            raise InputError(f"output {path} would replace the picture that the clip is made of; choose another name.")
    return paths


def take_paths(output: Path | None, picture: Path | None, *, num_takes: int, format: str | None) -> list[Path]:  # noqa: A002
    """Where the takes go: FILE, FILE-2, FILE-3, …

    Args:
        output: the first one's file, which may be there already.
        picture: without `output`, the file is named after it, in the current folder, and names that are taken are
            passed over.
        format: gives the extension of such a file.
    """
    if output is not None:
        return [_numbered(output, number) for number in range(1, num_takes + 1)]
    assert picture is not None
    first = Path(picture.stem + find_format(Path("clip"), format or "mp4").suffix)
    free = (path for number in count(1) if not (path := _numbered(first, number)).exists())
    return [next(free) for _ in range(num_takes)]


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and path.samefile(other)


def load_animator(name: str, flags: ModelFlags, progress: Progress, *, quiet: bool) -> Animator:
    """Load the model `name` as the flags say."""
    progress.phase(f"Loading {name}…")
    read_ahead(name)
    with importing():
        from dynamicrafter.animator.animator import Animator

    hush_loading_bars(keep_downloads=flags.download and not quiet)
    return Animator.from_pretrained(
        name,
        preset=flags.preset,
        encoders=flags.encoders,
        device=flags.device,
        dtype=flags.dtype,
        download=flags.download,
        lora=flags.lora,
        memory=flags.memory,
    )


def _load(command: MakeCommand, progress: Progress) -> Animator:
    """Load the model, the slow part of starting."""
    animator = load_animator(_model_name(command, progress), command.model, progress, quiet=command.output.quiet)
    if command.recipe is not None:
        from dynamicrafter.cli.like import warn_of_differences

        warn_of_differences(command.recipe, animator)
    return animator


def _tell_plan(command: MakeCommand, animator: Animator, progress: Progress) -> None:
    """Say what is done to make the clips fit, where anything is."""
    options = AnimateOptions(**command.clip.as_dict())
    made = animator.plan(options, mode=command.mode, picture=plan.picture_size(command))
    if made.measures:
        for label, text in made.describe():
            progress.phase(f"{label}: {text}")


def _model_name(command: MakeCommand, progress: Progress) -> str:
    if command.model.model is not None:
        return command.model.model
    local = hub.best_local(command.mode)
    assert local.preset is not None
    where = "the small model of the package" if local.preset == BUNDLED.name else local.path
    progress.phase(f"No --model given; using {local.preset} ({where})")
    return local.preset


def _has_gaps(command: MakeCommand) -> bool:
    """Whether the clip is made gap by gap; between two pictures alone it is the published interpolation."""
    return isinstance(command, InterpolateCommand) and (command.closed or len(command.pictures) > 2)


def _made(animator: Animator, shot: Shot | KeyShot, progress: Progress) -> Clip:
    if isinstance(shot, KeyShot):
        return animator.run_through(shot, on_step=progress.on_step)
    return animator.run([shot], on_step=progress.on_step)[0]


def _shots(command: MakeCommand) -> Iterator[Shot | KeyShot]:
    from dynamicrafter.animator.animator import Shot

    pictures = [str(picture) for picture in command.pictures]
    options = AnimateOptions(**command.clip.as_dict())
    item, sample = ("", 0) if command.recipe is None else (command.recipe.item, command.recipe.sample)
    for number in range(sample, sample + command.output.samples):
        if isinstance(command, InterpolateCommand) and _has_gaps(command):
            yield KeyShot(
                pictures=tuple(pictures),
                prompts=command.prompts,
                closed=command.closed,
                options=options,
                item=item,
                sample=number,
            )
            continue
        yield Shot(
            image=pictures[0],
            last_image=pictures[1] if len(pictures) > 1 else None,
            prompt=command.prompts[0],
            mode=command.mode,
            options=options,
            item=item,
            sample=number,
        )
