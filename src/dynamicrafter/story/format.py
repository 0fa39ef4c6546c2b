"""A story's file: what may stand in it, read into frozen values and checked, each error with its line.

defaults: {fps: 8, size: 128x128, steps: 12}
shots:
  - title: Lift-off
    seconds: 2
  - picture: rocket.jpg
    prompt: the camera pans left
    transition: {kind: crossfade, seconds: 0.5}
  - picture: previous
    prompt: the camera pans down
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from dynamicrafter.media.notes import parse_fps
from dynamicrafter.modes import Mode
from dynamicrafter.presets import OUTPUT_FPS, Preset
from dynamicrafter.schema import schema_of, shown
from dynamicrafter.specs.options import AnimateOptions, ResolvedOptions
from dynamicrafter.specs.pictures import LoadedPicture
from dynamicrafter.story.cards import CardLook, check_color, check_letters
from dynamicrafter.story.located import Located, read_located
from dynamicrafter.story.values import (
    JOINED,
    PREVIOUS,
    background_of,
    length_of,
    located,
    name_of,
    path_of,
    picture_of,
    prompt_of,
    sound_of,
)

FrameSize = tuple[int, int] | Literal["auto"]
TransitionKind = Literal["cut", "crossfade", "interpolate"]

_OF_STORY = ("fps", "size")
_LENGTHS = ("frames", "seconds")
_OPTIONS = tuple(name for name in schema_of(AnimateOptions) if name not in ("size", "frames"))
_STORY_KEYS = ("defaults", "shots", "audio", "model", "transition_model")
_DEFAULT_KEYS = (*_OF_STORY, *_LENGTHS, *_OPTIONS)
_SHOT_KEYS = ("picture", "prompt", *_LENGTHS, *_OPTIONS, "transition")
_CARD_KEYS = ("title", *_LENGTHS, "background", "color", "font", "fit", "transition")
_TRANSITION_KEYS = ("kind", "prompt", *_LENGTHS, *_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedOptions:
    """The options of a clip, and where each was written."""

    options: AnimateOptions
    places: dict[str, Located]
    owner: Located

    def resolved(self, preset: Preset, *, mode: Mode, size: tuple[int, int]) -> ResolvedOptions:
        """`AnimateOptions.resolved`, whose error names the line of the option that it is about.

        Args:
            size: the story's.

        Raises:
            InputError: values that don't go together.
        """
        return located(
            self.owner, lambda: replace(self.options, size=size).resolved(preset, mode=mode), among=self.places
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """How one shot becomes the next.

    Attributes:
        num_frames: of a crossfade, those in which both are seen; of an interpolation, those that come between; else 0.
        clip: how an interpolation is made; it is `JOINED` frames longer than what comes between.
    """

    kind: TransitionKind
    num_frames: int
    prompt: str
    clip: LocatedOptions | None
    place: Located

    @classmethod
    def cut(cls, place: Located) -> Transition:
        """What there is where none is written."""
        return cls(kind="cut", num_frames=0, prompt="", clip=None, place=place)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureShot:
    """A shot that a model makes; `picture` None continues the one before."""

    picture: LoadedPicture | None
    prompt: str
    clip: LocatedOptions
    transition: Transition | None
    place: Located

    @property
    def num_frames(self) -> int:
        return self.clip.options.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class TitleCard:
    """A shot that stands still, with text."""

    look: CardLook
    num_frames: int
    transition: Transition | None
    place: Located


Shot = PictureShot | TitleCard


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A story's file.

    Attributes:
        size: (height, width) of all frames; auto for the first picture's shape; None for the model's preset's.
        model, transition_model: names as for `animate`; None where the file doesn't say.
        sound: a file that is heard from beginning to end.
        source: the file's content, as JSON has it.
    """

    file: Path
    fps: Fraction
    size: FrameSize | None
    defaults: LocatedOptions
    shots: tuple[Shot, ...]
    model: str | None
    transition_model: str | None
    sound: Path | None
    source: dict[str, Any]


def read_story(path: Path) -> Story:
    """Read a story and check all of it that needs no model: keys, types, ranges, pictures, fonts and sound.

    Raises:
        InputError: something is wrong; the message names the file and the line.
    """
    return story_of(read_located(path))


