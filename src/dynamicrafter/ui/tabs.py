"""The page's tabs: one for each mode of the table, in words of their own where they have them, and one for stories."""

from __future__ import annotations

from dataclasses import dataclass

from dynamicrafter.modes import ANIMATE, INTERPOLATE, LOOP, MODES, TEXT, ModeEntry
from dynamicrafter.ui.requests import STORY

MOST_PICTURES = 6  # places of a tab
MOST_SHOTS = 6
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")

Example = tuple[tuple[str, ...], str]  # files among the page's pictures, and a prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class TabText:
    """What is particular about a tab.

    Attributes:
        name: the mode's, or `STORY`.
        pictures, more: labels of those that are needed, and of those that may be left out.
        prompt: an example, shown where nothing is typed in.
        asks: what is typed in.
        without: options that say nothing there.
    """

    name: str
    title: str
    lead: str
    pictures: tuple[str, ...]
    button: str
    prompt: str = ""
    examples: tuple[Example, ...] = ()
    more: tuple[str, ...] = ()
    asks: str = "What happens"
    without: tuple[str, ...] = ()


_PROMPTS: dict[str, str] = {
    ANIMATE: "the camera pans left",
    INTERPOLATE: "the camera pans right",
    LOOP: "the camera pans left",
    TEXT: "a lighthouse in a storm",
}
_EXAMPLES: dict[str, tuple[Example, ...]] = {
    ANIMATE: ((("rocket.jpg",), "the camera pans left"), (("cat.jpg",), "the camera tilts down")),
    INTERPOLATE: ((("coffee-left.jpg", "coffee-right.jpg"), "the camera pans right"),),
    LOOP: ((("cat.jpg",), "the camera pans left"), (("rocket.jpg",), "nothing moves")),
}
_STORY = TabText(
    name=STORY,
    title="Story",
    lead="Several shots become one film. A shot without a picture goes on from the one before.",
    pictures=(),
    prompt="My film",
    button="Make the film",
    asks="Name of the film",
    without=("frames",),
)


def all_tabs() -> list[TabText]:
    """All tabs in their order."""
    return [*map(_tab_of, MODES.values()), _STORY]


def _tab_of(mode: ModeEntry) -> TabText:
    least, most = mode.pictures
    places = [f"{word} picture" for word in _ORDINALS[: MOST_PICTURES if most is None else most]]
    labels = ["Picture"] if len(places) == 1 else places
    title = mode.name.replace("_", " ").capitalize()
    return TabText(
        name=mode.name,
        title=title,
        lead=mode.promise,
        pictures=tuple(labels[:least]),
        more=tuple(labels[least:]),
        button=title,
        prompt=_PROMPTS.get(mode.name, ""),
        examples=_EXAMPLES.get(mode.name, ()),
    )
