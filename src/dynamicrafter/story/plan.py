"""What a story asks for: which clips must be made, and what is shown when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dynamicrafter.media.notes import MAX_NOTE
from dynamicrafter.modes import ANIMATE
from dynamicrafter.presets import Preset, auto_size
from dynamicrafter.specs.hints import motion_hints, size_hints
from dynamicrafter.specs.model import ModelDescription
from dynamicrafter.specs.options import ResolvedOptions
from dynamicrafter.specs.pictures import LoadedPicture
from dynamicrafter.story.clips import ShotContent, StoryClip, bridge_of, contents_of
from dynamicrafter.story.format import PictureShot, Story, Transition
from dynamicrafter.story.values import located

_ROOM_FOR_REST = 2000  # characters of metadata for what is known only when all is made


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """Frames `start` up to `stop` of a clip or card; `number` is the shot's, or that of the shot before a bridge."""

    content: ShotContent
    number: int
    start: int
    stop: int

    @property
    def num_frames(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crossfade:
    """The last frames of one shot while the first of another come up through them; `number` as in `Segment`."""

    left: ShotContent
    right: ShotContent
    number: int
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryPlan:
    """A story, ready to be made.

    Attributes:
        size: (height, width) of every frame.
        model: makes the shots.
        options: what the story's defaults come to.
        clips: in an order in which they can be made: shots, then what comes between.
        timeline: what is shown, in order.
    """

    story: Story
    size: tuple[int, int]
    model: ModelDescription
    options: ResolvedOptions
    clips: tuple[StoryClip, ...]
    timeline: tuple[Segment | Crossfade, ...]

    @property
    def num_frames(self) -> int:
        return sum(part.num_frames for part in self.timeline)

    @property
    def seconds(self) -> Fraction:
        return self.num_frames / self.story.fps

    @property
    def notes(self) -> list[str]:
        """What a person should know before it is made, a line each."""
        said: dict[str, str] = {}  # the note → the first clip that it is about
        for clip in self.clips:
            notes = [
                *clip.options.notes(clip.model.preset, clip.mode),
                *motion_hints([clip.prompt], clip.model.motions),
            ]
            if self.story.size is None and isinstance(clip.sources[0], LoadedPicture):
                notes += size_hints(clip.options, clip.sources[0].shape)
            for note in notes:
                said.setdefault(note, clip.name)
        return [f"{name}: {note}" for note, name in said.items()]


def plan_story(story: Story, *, model: ModelDescription, transition_model: ModelDescription | None = None) -> StoryPlan:
    """Work out what must be made and what is shown when.

    Args:
        model: makes the shots.
        transition_model: makes what comes between them; None for `model`.

    Raises:
        InputError: options that don't go together, crossfades that leave nothing of a shot, a title too long for its
            card, or a story too long for its film's metadata.
    """
    size = _size_of(story, model.preset)
    contents = contents_of(story, size, model)
    bridges = [
        None
        if shot.transition is None
        else bridge_of(
            shot.transition,
            contents[index],
            contents[index + 1],
            name=f"between shots {index + 1} and {index + 2}",
            size=size,
            model=transition_model or model,
        )
        for index, shot in enumerate(story.shots)
    ]
    plan = StoryPlan(
        story=story,
        size=size,
        model=model,
        options=story.defaults.resolved(model.preset, mode=ANIMATE, size=size),
        clips=tuple(clip for clip in (*contents, *bridges) if isinstance(clip, StoryClip)),
        timeline=tuple(_timeline(story, contents, bridges)),
    )
    missing = len(json.dumps(plan_metadata(plan))) + _ROOM_FOR_REST - MAX_NOTE
    if missing > 0:
        raise story.defaults.owner.refusal(
            f"the story is {missing} characters too long for its film's metadata, which hold it; make two of it."
        )
    return plan


def _size_of(story: Story, preset: Preset) -> tuple[int, int]:
    usual = preset.height, preset.width
    if not isinstance(story.size, str):
        return story.size or usual
    pictures = (shot.picture for shot in story.shots if isinstance(shot, PictureShot))
    first = next((picture.shape for picture in pictures if picture is not None), usual)
    return located(story.defaults.places["size"], lambda: auto_size(preset, first))


def plan_metadata(plan: StoryPlan) -> dict[str, Any]:
    """What a film's metadata say of its plan: the story as it was written, and what came of it.

    Of each shot's options, those stand here that differ from the story's.
    """
    options = plan.options.as_dict()
    models = dict.fromkeys(clip.model for clip in plan.clips) or {plan.model: None}
    return {
        "mode": "story",
        "models": [
            {
                "name": model.name,
                "preset": model.preset.name,
                "hash": model.hash,
                "lora": [adapter.as_dict() for adapter in model.spec.lora],
            }
            for model in models
        ],
        "story": plan.story.source,
        "options": options,
        "shots": [
            {
                "name": clip.name,
                "key": clip.key,
                "options": {name: value for name, value in clip.options.as_dict().items() if value != options[name]},
                "pictures": [source.sha256 for source in clip.sources if isinstance(source, LoadedPicture)],
            }
            for clip in plan.clips
        ],
    }


def _timeline(
    story: Story, contents: list[ShotContent], bridges: list[StoryClip | None]
) -> Iterator[Segment | Crossfade]:
    begun = 0  # frames of a shot that the transition to it has shown already
    for index, (shot, here, bridge) in enumerate(zip(story.shots, contents, bridges, strict=True)):
        number = index + 1
        transition = shot.transition or Transition.cut(shot.place)
        ending = transition.num_frames if transition.kind == "crossfade" else 0
        left = here.num_frames - begun - ending
        if left < 0:
            raise transition.place.refusal(
                f"crossfade of {ending} frames must leave shot {number} what it shows by then: it has "
                f"{here.num_frames} frames, {begun} of them in the transition before; shorten one of the two."
            )
        yield Segment(content=here, number=number, start=begun, stop=here.num_frames - ending)
        if number == len(contents):
            return
        after = contents[number]
        begun = ending
        if transition.kind == "crossfade":
            if ending > after.num_frames:
                raise transition.place.refusal(
                    f"crossfade must be at most as long as the shot that it leads to, {after.num_frames} frames, "
                    f"got {ending}."
                )
            yield Crossfade(left=here, right=after, number=number, num_frames=ending)
        elif bridge is not None:
            yield Segment(content=bridge, number=number, start=1, stop=bridge.num_frames - 1)
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
