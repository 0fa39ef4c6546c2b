"""Captions: every motion in many words, some of which are kept apart to see whether the model understood or memorised.

A wording that is held out is new as a whole; its words stand in other wordings, as they would in a user's.
"""

from __future__ import annotations

import numpy as np

from dynamicrafter.data.synthetic.motions import KINDS, Kind
from dynamicrafter.data.synthetic.photos import Split

_SIDEWAYS = {
    "train": (
        "camera pans {d}",
        "the camera pans {d}",
        "pan {d}",
        "pan to the {d}",
        "camera pans to the {d}",
        "panning {d}",
        "the camera moves {d}",
        "camera moving to the {d}",
        "move the camera {d}",
        "the view slides {d}",
        "slide to the {d}",
        "the shot glides {d}",
        "camera travels {d}",
        "tracking shot to the {d}",
        "the camera drifts to the {d}",
        "a slow pan {d}",
        "{d}ward pan",
        "the view moves {d}wards",
        "look {d}",
        "gliding {d}",
        "the camera turns {d}",
    ),
    "held_out": (
        "the camera slides {d}",
        "the view pans to the {d}",
        "camera gliding {d}",
        "the shot moves to the {d}",
        "slowly panning to the {d}",
        "camera drifts {d}wards",
    ),
}
_UPRIGHT = {
    "train": (
        "camera pans {d}",
        "the camera pans {d}",
        "pan {d}",
        "panning {d}",
        "the camera moves {d}",
        "camera moving {d}",
        "move the camera {d}",
        "tilt {d}",
        "camera tilts {d}",
        "the camera tilts {d}wards",
        "the view slides {d}",
        "slide {d}",
        "the shot glides {d}",
        "camera travels {d}",
        "the camera drifts {d}",
        "a slow pan {d}",
        "{d}ward pan",
        "the view moves {d}wards",
        "look {d}",
        "gliding {d}",
        "crane {d}",
    ),
    "held_out": (
        "the camera slides {d}",
        "the view pans {d}",
        "camera gliding {d}",
        "the shot moves {d}",
        "slowly panning {d}",
        "camera drifts {d}wards",
    ),
}
_FIXED: dict[Kind, dict[Split, tuple[str, ...]]] = {
    "zoom in": {
        "train": (
            "zoom in",
            "camera zooms in",
            "the camera zooms in",
            "zooming in",
            "slow zoom in",
            "the camera moves closer",
            "move closer",
            "the camera comes nearer",
            "push in",
            "the shot pushes in",
            "dolly in",
            "the view moves in closer",
            "get closer",
            "the camera moves forward",
            "enlarge",
        ),
        "held_out": (
            "the view zooms in",
            "slowly zooming in",
            "the shot zooms in closer",
            "camera pushes in",
            "camera moving closer",
        ),
    },
    "zoom out": {
        "train": (
            "zoom out",
            "camera zooms out",
            "the camera zooms out",
            "zooming out",
            "slow zoom out",
            "the camera moves back",
            "move back",
            "the camera moves away",
            "pull out",
            "the shot pulls back",
            "dolly out",
            "the view moves further away",
            "get further away",
            "the camera moves backward",
            "shrink",
        ),
        "held_out": (
            "the view zooms out",
            "slowly zooming out",
            "the shot zooms out further",
            "camera pulls back",
            "camera moving away",
        ),
    },
    "rotate clockwise": {
        "train": (
            "rotate clockwise",
            "the view rotates clockwise",
            "clockwise rotation",
            "rotating clockwise",
            "turn clockwise",
            "turning clockwise",
            "the picture turns clockwise",
            "spin clockwise",
            "everything spins clockwise",
            "it keeps spinning clockwise",
            "roll clockwise",
            "a slow clockwise turn",
        ),
        "held_out": (
            "the picture rotates clockwise",
            "spinning clockwise",
            "the view turns clockwise",
            "slow clockwise rotation",
        ),
    },
    "rotate counterclockwise": {
        "train": (
            "rotate counterclockwise",
            "the view rotates counterclockwise",
            "counterclockwise rotation",
            "rotating counterclockwise",
            "turn counterclockwise",
            "turning counterclockwise",
            "the picture turns counterclockwise",
            "spin counterclockwise",
            "everything spins counterclockwise",
            "it keeps spinning counterclockwise",
            "roll counterclockwise",
            "a slow counterclockwise turn",
            "rotate anticlockwise",
            "turning anticlockwise",
        ),
        "held_out": (
            "the picture rotates counterclockwise",
            "spinning counterclockwise",
            "the view turns counterclockwise",
            "slow counterclockwise rotation",
        ),
    },
    "still": {
        "train": (
            "static camera",
            "still",
            "nothing moves",
            "no motion",
            "a still picture",
            "the camera stands still",
            "freeze",
            "static shot",
        ),
        "held_out": ("the view stands still", "a static picture", "no camera motion"),
    },
    "sway": {
        "train": (
            "swaying",
            "sways in the wind",
            "it sways to and fro",
            "swaying in the breeze",
            "the wind blows",
            "waving in the wind",
        ),
        "held_out": ("sways in the breeze", "swaying to and fro"),
    },
    "ripple": {
        "train": (
            "ripples",
            "rippling water",
            "the water ripples",
            "ripples run through the picture",
            "waves on the water",
            "under water",
        ),
        "held_out": ("ripples run through the water", "rippling waves"),
    },
    "darken": {
        "train": (
            "it gets dark",
            "night falls",
            "the light fades",
            "fade to black",
            "it is getting darker",
            "the lights go out",
        ),
        "held_out": ("the light fades to black", "it is getting dark"),
    },
    "brighten": {
        "train": (
            "it gets bright",
            "the sun rises",
            "the light grows",
            "fade to white",
            "it is getting brighter",
            "the lights go on",
        ),
        "held_out": ("the light grows brighter", "it is getting bright"),
    },
    "lose colour": {
        "train": (
            "the colours fade",
            "it turns black and white",
            "fade to grey",
            "losing its colours",
            "it turns grey",
        ),
        "held_out": ("its colours fade to grey",),
    },
    "dissolve": {
        "train": (
            "dissolve",
            "one picture fades into the other",
            "crossfade",
            "a smooth transition",
            "morph",
            "it turns into the other",
        ),
        "held_out": ("fades into the other picture",),
    },
}

