"""The making of a story's clips: those that are there already are kept, the others made in order."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.specs.clip import CheckedClip, ClipSpec
from dynamicrafter.specs.model import ModelDescription
from dynamicrafter.specs.pictures import LoadedPicture, load_picture
from dynamicrafter.story.cards import draw_card
from dynamicrafter.story.clips import BoundaryFrame, FrameSource, StoryClip
from dynamicrafter.story.kept import KeptShots, Records
from dynamicrafter.story.plan import StoryPlan

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator
    from dynamicrafter.animator.clip import Clip

LoadModel = Callable[[ModelDescription], "Animator"]


class StoryCallbacks(Protocol):
    """Called as a story's clips are made, or found to be there."""

    def begins(self, clip: StoryClip) -> None: ...

    def on_step(self, done: int, steps: int) -> None: ...

    def made(self, clip: StoryClip) -> None: ...

    def kept(self, clip: StoryClip) -> None: ...


def find_kept(plan: StoryPlan, shots: KeptShots) -> Records:
    """The clips of a plan that are there and can be used, as far as that is known before the others are made."""
    found: Records = {}
    for clip in plan.clips:
        needed = [source.clip.key for source in clip.sources if isinstance(source, BoundaryFrame)]
        if all(key in found for key in needed):
            record = shots.find(clip, found)
            if record is not None:
                found[clip.key] = record
    return found


def make_clips(plan: StoryPlan, shots: KeptShots, *, load: LoadModel, callbacks: StoryCallbacks) -> Records:
    """Make the clips of a plan that aren't there; no model is loaded where none is missing.

    Args:
        shots: locked.
        load: gives a model; called once for each that is needed, when the one before has been unloaded.

    Returns:
        The records of all clips.

    Raises:
        InputError: a picture or the model's files changed since they were looked at, or something can't be written.
    """
    records: Records = {}
    animator: Animator | None = None
    loaded: ModelDescription | None = None
    for clip in plan.clips:
        record = records.get(clip.key) or shots.find(clip, records)
        if record is not None:
            callbacks.kept(clip)
            records[clip.key] = record
            continue
        if animator is None or clip.model != loaded:
            animator = None  # before the next is loaded: two may not fit
            _free_memory()
            animator, loaded = _checked(load(clip.model), clip.model), clip.model
        callbacks.begins(clip)
        pictures = tuple(_picture(source, plan, shots, records) for source in clip.sources)
        made = _make(clip, pictures, animator, callbacks)
        records[clip.key] = shots.keep(clip, made.frames, made.metadata, fps=plan.story.fps, known=records)
        callbacks.made(clip)
    return records


def _make(clip: StoryClip, pictures: tuple[LoadedPicture, ...], animator: Animator, callbacks: StoryCallbacks) -> Clip:
    spec = ClipSpec(pictures=pictures, prompts=(clip.prompt,), mode=clip.mode, options=clip.options)
    checked = CheckedClip(spec=spec, options=clip.options, pictures=pictures)
    return animator.run([checked], on_step=callbacks.on_step)[0]


def _picture(source: FrameSource, plan: StoryPlan, shots: KeptShots, records: Records) -> LoadedPicture:
    if isinstance(source, LoadedPicture):
        return source
    if isinstance(source, BoundaryFrame):
        frame = shots.frame(source.clip, source.index, records[source.clip.key])
        return load_picture(Image.fromarray(frame))
    return load_picture(Image.fromarray(draw_card(source.card.look, plan.size)))


def _checked(animator: Animator, model: ModelDescription) -> Animator:
    if animator.model_hash != model.hash:
        raise InputError(f"the files of model {model.name} changed while the story was being made; run again.")
    return animator


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
