"""`--like CLIP`: the arguments of an earlier clip, from the metadata in its file."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dynamicrafter import __version__
from dynamicrafter.cli.commands import KeyPictures, MakeCommand, OnePicture, OutputFlags
from dynamicrafter.errors import InputError
from dynamicrafter.hub import SEEDED
from dynamicrafter.media.pictures import picture_hash, read_picture
from dynamicrafter.media.video import read_metadata
from dynamicrafter.presets import every_preset
from dynamicrafter.specs.metadata import StoredClip, StoredPicture, read_clip_metadata
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.specs.options import AnimateOptions, merged

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.specs.adapters import Adapter

logger = logging.getLogger(__name__)

Command = TypeVar("Command", bound=MakeCommand)

_BY_QUALITY = ("steps", "sampler", "eta", "guidance_interval", "cache")  # what another quality brings along


def repeated(given: Command) -> Command:
    """A command that makes a clip again: its defaults come from the clip's file, its pictures from where they were.

    Args:
        given: the command as typed, with `--like`; pictures in it stand in for the clip's.

    Raises:
        InputError: an unreadable clip, one of another mode, or a picture that is gone or was changed.
    """
    assert given.output.like is not None
    stored = read_clip_metadata(read_metadata(given.output.like), clip=given.output.like)
    made_by = stored.made_by
    if stored.mode != given.mode:
        raise InputError(
            f"{stored.clip} was made by `dynamicrafter {stored.mode}`; repeat it with "
            f"`dynamicrafter {stored.mode} --like {stored.clip}`."
        )
    if given.model.download and given.model.name is None and not is_ours(made_by.model):
        raise InputError(
            f"{stored.clip} was made by the model {made_by.model!r}, which is not downloaded on a file's word; "
            f"repeat it with --model {made_by.model} if you trust it."
        )
    return replace(
        type(given)(),
        clip=_options_for(given, stored),
        model=ModelSpec(
            name=made_by.model,
            preset=made_by.preset if _is_file(Path(made_by.model)) else None,
            lora=() if given.model.lora else tuple(find_adapters(kept, clip=stored.clip) for kept in made_by.loras),
            device=_device_if_here(made_by.device),
            dtype=made_by.dtype,
        ),
        output=OutputFlags(fps=stored.fps, crf=_crf_for(given, stored)),
        repeats=stored,
        **_subject(given, stored),
    )


def _options_for(given: MakeCommand, stored: StoredClip) -> AnimateOptions:
    """The clip's options, without those that another quality or sampler brings along."""
    replaced: tuple[str, ...] = ()
    if given.clip.quality not in (None, stored.options.quality):
        replaced = _BY_QUALITY
    elif given.clip.sampler not in (None, stored.options.sampler):
        replaced = ("eta",)
    return merged(stored.options, dict.fromkeys(replaced))


def _subject(given: MakeCommand, stored: StoredClip) -> dict[str, Any]:
    """Pictures and prompts of a clip as the command's fields; a picture that was typed needs not be found."""
    wanted = len(given.pictures)
    known = len(stored.pictures)
    if known < wanted or (known > wanted and not (isinstance(given, KeyPictures) and stored.keys)):
        raise InputError(f"{stored.clip} must name {wanted} picture(s) to be repeated, it names {known}.")
    typed = [*given.pictures, *(None for _ in stored.pictures[wanted:])]
    found = [
        path if path is not None else find_picture(picture, clip=stored.clip)
        for path, picture in zip(typed, stored.pictures, strict=True)
    ]
    if isinstance(given, OnePicture):
        return {"image": found[0]} | ({} if given.words else {"prompt": stored.prompt})
    return {
        "first": found[0],
        "last": found[1],
        "stored": tuple(found[2:]),
        "stored_prompts": stored.prompts,
        "closed": stored.keys.closed if stored.keys else False,
    }


def _crf_for(given: MakeCommand, stored: StoredClip) -> int | None:
    """The clip's quality, where the new one is of the same format; scales differ between formats."""
    target = given.output.output
    same = given.output.format is None and (target is None or target.suffix == stored.clip.suffix)
    return stored.crf if same else None


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
    from dynamicrafter.checkpoints.files import fingerprint
    from dynamicrafter.pipeline.lora import lora_file
    from dynamicrafter.specs.adapters import is_there

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
    known = [preset.name for preset in every_preset()]
    return model in known or model.startswith(SEEDED) or _is_file(Path(model)) or Path(model).is_dir()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or one with a NUL
        return False


def warn_of_differences(stored: StoredClip, animator: Animator) -> None:
    """Log what may make a repeated clip differ: other weights, versions, device or number format."""
    then, now = stored.made_by, animator.made_by
    for what, before, after in (
        ("the weights", then.model_hash or "unknown", now.model_hash or "unknown"),
        ("the program", then.generator, f"dynamicrafter {__version__}"),
        ("torch", then.torch, now.torch),
        ("the device", then.device, now.device),
        ("the number format", then.dtype, now.dtype),
    ):
        if before != after:
            logger.warning(
                "%s: %s changed from %s to %s; the clip may come out otherwise.", stored.clip, what, before, after
            )


def _device_if_here(name: str) -> str | None:
    from dynamicrafter.memory.devices import choose_device

    try:
        choose_device(name)
    except InputError:
        return None
    return name
