"""The sub-commands that make and fetch things, as dataclasses whose fields are their arguments and flags.

Importable without torch, so that help appears at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Fixed, FlagCreatePairsOff, Positional, Suppress, UseAppendAction, arg

from dynamicrafter.animator.options import AnimateOptions, Mode
from dynamicrafter.cli.parsing import INTERVAL, PICTURE, SIZE_OR_AUTO
from dynamicrafter.cli.recipe import Recipe
from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import SUFFIXES
from dynamicrafter.presets import Quality

Switch = FlagCreatePairsOff[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFlags(AnimateOptions):
    """The options of a clip; here only what reads differently on a command line."""

    image_guidance: Annotated[float | None, arg(help_behavior_hint="(default: none)")] = None
    size: Annotated[
        tuple[int, int] | Literal["auto"] | None,
        SIZE_OR_AUTO,
        arg(
            help="Frame width and height in pixels, multiples of 64, such as 1024x576; or auto: the (first) picture's "
            "own shape, with about as many pixels as the preset's."
        ),
    ] = None
    guidance_interval: Annotated[
        tuple[int, int] | None,
        INTERVAL,
        arg(
            help="Timesteps, 0 (clean) to 999 (pure noise), at which guidance works, such as 200-800; at others a step "
            "costs one pass alone.",
            help_behavior_hint="(default: all)",
        ),
    ] = None
    cache: Annotated[float | None, arg(help_behavior_hint="(default: 0)")] = None
    quality: Annotated[Quality | None, arg(help_behavior_hint="(default: the preset's own steps and sampler)")] = None
    negative: Annotated[str, arg(metavar="TEXT", help_behavior_hint="(default: nothing)")] = ""
    deterministic: Annotated[bool, arg(help_behavior_hint="(default: no)")] = False
    pin_first_frame: Annotated[bool, arg(help_behavior_hint="(default: no)")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlags:
    """What makes the clip, and on what."""

    model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the best on this machine)")] = None
    """A preset (256, 512, 1024, interp), a folder, a file or a repository on the hub; or bundled, the small model of
    the package, which is the default where no preset's weights are."""
    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Which preset a file descends from, where its keys don't tell."""
    encoders: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """File or folder with CLIP's encoders, for a pruned file without them."""
    lora: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="FILE[:SCALE]", help_behavior_hint="")]] = ()
    """Adapters to put on the model, and how strongly they work (default: 1); may be given several times."""
    device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the best there is)")] = None
    """cpu, cuda, cuda:N or mps."""
    dtype: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: what suits the device)")] = None
    """Number format: float32, bfloat16 or float16."""
    download: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Fetch what is not on this machine."""
    memory: Annotated[str | None, arg(metavar="SIZE", help_behavior_hint="(default: all that the device has)")] = None
    """The most that may be used, such as 8GB; what doesn't fit is made to, and the command says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFlags:
    """Where the clip goes, and in what form."""

    output: Annotated[
        Path | None,
        arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(default: named after the picture, replaces nothing)"),
    ] = None
    """File to write or replace; its extension chooses mp4, mov, webm, gif, webp or npy; without one, a PNG folder."""
    format: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: by the extension)")] = None
    """mp4, mov, webm, gif, webp, npy or png (a folder), where the extension doesn't say it."""
    fps: Annotated[str | None, arg(metavar="NUMBER", help_behavior_hint="(default: 8)")] = None
    """Frames per second at which the clip plays, such as 12 or 24000/1001; how much moves is --motion's."""
    crf: Annotated[int | None, arg(help_behavior_hint="(default: mp4 16, webm 24)")] = None
    """Quality of mp4 (0 to 51) and webm (0 to 63); a smaller number looks better and makes a larger file."""
    samples: int = 1
    """How many takes to make, one after the other: FILE, FILE-2, FILE-3, …"""
    like: Annotated[Path | None, arg(metavar="CLIP", help_behavior_hint="")] = None
    """Repeat an earlier clip from what its file says; pictures, prompt and flags that are given go first."""
    dry_run: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Say what the clip takes in memory, and what is done to make it fit; read no weights and make nothing."""
    quiet: Annotated[Switch, arg(aliases=["-q"], help_behavior_hint="")] = False
    """Say nothing but warnings, errors and the result's path."""


