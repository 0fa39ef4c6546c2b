"""Measures joints at key pictures and the pinned first frame, with the bundled model on photos that it never saw.

python benchmarks/keys.py [PICTURE.png]; a few minutes on one core; needs the extra "evaluate". Key pictures are views
of one photo, 15 pixels apart, which a camera at motion 16 covers in a gap of 16 frames. With a path, one closed clip is
drawn there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dynamicrafter import Animator
from dynamicrafter.animator.keys import join_gaps, match_colours
from dynamicrafter.data.synthetic.photos import held_out_photos
from dynamicrafter.evaluation.cases import view
from dynamicrafter.evaluation.closure import loop_closure
from dynamicrafter.evaluation.fidelity import psnr, reconstruct
from dynamicrafter.evaluation.flicker import flicker
from dynamicrafter.evaluation.joints import first_jump, measure_joints
from dynamicrafter.evaluation.motion import CameraMotion
from dynamicrafter.media.contact_sheet import contact_sheet

SIZE = (128, 128)
MOTION, APART = 16, 15  # 16/16 pixels a frame over 15 frames
PAN = "the camera pans left"
DRAWN = "chelsea"


def views(photo: np.ndarray) -> list[np.ndarray]:
    """Three key pictures of a pan to the left."""
    return [view(photo, SIZE, CameraMotion(x=x, y=0, log_zoom=0, rotation=0)) for x in (-APART, 0, APART)]


def joints_of(animator: Animator, photo: np.ndarray) -> dict[str, list[float]]:
    """For each way to join two gaps: pace, jerk and step of colour at the joint, flicker, PSNR of the key pictures."""
    keys = views(photo)
    pairs = [(keys[0], keys[1], ""), (keys[1], keys[2], "\ngap 2")]
    found = {}
    for name, pinned in (("as published", False), ("pinned", True), ("pinned, colours matched", True)):
        settings = {"motion": MOTION, "pin_first_frame": pinned, "deterministic": True}
        gaps = [animator.interpolate(a, b, PAN, item=item, **settings).frames for a, b, item in pairs]
        if "matched" in name:
            gaps = [match_colours(gap) for gap in gaps]
        frames = join_gaps(gaps, closed=False)
        joints = measure_joints(frames, [15])
        kept = float(np.mean([psnr(frames[15 * i], key) for i, key in enumerate(keys)]))
        pace = np.nan if joints.pace is None else joints.pace
        found[name] = [pace, joints.jerk, joints.colour, flicker(frames), kept]
    return found


def closed_of(animator: Animator, photo: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """A closed clip through two pictures and back, and its closure, pace and step of colour across all its joints."""
    first, middle, _ = views(photo)
    prompts = [PAN, "the camera pans right"]
    clip = animator.interpolate_through([first, middle], prompts, closed=True, motion=MOTION)
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
    animator = Animator.from_pretrained("bundled")
    animator.pipeline.set_progress_bar_config(disable=True)
    photos = held_out_photos()
    columns = "pace | jerk | step of colour | flicker | key pictures, dB"
    show("Joints of two gaps", columns, [joints_of(animator, photo) for _, photo in photos])
    closed = {name: closed_of(animator, photo) for name, photo in photos}
    show("Closed", "closure | step of colour | flicker", [{"there and back": found} for _, found in closed.values()])
    if len(sys.argv) > 1:
        contact_sheet(closed[DRAWN][0][::3], columns=5).save(Path(sys.argv[1]), optimize=True)
    for title, prompt, settings in (
        ("First frame, pan, eta 0", PAN, {}),
        ("First frame, still, eta 0", "nothing moves", {}),
        ("First frame, pan, eta 1", PAN, {"eta": 1.0}),
        ("First frame, pan, 50 steps", PAN, {"steps": 50}),
    ):
        used = photos[:1] if "steps" in settings else photos
        table = [pinned_of(animator, photo, prompt, **settings) for _, photo in used]
        show(title, "first frame, dB | jump | second frame, dB", table)


if __name__ == "__main__":
    main()
