"""`--like CLIP`: the arguments of an earlier clip, from the metadata in its file."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dynamicrafter import __version__
from dynamicrafter.cli.commands import ClipFlags, InterpolateCommand, MakeCommand, ModelFlags, OutputFlags
from dynamicrafter.cli.recipe import Recipe, StoredPicture, read_recipe
from dynamicrafter.errors import InputError
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.media.pictures import picture_hash, read_picture
from dynamicrafter.media.video import read_metadata
from dynamicrafter.presets import BUNDLED, PRESETS

if TYPE_CHECKING:
    from dynamicrafter.animator.adapters import Adapter
    from dynamicrafter.animator.animator import Animator

logger = logging.getLogger(__name__)

Command = TypeVar("Command", bound=MakeCommand)


def repeated(given: Command) -> Command:
    """A command that makes a clip again: its defaults come from the clip's file, its pictures from where they were.

    Args:
        given: the command as typed, with `--like`; pictures in it stand in for the clip's.

    Raises:
        InputError: an unreadable clip, one of another mode, or a picture that is gone or was changed.
    """
    assert given.output.like is not None
    recipe = read_recipe(read_metadata(given.output.like), clip=given.output.like)
    if recipe.mode != given.mode:
        raise InputError(
            f"{recipe.clip} was made by `dynamicrafter {recipe.mode}`; repeat it with "
            f"`dynamicrafter {recipe.mode} --like {recipe.clip}`."
        )
    if given.model.download and given.model.model is None and not is_ours(recipe.model):
        raise InputError(
            f"{recipe.clip} was made by the model {recipe.model!r}, which is not downloaded on a file's word; "
            f"repeat it with --model {recipe.model} if you trust it."
        )
    return replace(
        type(given)(),
        clip=ClipFlags(**_options_for(given, recipe)),
        model=ModelFlags(
            model=recipe.model,
            preset=recipe.preset if _is_file(Path(recipe.model)) else None,
            lora=() if given.model.lora else tuple(str(find_adapters(kept, clip=recipe.clip)) for kept in recipe.loras),
            device=_device_if_here(recipe.device),
            dtype=recipe.dtype,
        ),
        output=OutputFlags(fps=recipe.fps, crf=_crf_for(given, recipe)),
        recipe=recipe,
        **_subject(given, recipe),
    )


def _options_for(given: MakeCommand, recipe: Recipe) -> dict[str, Any]:
    """The clip's options, without those that another quality or sampler brings along."""
    options = recipe.options.as_dict()
    replaced: tuple[str, ...] = ()
    if given.clip.quality not in (None, recipe.options.quality):
        replaced = ("steps", "sampler", "eta", "guidance_interval", "cache")
    elif given.clip.sampler not in (None, recipe.options.sampler):
        replaced = ("eta",)
    return options | dict.fromkeys(replaced)


def _subject(given: MakeCommand, recipe: Recipe) -> dict[str, Any]:
    """Pictures and prompts of a recipe as the command's fields; a picture that was typed needs not be found."""
    wanted, several = len(given.pictures), isinstance(given, InterpolateCommand)
    known = len(recipe.pictures)
    if known < wanted or (known > wanted and not (several and recipe.keys)):
        raise InputError(f"{recipe.clip} must name {wanted} picture(s) to be repeated, it names {known}.")
    typed = [*given.pictures, *(None for _ in recipe.pictures[wanted:])]
    found = [
        path if path is not None else find_picture(stored, clip=recipe.clip)
        for path, stored in zip(typed, recipe.pictures, strict=True)
    ]
    if not several:
        return {"image": found[0], "prompt": recipe.prompt}
    keys = recipe.keys
    return {
        "first": found[0],
        "last": found[1],
        "stored": tuple(found[2:]),
        "stored_prompts": keys.prompts if keys else (recipe.prompt,),
        "closed": keys.closed if keys else False,
    }


def _crf_for(given: MakeCommand, recipe: Recipe) -> int | None:
    """The clip's quality, where the new one is of the same format; scales differ between formats."""
    target = given.output.output
    same = given.output.format is None and (target is None or target.suffix == recipe.clip.suffix)
    return recipe.crf if same else None


def find_picture(stored: StoredPicture, *, clip: Path) -> Path:
    """The file of a stored picture with its pixels: where it was, seen from here or from the clip, or beside the clip.

    Raises:
        InputError: the path wasn't kept, or leads to no picture, or to another one.
    """
    remedy = f"name the picture: dynamicrafter … PICTURE --like {clip}"
    if stored.path is None:
        raise InputError(f"{clip} doesn't say where its picture was, which came from a program; {remedy}.")
    then = Path(stored.path)
    found = [path for path in (then, clip.parent / then, clip.parent / then.name) if _is_file(path)]
    if not found:
        raise InputError(f"{clip} was made of {stored.path!r}, which is not there; {remedy}.")
    for path in found:
        if picture_hash(read_picture(path)) == stored.sha256:
            return path
    raise InputError(f"{found[0]} is not the picture that {clip} was made of: its pixels differ; {remedy}.")


def find_adapters(stored: Adapter, *, clip: Path) -> Adapter:
    """The file of a clip's adapters: where it was, seen from here or from the clip, or beside the clip.

    One with other weights stands in, with a warning.

    Raises:
        InputError: it is not there.
    """
    from dynamicrafter.animator.adapters import is_there
    from dynamicrafter.checkpoints.files import fingerprint
    from dynamicrafter.pipeline.lora import lora_file

    then = stored.path
    places = (then, clip.parent / then, clip.parent / then.name)
    found = {path: fingerprint(file) for path in places if is_there(path) and (file := lora_file(path)).is_file()}
    if not found:
        raise InputError(
            f"{clip} was made with the adapters {str(then)!r}, which are not there; name them with --lora FILE:SCALE, "
            f"or leave them out with --lora none."
        )
    path = next((path for path, now in found.items() if now == stored.hash), next(iter(found)))
    if found[path] != stored.hash:
        logger.warning(
            "%s: the adapters %s changed from %s to %s; the clip may come out otherwise.",
            clip,
            path,
            stored.hash or "unknown",
            found[path],
        )
    return replace(stored, path=path)


def is_ours(model: str) -> bool:
    """Whether a model's name leads to a published repository, or to nothing but this machine."""
    return (
        model in (*PRESETS, BUNDLED.name) or model.startswith(SEEDED) or _is_file(Path(model)) or Path(model).is_dir()
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or one with a NUL
        return False


def warn_of_differences(recipe: Recipe, animator: Animator) -> None:
    """Log what may make a repeated clip differ: other weights, versions, device or number format."""
    import torch

    pipeline = animator.pipeline
    for what, then, now in (
        ("the weights", recipe.model_hash or "unknown", animator.model_hash or "unknown"),
        ("the program", recipe.generator, f"dynamicrafter {__version__}"),
        ("torch", recipe.torch, torch.__version__),
        ("the device", recipe.device, animator.device.type),
        ("the number format", recipe.dtype, str(pipeline.unet.dtype).removeprefix("torch.")),
    ):
        if then != now:
            logger.warning(
                "%s: %s changed from %s to %s; the clip may come out otherwise.", recipe.clip, what, then, now
            )


def _device_if_here(name: str) -> str | None:
    from dynamicrafter.memory.devices import choose_device

    try:
        choose_device(name)
    except InputError:
        return None
    return name
