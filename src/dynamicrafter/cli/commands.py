"""The sub-commands that make and fetch things, as dataclasses whose fields are their arguments and flags.

Importable without torch, so that help appears at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import FlagCreatePairsOff, Positional, Suppress, arg

from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import SUFFIXES
from dynamicrafter.modes import ANIMATE, INTERPOLATE, LOOP, TEXT, Mode, get_mode
from dynamicrafter.schema import Unset
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.metadata import StoredClip
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.specs.output import OutputOptions

Switch = FlagCreatePairsOff[bool]
Silent = arg(help_behavior_hint="")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFlags(OutputOptions):
    """Where the clip goes, and in what form."""

    output: Annotated[
        Path | None, arg(aliases=["-o"], metavar="FILE"), Unset("named after the picture, replaces nothing")
    ] = None
    """File to write or replace; its extension chooses the format; without one, a folder of PNGs."""
    like: Annotated[Path | None, arg(metavar="CLIP"), Silent] = None
    """Repeat an earlier clip from what its file says; pictures, prompt and flags that are given go first."""
    dry_run: Annotated[Switch, Silent] = False
    """Say what the clip takes in memory, and what is done to make it fit; read no weights and make nothing."""
    quiet: Annotated[Switch, arg(aliases=["-q"]), Silent] = False
    """Say nothing but warnings, errors and the result's path."""

    @property
    def form(self) -> OutputOptions:
        """The options of the file alone."""
        return OutputOptions(format=self.format, fps=self.fps, crf=self.crf, samples=self.samples)


@dataclass(frozen=True, kw_only=True)
class Subject(ABC):
    """What a clip is made of."""

    @property
    @abstractmethod
    def pictures(self) -> tuple[Path | None, ...]:
        """One or several; None in the place of one that must be given and is not."""

    @property
    @abstractmethod
    def prompts(self) -> tuple[str, ...]:
        """One, or one for each gap between pictures."""


@dataclass(frozen=True, kw_only=True)
class WordsAlone(Subject):
    words: Annotated[str, Positional, arg(metavar="PROMPT"), Silent] = ""
    """What is seen, and what happens."""
    prompt: Annotated[str | None, Silent] = None
    """The same as an option, for a prompt that begins with a dash."""

    @property
    def pictures(self) -> tuple[Path | None, ...]:
        return ()

    @property
    def prompts(self) -> tuple[str, ...]:
        return _prompt_of(self.words, self.prompt)


def _prompt_of(words: str, option: str | None) -> tuple[str]:
    """The prompt, from one of its two places.

    Raises:
        InputError: it stands in both.
    """
    if option is not None and words:
        raise InputError(f"prompt must be given once, got {words!r} and --prompt {option!r}.")
    return (option if option is not None else words,)


@dataclass(frozen=True, kw_only=True)
class OnePicture(Subject):
    image: Annotated[Path | None, Positional, arg(metavar="IMAGE"), Silent] = None
    """The picture."""
    words: Annotated[str, Positional, arg(metavar="[PROMPT]"), Silent] = ""
    """What happens; may be left out."""
    prompt: Annotated[str | None, Silent] = None
    """The same as an option, for a prompt that begins with a dash."""

    @property
    def pictures(self) -> tuple[Path | None, ...]:
        return (self.image,)

    @property
    def prompts(self) -> tuple[str, ...]:
        return _prompt_of(self.words, self.prompt)


