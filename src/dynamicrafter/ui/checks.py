"""All that can be checked of a request before it waits in the queue; pictures are read and options resolved, once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.faces.warnings import heard_warnings
from dynamicrafter.media.pictures import FORMATS
from dynamicrafter.specs.clip import CheckedClip, ClipSpec, check_clip
from dynamicrafter.specs.model import ModelDescription
from dynamicrafter.specs.options import ResolvedOptions, check_prompt
from dynamicrafter.specs.pictures import LoadedPicture, load_picture
from dynamicrafter.story.plan import StoryPlan
from dynamicrafter.ui.requests import ClipRequest, StorySpec, Upload
from dynamicrafter.ui.settings import ServerSettings
from dynamicrafter.ui.story import plan_rows


def checked(request: ClipRequest, model: ModelDescription, settings: ServerSettings) -> ClipRequest:
    """The same request with its pictures read, its work planned, and what its visitor should know.

    Raises:
        InputError: it breaks a rule, or a limit of this server.
    """
    with heard_warnings() as heard:
        pictures = tuple(read_upload(upload, settings) for upload in request.uploads)
    spec: ClipSpec | StorySpec
    work: CheckedClip | StoryPlan
    if isinstance(request.spec, StorySpec):
        spec = film = replace(request.spec, pictures=pictures)
        check_prompt("prompt", request.prompt)
        work = plan_rows(film, model)
        _check_length(work, settings)
        _check_limits((clip.options for clip in work.clips), settings)
    else:
        spec = clip = replace(request.spec, pictures=pictures)
        work = check_clip(clip, model.preset, motions=model.motions)
        _check_limits([work.options], settings)
    return replace(request, spec=spec, work=work, notes=(*heard, *work.notes))


def _check_limits(options: Iterable[ResolvedOptions], settings: ServerSettings) -> None:
    for each in options:
        height, width = each.size
        if height * width > settings.max_size:
            raise InputError(
                f"size must be at most {settings.max_size} pixels in all on this server, got {width}×{height}; make "
                f"one side smaller."
            )
        for name, limit in (("steps", settings.max_steps), ("frames", settings.max_frames)):
            if getattr(each, name) > limit:
                raise InputError(
                    f"{name} must be at most {limit} on this server, got {getattr(each, name)}; try {limit}."
                )


def _check_length(plan: StoryPlan, settings: ServerSettings) -> None:
    frames = sum(shot.num_frames for shot in plan.story.shots)
    if frames > settings.max_frames:
        most, fps = settings.max_frames, plan.story.fps
        raise InputError(
            f"the shots must be at most {float(most / fps):g} seconds long together on this server, got "
            f"{float(frames / fps):g}; make them shorter."
        )


def read_upload(upload: Upload, settings: ServerSettings) -> LoadedPicture:
    """Look at a picture's size before decoding it, then decode it.

    Returns:
        The picture under its owner's name for it.

    Raises:
        InputError: too large, or no picture; names it as its owner does.
    """
    try:
        if upload.path.stat().st_size > settings.max_upload * 10**6:
            raise InputError(f"{upload.name} has more than {settings.max_upload} megabytes; scale it down first.")
        _check_pixels(upload, settings)
        return load_picture(upload.path, name=upload.name)
    except FileNotFoundError:
        raise InputError(f"{upload.name} is no longer on the server; choose it again.") from None
    except InputError as error:
        raise InputError(str(error).replace(str(upload.path), upload.name)) from None


def _check_pixels(upload: Upload, settings: ServerSettings) -> None:
    try:
        with Image.open(upload.path, formats=FORMATS) as header:
            width, height = header.size
    except Image.DecompressionBombError:
        width, height = settings.max_megapixels, 10**6 + 1
    except Exception:  # what is wrong with it, reading says better
        return
    if width * height > settings.max_megapixels * 10**6:
        raise InputError(f"{upload.name} has more than {settings.max_megapixels} megapixels; scale it down first.")
