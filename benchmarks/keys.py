"""Measures joints at key pictures and the pinned first frame, with the bundled model on photos that it never saw.

python benchmarks/keys.py [PICTURE.png] [--photos N]; a few minutes on one core; needs the extra "evaluate". Key
pictures are views of one photo, 15 pixels apart, which a camera at motion 16 covers in a gap of 16 frames. With a path,
one closed clip is drawn there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dynamicrafter import Animator
from dynamicrafter.data.synthetic.photos import held_out_photos
from dynamicrafter.evaluation.cases import view
from dynamicrafter.evaluation.closure import loop_closure
from dynamicrafter.evaluation.fidelity import psnr, reconstruct
from dynamicrafter.evaluation.flicker import flicker
from dynamicrafter.evaluation.joints import first_jump, measure_joints
from dynamicrafter.evaluation.motion import CameraMotion
from dynamicrafter.media.contact_sheet import contact_sheet
from dynamicrafter.specs.gaps import join_gaps, match_colours

SIZE = (128, 128)
MOTION, APART = 16, 15  # 16/16 pixels a frame over 15 frames
PAN = "the camera pans left"


def views(photo: np.ndarray) -> list[np.ndarray]:
    """Three key pictures of a pan to the left."""
    return [view(photo, SIZE, CameraMotion(x=x, y=0, log_zoom=0, rotation=0)) for x in (-APART, 0, APART)]


def joints_of(animator: Animator, photo: np.ndarray) -> dict[str, list[float]]:
    """For each way to join two gaps: pace, jerk and step of colour at the joint, flicker, PSNR of the key pictures."""
    keys = views(photo)
    pairs = [(keys[0], keys[1], ""), (keys[1], keys[2], "\ngap 2")]

    def gaps(*, pinned: bool) -> list[np.ndarray]:
        settings = {"motion": MOTION, "pin_first_frame": pinned, "deterministic": True}
        return [animator.interpolate(a, b, PAN, item=item, **settings).frames for a, b, item in pairs]

    def measured(clips: list[np.ndarray]) -> list[float]:
        frames = join_gaps(clips, closed=False)
        joints = measure_joints(frames, [15])
        kept = float(np.mean([psnr(frames[15 * i], key) for i, key in enumerate(keys)]))
        return [np.nan if joints.pace is None else joints.pace, joints.jerk, joints.colour, flicker(frames), kept]

    held = gaps(pinned=True)
    return {
        "as published": measured(gaps(pinned=False)),
        "pinned": measured(held),
        "pinned, colours matched": measured([match_colours(gap) for gap in held]),
    }


def closed_of(animator: Animator, photo: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """A closed clip through two pictures and back, and its closure, step of colour across its joints, and flicker."""
    first, middle, _ = views(photo)
    clip = animator.interpolate_through([first, middle], [PAN, "the camera pans right"], closed=True, motion=MOTION)
    joints = measure_joints(clip.frames, [0, 15], closed=True)
    return clip.frames, [loop_closure(clip.frames), joints.colour, flicker(clip.frames)]


def pinned_of(animator: Animator, photo: np.ndarray, prompt: str, **settings: float) -> dict[str, list[float]]:
    """For each first frame: its PSNR to the picture, the jump from it, and PSNR of the second frame to the picture."""
    picture = view(photo, SIZE)
    free, held = (animator.animate(picture, prompt, pin_first_frame=pin, **settings).frames for pin in (False, True))
    own = np.concatenate([picture[None], held[1:]])
    found = {"as published": free, "pinned": held, "with the picture's own pixels": own}
    table = {name: [psnr(clip[0], picture), first_jump(clip), psnr(clip[1], picture)] for name, clip in found.items()}
    return table | {"the autoencoder alone": [psnr(reconstruct(animator.pipeline, picture), picture), np.nan, np.nan]}


def show(title: str, columns: str, tables: list[dict[str, list[float]]]) -> None:
    """Means over photos, as a table."""
    print(f"\n{title}\n\n| | {columns} |\n|---|{'---|' * (columns.count('|') + 1)}")
    for name in tables[0]:
        values = np.array([table[name] for table in tables])
        shown = ["–" if np.isnan(column).all() else f"{np.nanmean(column):.2f}" for column in values.T]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, nargs="?", help="where a closed clip is drawn")
    parser.add_argument("--photos", type=int, default=4, help="how many of the four photos are used")
    arguments = parser.parse_args()
    animator = Animator.from_pretrained("bundled")
    animator.pipeline.set_progress_bar_config(disable=True)
    photos = [photo for _, photo in held_out_photos()][: arguments.photos]
    columns = "pace | jerk | step of colour | flicker | key pictures, dB"
    show("Joints of two gaps", columns, [joints_of(animator, photo) for photo in photos])
    for title, prompt, settings in (
        ("First frame, pan", PAN, {}),
        ("First frame, still", "nothing moves", {}),
        ("First frame, pan, eta 1", PAN, {"eta": 1.0}),
    ):
        table = [pinned_of(animator, photo, prompt, **settings) for photo in photos]
        show(title, "first frame, dB | jump | second frame, dB", table)
    frames, found = closed_of(animator, photos[-1])
    show("Closed, the last of the photos", "closure | step of colour | flicker", [{"there and back": found}])
    if arguments.picture is not None:
        contact_sheet(frames[::3], columns=5).save(arguments.picture, optimize=True)


if __name__ == "__main__":
    main()
