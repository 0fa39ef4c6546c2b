"""The clips that a model has to make for a story, each named by all that decides its frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dynamicrafter.modes import ANIMATE, INTERPOLATE, Mode
from dynamicrafter.specs.model import ModelDescription
from dynamicrafter.specs.options import AnimateOptions, ResolvedOptions
from dynamicrafter.specs.pictures import LoadedPicture
from dynamicrafter.story.cards import draw_card
from dynamicrafter.story.format import PictureShot, Story, TitleCard, Transition
from dynamicrafter.story.values import located

_DIGITS = 16  # of a hash
_PREFIX = {ANIMATE: "shot", INTERPOLATE: "between"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundaryFrame:
    """The first or last frame of another clip."""

    clip: StoryClip
    end: Literal["first", "last"]

    @property
    def index(self) -> int:
        return 0 if self.end == "first" else self.clip.num_frames - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CardFrame:
    """What a title card shows; `digest` is its `frame_digest`."""

    card: TitleCard
    digest: str


FrameSource = LoadedPicture | BoundaryFrame | CardFrame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoryClip:
    """A clip that a model has to make for a story.

    Attributes:
        name: what a person calls it.
        sources: the picture, or the first and the last.
        key: hash of all that decides the frames: another key, other frames.
    """

    name: str
    mode: Mode
    prompt: str
    options: ResolvedOptions
    model: ModelDescription
    sources: tuple[FrameSource, ...]
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


ShotContent = StoryClip | TitleCard


def contents_of(story: Story, size: tuple[int, int], model: ModelDescription) -> list[ShotContent]:
    """Each shot's clip or card.

    Raises:
        InputError: options that don't go together, or a title that fits no card of this size.
    """
    contents: list[ShotContent] = []
    before: StoryClip | None = None
    for number, shot in enumerate(story.shots, start=1):
        if isinstance(shot, TitleCard):
            card_frame(shot, size)
            contents.append(shot)
        else:
            before = _clip_of(shot, f"shot {number}", before, size, model)
            contents.append(before)
    return contents


def _clip_of(
    shot: PictureShot, name: str, before: StoryClip | None, size: tuple[int, int], model: ModelDescription
) -> StoryClip:
    if shot.picture is None:
        assert before is not None
        source: FrameSource = BoundaryFrame(clip=before, end="last")
    else:
        source = shot.picture
    options = shot.clip.resolved(model.preset, mode=ANIMATE, size=size)
    return StoryClip(name=name, mode=ANIMATE, prompt=shot.prompt, options=options, model=model, sources=(source,))


def bridge_of(
    transition: Transition,
    left: ShotContent,
    right: ShotContent,
    *,
    name: str,
    size: tuple[int, int],
    model: ModelDescription,
) -> StoryClip | None:
    """The clip between two shots; None for a transition that needs none.

    Raises:
        InputError: options that don't go together.
    """
    if transition.clip is None:
        return None
    return StoryClip(
        name=name,
        mode=INTERPOLATE,
        prompt=transition.prompt,
        options=transition.clip.resolved(model.preset, mode=INTERPOLATE, size=size),
        model=model,
        sources=(_boundary(left, "last", size), _boundary(right, "first", size)),
    )


def _boundary(content: ShotContent, end: Literal["first", "last"], size: tuple[int, int]) -> FrameSource:
    return BoundaryFrame(clip=content, end=end) if isinstance(content, StoryClip) else card_frame(content, size)


def card_frame(card: TitleCard, size: tuple[int, int]) -> CardFrame:
    """Draw a card once, to see that it can be drawn and what it shows."""
    pixels = located(card.place.value["title"], lambda: draw_card(card.look, size))
    return CardFrame(card=card, digest=frame_digest(pixels))


def frame_digest(pixels: np.ndarray) -> str:
    """Hash of one frame, uint8 (h, w, 3)."""
    return _hash(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())


def _key_of(clip: StoryClip) -> str:
    """Options at their default are left out, so that one that a later version adds changes no key.

    Device, number format and versions are left out too: they are recorded, and change no more than rounding.
    """
    usual = AnimateOptions()
    options = {name: value for name, value in clip.options.as_dict().items() if value != getattr(usual, name)}
    model = clip.model
    content = {
        "mode": clip.mode,
        "prompt": clip.prompt,
        "options": options,
        "model": [model.hash or model.name, model.preset.name],
        "lora": [[adapter.hash, adapter.scale] for adapter in model.spec.lora],
        "sources": [_identity(source) for source in clip.sources],
    }
    return _hash(json.dumps(content, sort_keys=True).encode())


def _identity(source: FrameSource) -> Any:
    if isinstance(source, LoadedPicture):
        return source.sha256
    return [source.clip.key, source.end] if isinstance(source, BoundaryFrame) else source.digest


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
