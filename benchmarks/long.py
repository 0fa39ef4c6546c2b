"""Long clips of the bundled model: seams at the borders of windows, processor time and memory against the length.

python benchmarks/long.py [FRAMES …]        one process a clip, so that each has a peak of its own
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

LENGTHS = (16, 32, 64, 128)
SUBJECTS = (
    ("rocket", "the camera pans left", "animate"),
    ("chelsea", "the camera pans right", "animate"),
    ("coffee", "the camera pans up", "animate"),
    ("rocket", "the camera pans left", "loop"),
)


def make(picture: str, prompt: str, mode: str, frames: int) -> dict[str, float | int | str | None]:
    """One clip, one thread, float32; times without loading."""
    import skimage.data
    import torch

    from dynamicrafter import Animator
    from dynamicrafter.evaluation.closure import loop_closure, window_seam
    from dynamicrafter.models.windows import TimeWindows

    torch.set_num_threads(1)
    animator = Animator.from_pretrained("bundled", device="cpu", dtype="float32")
    animator.pipeline.set_progress_bar_config(disable=True)
    began, wall = time.process_time(), time.monotonic()
    kept = frames + (mode == "loop")
    clip = getattr(animator, mode)(getattr(skimage.data, picture)(), prompt, frames=kept)
    seconds, wall = time.process_time() - began, time.monotonic() - wall
    seam = None
    if kept > 16:
        windows = TimeWindows(16, 4, (0, kept - 1) if mode == "loop" else ())
        seam = window_seam(clip.frames, [border for border in windows.borders(kept) if border < len(clip.frames)])
    return {
        "picture": picture,
        "mode": mode,
        "frames": len(clip.frames),
        "seam": seam,
        "closure": loop_closure(clip.frames) if mode == "loop" else None,
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(wall, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        picture, prompt, mode, frames = sys.argv[2:]
        print(json.dumps(make(picture, prompt, mode, int(frames))))
        return
    for picture, prompt, mode in SUBJECTS:
        for frames in [int(word) for word in sys.argv[1:]] or LENGTHS:
            words = [sys.executable, __file__, "--one", picture, prompt, mode, str(frames)]
            print(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
