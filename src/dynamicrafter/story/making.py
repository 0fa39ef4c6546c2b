"""The making of a story's pieces: those that are there already are kept, the others made in order."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.story.cards import draw_card
from dynamicrafter.story.kept import KeptShots, Records
from dynamicrafter.story.models import KnownModel
from dynamicrafter.story.pieces import EndOf, Piece, Source
from dynamicrafter.story.plan import Plan
from dynamicrafter.story.values import PictureFile

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator

LoadModel = Callable[[KnownModel], "Animator"]


class Watcher(Protocol):
    """Is told how the making goes."""

    def begins(self, piece: Piece) -> None: ...

    def on_step(self, done: int, steps: int) -> None: ...

    def made(self, piece: Piece) -> None: ...

    def kept(self, piece: Piece) -> None: ...


def survey(plan: Plan, shots: KeptShots) -> Records:
    """The pieces of a plan that are there and can be used, as far as that is known before the others are made."""
    found: Records = {}
    for piece in plan.pieces:
        needed = [source.piece.key for source in piece.sources if isinstance(source, EndOf)]
        if all(key in found for key in needed):
            record = shots.find(piece, found)
            if record is not None:
                found[piece.key] = record
    return found


def make_pieces(plan: Plan, shots: KeptShots, *, load: LoadModel, watcher: Watcher) -> Records:
    """Make the pieces of a plan that aren't there; no model is loaded where none is missing.

    Args:
        shots: locked.
        load: gives a model; called once for each that is needed, when the one before has been let go.

    Returns:
        The records of all pieces.

    Raises:
        InputError: a picture or the model's files changed since they were looked at, or something can't be written.
    """
    records: Records = {}
    animator: Animator | None = None
    loaded: KnownModel | None = None
    for piece in plan.pieces:
        record = records.get(piece.key) or shots.find(piece, records)
        if record is not None:
            watcher.kept(piece)
            records[piece.key] = record
            continue
        if animator is None or piece.model != loaded:
            animator = None  # before the next is loaded: two may not fit
            _free_memory()
            animator, loaded = _checked(load(piece.model), piece.model), piece.model
        watcher.begins(piece)
        frames, metadata = _make(piece, animator, plan, shots, records, watcher)
        records[piece.key] = shots.keep(piece, frames, metadata, fps=plan.story.fps, known=records)
        watcher.made(piece)
    return records


def _make(
    piece: Piece, animator: Animator, plan: Plan, shots: KeptShots, records: Records, watcher: Watcher
) -> tuple[Any, dict[str, Any]]:
    from dynamicrafter.animator.animator import Shot

    first, *rest = (_picture(source, plan, shots, records) for source in piece.sources)
    shot = Shot(
        image=first,
        last_image=rest[0] if rest else None,
        prompt=piece.prompt,
        mode=piece.mode,
        options=piece.options,
    )
    [clip] = animator.run([shot], on_step=watcher.on_step)
    for source, used in zip(piece.sources, clip.metadata["pictures"], strict=True):
        if isinstance(source, PictureFile) and source.sha256 != used["sha256"]:
            raise InputError(f"{source.path} changed while the story was being made; run again.")
    return clip.frames, clip.metadata


def _picture(source: Source, plan: Plan, shots: KeptShots, records: Records) -> str | Image.Image:
    if isinstance(source, PictureFile):
        return str(source.path)
    if isinstance(source, EndOf):
        return Image.fromarray(shots.frame(source.piece, source.index, records[source.piece.key]))
    return Image.fromarray(draw_card(source.card.look, plan.size))


def _checked(animator: Animator, known: KnownModel) -> Animator:
    if animator.model_hash != known.hash:
        raise InputError(f"the files of model {known.name} changed while the story was being made; run again.")
    return animator


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
