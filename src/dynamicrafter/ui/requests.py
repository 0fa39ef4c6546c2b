"""What a visitor asks for, as values; `checks` holds them against all rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from dynamicrafter.faces.catalogue import ModelChoice
from dynamicrafter.modes import ANIMATE, MODES, Mode
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.specs.pictures import PictureLike

if TYPE_CHECKING:
    from dynamicrafter.specs.clip import CheckedClip
    from dynamicrafter.story.plan import StoryPlan

STORY = "story"  # the tab beside those of the modes


def mode_of(tab: str) -> Mode:
    """The mode that a tab's options are for."""
    return tab if tab in MODES else ANIMATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A picture that a visitor sent.

    Attributes:
        path: where the server keeps it; for no visitor's eyes.
        name: as the visitor called it.
    """

    path: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryRow:
    """A row of the Story tab.

    Attributes:
        picture: place among the request's pictures; None goes on from the shot before.
        seconds: as typed.
        transition: kind of the one to the next shot.
    """

    picture: int | None
    prompt: str
    seconds: str
    transition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorySpec:
    """A film to be made of rows, beside which a `ClipSpec` is a clip; its prompt is its name."""

    pictures: tuple[PictureLike, ...]
    prompts: tuple[str, ...] = ("",)
    rows: tuple[StoryRow, ...] = ()
    options: AnimateOptions = field(default_factory=AnimateOptions)
    mode: str = STORY


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRequest:
    """One clip or film, as a visitor asked for it.

    Attributes:
        uploads: its pictures, as the visitor knows them.
        model: the row that was chosen, its model named.
        fps: frames per second at which it plays; None for the clip's own.
        key: by which it was chosen: "automatic" stays so when it is used again.
        work: what is to be made, once it was checked.
        notes: what its visitor should know of it, a line each.
    """

    spec: ClipSpec | StorySpec
    uploads: tuple[Upload, ...]
    model: ModelChoice
    key: str
    fps: Fraction | None = None
    work: CheckedClip | StoryPlan | None = None
    notes: tuple[str, ...] = ()

    @property
    def tab(self) -> str:
        return self.spec.mode

    @property
    def prompt(self) -> str:
        return self.spec.prompts[0]

    @property
    def take(self) -> int:
        """1 for the first of several with one seed."""
        return self.spec.sample + 1 if isinstance(self.spec, ClipSpec) else 1

    @property
    def rows(self) -> tuple[StoryRow, ...]:
        return self.spec.rows if isinstance(self.spec, StorySpec) else ()