Picture = Annotated[Positional[Path | None], PICTURE]


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
class OnePicture(Subject):
    image: Annotated[Picture, arg(metavar="IMAGE", help_behavior_hint="")] = None
    """The picture."""
    prompt: Annotated[Positional[str], arg(metavar="[PROMPT]", help_behavior_hint="")] = ""
    """What happens; may be left out."""

    @property
    def pictures(self) -> tuple[Path | None, ...]:
        return (self.image,)

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt,)


@dataclass(frozen=True, kw_only=True)
class KeyPictures(Subject):
    first: Annotated[Picture, arg(metavar="FIRST", help_behavior_hint="")] = None
    """The picture to begin with."""
    last: Annotated[Picture, arg(metavar="LAST", help_behavior_hint="")] = None
    """The picture to end on, or the second of several."""
    more: Annotated[Positional[tuple[str, ...]], arg(metavar="[PICTURE …] [PROMPT]", help_behavior_hint="")] = ()
    """More pictures to go through: words that end in .jpg, .png or another picture's extension. Behind them what
    happens, in one word or in quotes; may be left out. With --prompt, all words are pictures."""
    prompt: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="TEXT", help_behavior_hint="")]] = ()
    """What happens; given once for each gap between two pictures, it tells them apart."""
    closed: Annotated[bool, arg(help_behavior_hint="(default: no)")] = False
    """Lead back from the last picture to the first, so that the clip loops."""
    stored: Annotated[tuple[Path, ...], Fixed, Suppress] = ()
    """Pictures of a clip that is repeated, behind its second."""
    stored_prompts: Annotated[tuple[str, ...], Fixed, Suppress] = ("",)

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
    clip: ClipFlags = field(default_factory=ClipFlags)
    """How the clip is made."""
    output: OutputFlags = field(default_factory=OutputFlags)
    """Where it goes, and in what form."""
    model: ModelFlags = field(default_factory=ModelFlags)
    """What makes it, and on what."""
    recipe: Annotated[Recipe | None, Fixed, Suppress] = None

    @property
    def picture_names(self) -> tuple[str, ...]:
        """How messages call the pictures."""
        if len(self.pictures) == 1:
            return ("image",)
        return ("first", "last", *(f"picture {number}" for number in range(3, len(self.pictures) + 1)))


@dataclass(frozen=True, kw_only=True)
class AnimateCommand(MakeCommand, OnePicture):
    """Animate a picture as the prompt says: dynamicrafter animate photo.jpg "a boat on a stormy sea" -o boat.mp4"""

    mode: ClassVar[Mode] = "animate"


@dataclass(frozen=True, kw_only=True)
class InterpolateCommand(MakeCommand, KeyPictures):
    """Fill the time between pictures: dynamicrafter interpolate dawn.jpg dusk.jpg "the day goes by" -o day.mp4

    Through several, with --frames for each gap: dynamicrafter interpolate a.jpg b.jpg c.jpg "a walk" --closed
    """

    mode: ClassVar[Mode] = "interpolate"


@dataclass(frozen=True, kw_only=True)
class LoopCommand(MakeCommand, OnePicture):
    """Make a video whose end runs into its beginning: dynamicrafter loop photo.jpg "waves roll in" -o waves.gif"""

    mode: ClassVar[Mode] = "loop"


@dataclass(frozen=True, kw_only=True)
class DownloadCommand:
    """Fetch a model's weights from the Hugging Face hub; an interrupted download goes on where it stopped."""

    preset: Annotated[Positional[str], arg(metavar="PRESET", help_behavior_hint="")]
    """256, 512, 1024 or interp."""
    pruned: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Take a smaller copy in half precision (about half of 10.4 GB) instead of the published file."""


@dataclass(frozen=True, kw_only=True)
class ModelsCommand:
    """List the models on this machine."""