def story_of(root: Located) -> Story:
    """The story that some values are, wherever they come from; otherwise as `read_story`."""
    keys = root.mapping(_STORY_KEYS, name="a story")
    defaults = _Defaults.read(keys.get("defaults"), root)
    listed = keys.get("shots")
    if listed is None or not isinstance(listed.value, list) or not listed.value:
        raise (listed or root).refusal("shots must be a list of at least one shot; each begins with `- picture:`.")
    last = len(listed.value) - 1
    shots = tuple(_shot(item, defaults, is_last=index == last) for index, item in enumerate(listed.value))
    _check_first_picture(shots)
    audio = keys.get("audio")
    return Story(
        file=root.file,
        fps=defaults.fps,
        size=defaults.size,
        defaults=defaults.clip,
        shots=shots,
        model=name_of(keys.get("model"), "model"),
        transition_model=name_of(keys.get("transition_model"), "transition_model"),
        sound=None if audio is None else sound_of(audio),
        source=root.plain(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Defaults:
    """What holds for the whole story or for every shot that says nothing else, and the pictures read so far."""

    fps: Fraction
    clip: LocatedOptions
    pictures: dict[Path, LoadedPicture] = field(default_factory=dict)

    @property
    def size(self) -> FrameSize | None:
        return self.clip.options.size

    @classmethod
    def read(cls, given: Located | None, root: Located) -> _Defaults:
        keys = {} if given is None else given.mapping(_DEFAULT_KEYS, name="defaults")
        fps = Fraction(OUTPUT_FPS)
        if "fps" in keys:
            fps = located(keys["fps"], lambda: parse_fps(keys["fps"].plain()))
        places = {name: keys[name] for name in (*_OPTIONS, "size") if name in keys}
        length = length_of(keys, fps)
        if length is not None:
            places["frames"] = length
        return cls(fps=fps, clip=_options(places, given or root))

    def merged(self, keys: dict[str, Located], owner: Located, *, extra: int = 0) -> LocatedOptions:
        """A shot's options over these; a transition's length is its own.

        Args:
            extra: frames to be made beside those that the length says.
        """
        places = {name: place for name, place in self.clip.places.items() if name != "frames" or not extra}
        places |= {name: keys[name] for name in _OPTIONS if name in keys}
        length = length_of(keys, self.fps, extra=extra)
        if length is not None:
            places["frames"] = length
        return _options(places, owner)


def _shot(item: Located, defaults: _Defaults, *, is_last: bool) -> Shot:
    if isinstance(item.value, dict):
        for name in _OF_STORY:
            if name in item.value:
                line = item.value[name].key_line
                raise item.refusal(f"{name} is one for the whole story; write it under defaults.", line=line)
        if "title" in item.value:
            return _card(item, defaults, is_last=is_last)
    keys = item.mapping(_SHOT_KEYS, name="a shot")
    if "picture" not in keys:
        raise item.refusal(f"picture is missing; name a file, or {PREVIOUS}, or give the shot a title instead.")
    return PictureShot(
        picture=picture_of(keys["picture"], defaults.pictures),
        prompt=prompt_of(keys),
        clip=defaults.merged(keys, item),
        transition=_transition(keys.get("transition"), defaults, is_last=is_last),
        place=item,
    )


def _card(item: Located, defaults: _Defaults, *, is_last: bool) -> TitleCard:
    keys = item.mapping(_CARD_KEYS, name="a title card")
    title = keys["title"].text("title")
    font = None if "font" not in keys else path_of(keys["font"], "font")
    located(keys["title"], lambda: check_letters(title, font))
    length = length_of(keys, defaults.fps)
    if length is None:
        raise item.refusal("seconds is missing; a title card needs seconds or frames.")
    background: str | Path = "black"
    if "background" in keys:
        background = background_of(keys["background"])
    fit = keys.get("fit") or defaults.clip.places.get("fit")
    color = keys["color"].text("color") if "color" in keys else "white"
    if "color" in keys:
        located(keys["color"], lambda: check_color(color))
    return TitleCard(
        look=CardLook(
            text=title,
            background=background,
            color=color,
            font=font,
            fit=_options({} if fit is None else {"fit": fit}, item).options.fit,
        ),
        num_frames=length.value,
        transition=_transition(keys.get("transition"), defaults, is_last=is_last),
        place=item,
    )


def _transition(given: Located | None, defaults: _Defaults, *, is_last: bool) -> Transition | None:
    if given is None:
        return None
    if is_last:
        raise given.refusal("transition leads to no shot after the last; leave it out.", line=given.key_line)
    short = isinstance(given.value, str)  # `transition: cut` for `{kind: cut}`
    keys = {"kind": given} if short else given.mapping(_TRANSITION_KEYS, name="a transition")
    kind = _transition_kind(keys.get("kind"), given)
    if kind != "interpolate":
        allowed = {"kind", *_LENGTHS} if kind == "crossfade" else {"kind"}
        for name, place in keys.items():
            if name not in allowed:
                raise place.refusal(f"{name} does not go with {kind}; leave it out.", line=place.key_line)
    if kind == "interpolate":
        clip = defaults.merged(keys, given, extra=JOINED)
        between = clip.options.frames - JOINED
        return Transition(kind="interpolate", num_frames=between, prompt=prompt_of(keys), clip=clip, place=given)
    length = length_of(keys, defaults.fps)
    if kind == "crossfade" and length is None:
        raise given.refusal("crossfade needs a length; write {kind: crossfade, seconds: 0.5}.")
    if length is None:
        return Transition.cut(given)
    return Transition(kind="crossfade", num_frames=length.value, prompt="", clip=None, place=given)


def _transition_kind(place: Located | None, transition: Located) -> TransitionKind:
    kind = None if place is None else place.plain()
    for known in get_args(TransitionKind):
        if kind == known:
            return known
    kinds = ", ".join(get_args(TransitionKind))
    raise (place or transition).refusal(f"kind of a transition must be one of {kinds}, got {shown(kind)}.")


def _options(places: dict[str, Located], owner: Located) -> LocatedOptions:
    """Options, each of which keeps its own rule; what doesn't go together shows when they are resolved."""
    values = {name: place.plain() for name, place in places.items()}
    options = located(owner, lambda: AnimateOptions(**values), among=places)
    return LocatedOptions(options=options, places=places, owner=owner)


def _check_first_picture(shots: Iterable[Shot]) -> None:
    """A shot that continues the one before needs one before it; title cards between them don't count."""
    for shot in shots:
        if isinstance(shot, PictureShot):
            if shot.picture is None:
                place = shot.place.value["picture"]
                raise place.refusal(f"picture can't be {PREVIOUS} in the first shot; name a file.")
            return
