"""What a story asks for: which pieces must be made, and what is shown when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dynamicrafter.animator.options import unwarned
from dynamicrafter.media.notes import MAX_NOTE
from dynamicrafter.story.format import PictureShot, Story, Transition
from dynamicrafter.story.models import KnownModel
from dynamicrafter.story.pieces import Footage, Piece, bridge_of, footage_of
from dynamicrafter.story.values import PictureFile

_ROOM_FOR_REST = 2000  # characters of metadata for what is known only when all is made


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Play:
    """Frames `start` up to `stop` of one thing; `number` is the shot's, or that of the shot before a bridge."""

    footage: Footage
    number: int
    start: int
    stop: int

    @property
    def num_frames(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blend:
    """The last frames of one thing while the first of another come up through them; `number` as in `Play`."""

    left: Footage
    right: Footage
    number: int
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A story, ready to be made.

    Attributes:
        size: (height, width) of every frame.
        pieces: in an order in which they can be made: shots, then what comes between.
        timeline: what is shown, in order.
    """

    story: Story
    size: tuple[int, int]
    model: KnownModel
    pieces: tuple[Piece, ...]
    timeline: tuple[Play | Blend, ...]

    @property
    def num_frames(self) -> int:
        return sum(part.num_frames for part in self.timeline)

    @property
    def seconds(self) -> Fraction:
        return self.num_frames / self.story.fps


def plan_story(story: Story, *, model: KnownModel, transition_model: KnownModel | None = None) -> Plan:
    """Work out what must be made and what is shown when.

    Args:
        model: makes the shots.
        transition_model: makes what comes between them; None for `model`.

    Raises:
        InputError: options that the models don't take, crossfades that leave nothing of a shot, a title too long for
            its card, or a story too long for its film's metadata.
    """
    size = story.size or (model.preset.height, model.preset.width)
    footage = footage_of(story, size, model)
    bridges = [
        None
        if shot.transition is None
        else bridge_of(
            shot.transition,
            footage[index],
            footage[index + 1],
            name=f"between shots {index + 1} and {index + 2}",
            size=size,
            model=transition_model or model,
        )
        for index, shot in enumerate(story.shots)
    ]
    plan = Plan(
        story=story,
        size=size,
        model=model,
        pieces=tuple(piece for piece in (*footage, *bridges) if isinstance(piece, Piece)),
        timeline=tuple(_timeline(story, footage, bridges)),
    )
    missing = len(json.dumps(described(plan))) + _ROOM_FOR_REST - MAX_NOTE
    if missing > 0:
        raise story.defaults.owner.refusal(
            f"the story is {missing} characters too long for its film's metadata, which hold it; make two of it."
        )
    return plan


def described(plan: Plan) -> dict[str, Any]:
    """What a film's metadata say of its plan: the story as it was written, and what came of it.

    Of each shot's options, those stand here that differ from the story's.
    """
    with unwarned():
        options = plan.story.defaults.resolved(plan.model.preset, size=plan.size).as_dict()
    models = dict.fromkeys(piece.model for piece in plan.pieces) or {plan.model: None}
    return {
        "mode": "story",
        "models": [
            {
                "name": model.name,
                "preset": model.preset.name,
                "hash": model.hash,
                "lora": [adapter.as_dict() for adapter in model.loras],
            }
            for model in models
        ],
        "story": plan.story.source,
        "options": options,
        "shots": [
            {
                "name": piece.name,
                "key": piece.key,
                "options": {name: value for name, value in piece.options.as_dict().items() if value != options[name]},
                "pictures": [source.sha256 for source in piece.sources if isinstance(source, PictureFile)],
            }
            for piece in plan.pieces
        ],
    }


def _timeline(story: Story, footage: list[Footage], bridges: list[Piece | None]) -> Iterator[Play | Blend]:
    begun = 0  # frames of a shot that the transition to it has shown already
    for index, (shot, here, bridge) in enumerate(zip(story.shots, footage, bridges, strict=True)):
        number = index + 1
        transition = shot.transition or Transition.cut(shot.place)
        ending = transition.num_frames if transition.kind == "crossfade" else 0
        left = here.num_frames - begun - ending
        if left < 0:
            raise transition.place.refusal(
                f"crossfade of {ending} frames must leave shot {number} what it shows by then: it has "
                f"{here.num_frames} frames, {begun} of them in the transition before; shorten one of the two."
            )
        yield Play(footage=here, number=number, start=begun, stop=here.num_frames - ending)
        if number == len(footage):
            return
        after = footage[number]
        begun = ending
        if transition.kind == "crossfade":
            if ending > after.num_frames:
                raise transition.place.refusal(
                    f"crossfade must be at most as long as the shot that it leads to, {after.num_frames} frames, "
                    f"got {ending}."
                )
            yield Blend(left=here, right=after, number=number, num_frames=ending)
        elif bridge is not None:
            yield Play(footage=bridge, number=number, start=1, stop=bridge.num_frames - 1)
        elif _continues(story, number):
            begun = 1  # its first frame repeats the last one of the shot before
            if after.num_frames == 1:
                raise story.shots[number].place.refusal(
                    f"shot {number + 1} must have 2 frames or more: its first repeats the last of the shot before, "
                    f"and is not shown after a cut."
                )


def _continues(story: Story, index: int) -> bool:
    """Whether a shot goes on from the very shot before it, without a card between them."""
    shot = story.shots[index]
    return isinstance(shot, PictureShot) and shot.picture is None and isinstance(story.shots[index - 1], PictureShot)
