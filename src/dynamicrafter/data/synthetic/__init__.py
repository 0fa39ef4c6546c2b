"""Clips whose motion is known, made of sample photos and of nothing: to train the small model, and examine any.

pictures (photos, textures) → motions (what moves, how fast) → clips, with captions in many wordings
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynamicrafter.data.synthetic.motions import Kind, MotionSpeed
    from dynamicrafter.data.synthetic.photos import Pixels


def held_out_pictures() -> list[tuple[str, Pixels]]:
    """The photos that no training clip shows, (h, w, 3), by name."""
    from dynamicrafter.data.synthetic.photos import held_out_photos

    return held_out_photos()


def held_out_wordings() -> dict[Kind, tuple[str, ...]]:
    """Captions that no training clip has, by the motion that they ask for."""
    from dynamicrafter.data.synthetic.motions import BETWEEN_PICTURES, KINDS
    from dynamicrafter.data.synthetic.wordings import wordings

    return {kind: wordings(kind, "held_out") for kind in KINDS if kind != BETWEEN_PICTURES}


def nominal_motion(kind: Kind, motion: float, size: tuple[int, int] = (128, 128)) -> MotionSpeed:
    """What a camera motion does from frame to frame at a motion number; the same in pixels at every frame size."""
    from dynamicrafter.data.synthetic import motions

    return motions.nominal_motion(kind, motion)
