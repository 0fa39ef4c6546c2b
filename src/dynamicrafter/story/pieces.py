"""The clips that a model has to make for a story, each named by all that decides its frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dynamicrafter.animator.options import AnimateOptions, Mode
from dynamicrafter.story.cards import draw_card
from dynamicrafter.story.format import PictureShot, Story, TitleCard, Transition
from dynamicrafter.story.models import KnownModel
from dynamicrafter.story.values import PictureFile, located

_DIGITS = 16  # of a hash
_PREFIX = {"animate": "shot", "interpolate": "between"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EndOf:
    """The first or last frame of a piece."""

    piece: Piece
    end: Literal["first", "last"]

    @property
    def index(self) -> int:
        return 0 if self.end == "first" else self.piece.num_frames - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CardFrame:
    """What a title card shows; `digest` is its `frame_digest`."""

    card: TitleCard
    digest: str


Source = PictureFile | EndOf | CardFrame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A clip that a model has to make.

    Attributes:
        name: what a person calls it.
        options: resolved.
        sources: the picture, or the first and the last.
        key: hash of all that decides the frames: another key, other frames.
    """

    name: str
    mode: Mode
    prompt: str
    options: AnimateOptions
    model: KnownModel
    sources: tuple[Source, ...]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _key_of(self))

    @property
    def num_frames(self) -> int:
        return self.options.frames

    @property
    def folder(self) -> str:
        """Its name among what is kept."""
        return f"{_PREFIX[self.mode]}-{self.key}"


Footage = Piece | TitleCard


def footage_of(story: Story, size: tuple[int, int], model: KnownModel) -> list[Footage]:
    """What each shot shows: a piece or a card.

    Raises:
        InputError: an option that the model doesn't take, or a title that fits no card of this size.
    """
    footage: list[Footage] = []
    before: Piece | None = None
    for number, shot in enumerate(story.shots, start=1):
        if isinstance(shot, TitleCard):
            card_frame(shot, size)
            footage.append(shot)
        else:
            before = _shot_piece(shot, f"shot {number}", before, size, model)
            footage.append(before)
    return footage


def _shot_piece(shot: PictureShot, name: str, before: Piece | None, size: tuple[int, int], model: KnownModel) -> Piece:
    if shot.picture is None:
        assert before is not None
        source: Source = EndOf(piece=before, end="last")
    else:
        source = shot.picture
    options = shot.clip.resolved(model.preset, size=size)
    return Piece(name=name, mode="animate", prompt=shot.prompt, options=options, model=model, sources=(source,))


def bridge_of(
    transition: Transition, left: Footage, right: Footage, *, name: str, size: tuple[int, int], model: KnownModel
) -> Piece | None:
    """The piece between two shots; None for a transition that needs none.

    Raises:
        InputError: an option that the model doesn't take.
    """
    if transition.clip is None:
        return None
    return Piece(
        name=name,
        mode="interpolate",
        prompt=transition.prompt,
        options=transition.clip.resolved(model.preset, mode="interpolate", size=size),
        model=model,
        sources=(_end(left, "last", size), _end(right, "first", size)),
    )


def _end(footage: Footage, end: Literal["first", "last"], size: tuple[int, int]) -> Source:
    return EndOf(piece=footage, end=end) if isinstance(footage, Piece) else card_frame(footage, size)


def card_frame(card: TitleCard, size: tuple[int, int]) -> CardFrame:
    """Draw a card once, to see that it can be drawn and what it shows."""
    pixels = located(card.place.value["title"], lambda: draw_card(card.look, size))
    return CardFrame(card=card, digest=frame_digest(pixels))


def frame_digest(pixels: np.ndarray) -> str:
    """Hash of one frame, uint8 (h, w, 3)."""
    return _hash(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())


def _key_of(piece: Piece) -> str:
    """Options at their default are left out, so that one that a later version adds changes no key.

    Device, number format and versions are left out too: they are recorded, and change no more than rounding.
    """
    usual = AnimateOptions()
    options = {name: value for name, value in piece.options.as_dict().items() if value != getattr(usual, name)}
    content = {
        "mode": piece.mode,
        "prompt": piece.prompt,
        "options": options,
        "model": [piece.model.hash or piece.model.name, piece.model.preset.name],
        "lora": [[adapter.hash, adapter.scale] for adapter in piece.model.loras],
        "sources": [_identity(source) for source in piece.sources],
    }
    return _hash(json.dumps(content, sort_keys=True).encode())


def _identity(source: Source) -> Any:
    if isinstance(source, PictureFile):
        return source.sha256
    return [source.piece.key, source.end] if isinstance(source, EndOf) else source.digest


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