_THINGS = (
    "cat",
    "dog",
    "bird",
    "horse",
    "man",
    "woman",
    "child",
    "girl",
    "boy",
    "house",
    "castle",
    "church",
    "temple",
    "city",
    "street",
    "bridge",
    "tower",
    "car",
    "train",
    "boat",
    "ship",
    "plane",
    "rocket",
    "bicycle",
    "motorcycle",
    "tree",
    "forest",
    "flower",
    "garden",
    "field",
    "mountain",
    "hill",
    "river",
    "lake",
    "sea",
    "beach",
    "island",
    "sky",
    "clouds",
    "moon",
    "stars",
    "sunset",
    "snow",
    "desert",
    "waterfall",
    "rock",
    "cup of coffee",
    "table",
    "chair",
    "lamp",
    "book",
    "bowl of fruit",
    "cake",
    "bottle",
    "clock",
    "guitar",
    "piano",
    "robot",
    "astronaut",
    "painting",
    "statue",
    "portrait",
    "landscape",
    "village",
    "harbour",
    "market",
    "palace",
)
_LOOKS = ("", "", "a ", "the ", "a photo of a ", "an old ", "a beautiful ", "a small ", "a red ", "a view of the ")
_AFTER = ("", "", "", "", ", slowly", ", smoothly", ", cinematic", ", 4k", ", high quality", ", realistic", " slowly")


def wordings(kind: Kind, split: Split) -> tuple[str, ...]:
    """All wordings of a motion that belong to one split, without the things around them."""
    for table, directions in ((_SIDEWAYS, ("left", "right")), (_UPRIGHT, ("up", "down"))):
        for direction in directions:
            if kind == f"pan {direction}":
                return tuple(template.format(d=direction) for template in table[split])
    return _FIXED[kind][split]


def vocabulary() -> list[str]:
    """Every piece of text that a caption of either split may hold."""
    fixed = [text for kind in KINDS for split in ("train", "held_out") for text in wordings(kind, split)]
    return [*fixed, *_THINGS, *_LOOKS, *_AFTER, ","]


def caption(rng: np.random.Generator, kind: Kind, *, split: Split = "train", bare: float = 0.4) -> str:
    """A random wording; but for a share of `bare`, a thing to see before or after it and a word on the manner."""
    known = wordings(kind, split)
    words = known[rng.integers(len(known))]
    if rng.random() < bare:
        return words
    thing = _LOOKS[rng.integers(len(_LOOKS))] + _THINGS[rng.integers(len(_THINGS))]
    words += _AFTER[rng.integers(len(_AFTER))]
    return f"{thing}, {words}" if rng.random() < 0.7 else f"{words}, {thing}"