@dataclass(frozen=True, kw_only=True)
class KeyPictures(Subject):
    first: Annotated[Path | None, Positional, arg(metavar="FIRST"), Silent] = None
    """The picture to begin with."""
    last: Annotated[Path | None, Positional, arg(metavar="LAST"), Silent] = None
    """The picture to end on, or the second of several."""
    more: Annotated[tuple[str, ...], Positional, arg(metavar="[PICTURE …] [PROMPT]"), Silent] = ()
    """More pictures to go through: words that end in .jpg, .png or another picture's extension. Behind them what
    happens, in one word or in quotes; may be left out. With --prompt, all words are pictures."""
    prompt: Annotated[tuple[str, ...], arg(metavar="TEXT"), Silent] = ()
    """What happens; given once for each gap between two pictures, it tells them apart."""
    closed: bool = False
    """Lead back from the last picture to the first, so that the clip loops."""
    stored: Annotated[tuple[Path, ...], Suppress] = ()
    """Pictures of a clip that is repeated, behind its second."""
    stored_prompts: Annotated[tuple[str, ...], Suppress] = ("",)

    @property
    def pictures(self) -> tuple[Path | None, ...]:
        typed = tuple(map(Path, self._words[0]))
        return (self.first, self.last, *typed, *self.stored[len(typed) :])

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.prompt or self._words[1] or self.stored_prompts

    @property
    def _words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The pictures and the prompt, if any, among the words behind the first two pictures.

        Raises:
            InputError: a word before the last is no picture's name.
        """
        if self.prompt:
            return self.more, ()
        end = len(self.more)
        if end and not _names_picture(self.more[-1]):
            end -= 1
        wrong = next((word for word in self.more[:end] if not _names_picture(word)), None)
        if wrong is not None:
            raise InputError(
                f"{wrong!r} is not named like a picture ({', '.join(SUFFIXES)}); put a prompt of several words into "
                f"quotes, behind all pictures, or behind --prompt, and all other words are pictures."
            )
        return self.more[:end], self.more[end:]


def _names_picture(word: str) -> bool:
    """Decided by the name alone, so that a prompt stays one, whatever files there are."""
    return word.lower().endswith(SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class MakeCommand(Subject):
    """What all commands that make a clip share; mixed in before the pictures, whose places come first."""

    mode: ClassVar[Mode]
    clip: AnimateOptions = field(default_factory=AnimateOptions)
    """How the clip is made."""
    output: OutputFlags = field(default_factory=OutputFlags)
    """Where it goes, and in what form."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """What makes it, and on what."""
    repeats: Annotated[StoredClip | None, Suppress] = None

    def spec(self) -> ClipSpec:
        """The clip that is asked for, its first take.

        Raises:
            InputError: a picture is missing, or pictures and prompts don't go together.
        """
        names = get_mode(self.mode).picture_names
        for name, picture in zip(names, self.pictures, strict=False):
            if picture is None:
                usage = " ".join(name.upper() for name in names)
                raise InputError(
                    f'{name} is missing; name it: dynamicrafter {self.mode} {usage} "PROMPT", or repeat a clip with '
                    f"--like CLIP."
                )
        last = str(self.pictures[-1]) if len(self.pictures) == 2 else None
        if last is not None and not _names_picture(last) and not Path(last).exists():
            raise InputError(
                f"{self.mode} needs two pictures, and {last!r} is none; name the second before the prompt."
            )
        spec = ClipSpec(
            pictures=tuple(str(picture) for picture in self.pictures),
            prompts=self.prompts,
            mode=self.mode,
            closed=getattr(self, "closed", False),
            options=self.clip,
        )
        return spec if self.repeats is None else replace(spec, item=self.repeats.item, sample=self.repeats.sample)


@dataclass(frozen=True, kw_only=True)
class AnimateCommand(MakeCommand, OnePicture):
    """Animate a picture as the prompt says: dynamicrafter animate photo.jpg "a boat on a stormy sea" -o boat.mp4

    The size is --size 512x320, or auto for the photo's shape; --seed 2 gives another take, and --quality fast a quick
    one; --frames 32 --fps 16 is two seconds.
    """

    mode: ClassVar[Mode] = ANIMATE


@dataclass(frozen=True, kw_only=True)
class InterpolateCommand(MakeCommand, KeyPictures):
    """Fill the time between pictures: dynamicrafter interpolate dawn.jpg dusk.jpg "the day goes by" -o day.mp4

    Through several, with --frames for each gap: dynamicrafter interpolate a.jpg b.jpg c.jpg "a walk" --closed
    """

    mode: ClassVar[Mode] = INTERPOLATE


@dataclass(frozen=True, kw_only=True)
class LoopCommand(MakeCommand, OnePicture):
    """Make a video whose end runs into its beginning: dynamicrafter loop photo.jpg "waves roll in" -o waves.gif"""

    mode: ClassVar[Mode] = LOOP


@dataclass(frozen=True, kw_only=True)
class TextCommand(MakeCommand, WordsAlone):
    """Make a video of a prompt alone: dynamicrafter text "a lighthouse in a storm" --model vc2 -o storm.mp4"""

    mode: ClassVar[Mode] = TEXT


@dataclass(frozen=True, kw_only=True)
class DownloadCommand:
    """Fetch a model's weights from the Hugging Face hub; an interrupted download goes on where it stopped."""

    preset: Annotated[str, Positional, arg(metavar="PRESET"), Silent]
    """256, 512, 1024 or interp."""
    pruned: Annotated[Switch, Silent] = False
    """Take a smaller copy in half precision (about half of 10.4 GB) instead of the published file."""


@dataclass(frozen=True, kw_only=True)
class ModelsCommand:
    """List the models on this machine."""
