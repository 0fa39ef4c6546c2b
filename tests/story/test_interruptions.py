"""A story goes on from wherever it was killed: nothing complete is lost, and nothing is made twice."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest

from dynamicrafter.media.video import read_clip, read_metadata
from stories import complete_clips, run_command, write_story

STORY = """\
model: seeded:tiny
defaults: {steps: 3, guidance: 1, frames: 6, size: 64x64}
shots:
  - title: Begin
    frames: 4
  - picture: red.png
    transition: {kind: crossfade, frames: 2}
  - picture: blue.png
  - picture: previous
    transition: {kind: interpolate, frames: 3}
  - picture: red.png
    seed: 4
"""
WORDS = ["story", "story.yaml", "--device", "cpu", "--dtype", "float32", "--quiet", "-o", "film.mp4"]


@pytest.fixture(scope="module")
def processes():
    """Processes that start with everything imported, and share no state with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dynamicrafter.animator.animator", "dynamicrafter.story.making", "stories"])
    return context


def started(processes, folder):
    process = processes.Process(target=run_command, args=(folder, WORDS))
    process.start()
    return process


def test_a_story_killed_at_random_moments_becomes_the_same_film_and_makes_nothing_twice(tmp_path, processes):
    folders = [tmp_path / name for name in ("unbroken", "killed")]
    for folder in folders:
        folder.mkdir()
        write_story(folder, STORY)
    unbroken, killed = folders
    warm_up = started(processes, unbroken)
    warm_up.join()
    assert warm_up.exitcode == 0
    seed = time.time_ns()
    chance = random.Random(seed)
    seen = {}
    for least in (1, 3, 5):  # clips that are there when a moment later the kill comes
        process = started(processes, killed)
        while process.is_alive() and len(complete_clips(killed / "film.shots")) < least:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()  # does nothing where the film was finished before
        process.join()
        now = complete_clips(killed / "film.shots")
        assert seen.items() <= now.items(), f"seed {seed}"
        seen = now
    last = started(processes, killed)
    last.join()
    assert last.exitcode == 0
    assert complete_clips(killed / "film.shots").items() >= seen.items(), f"seed {seed}"
    films = [read_clip(folder / "film.mp4")[0] for folder in folders]
    np.testing.assert_array_equal(films[0], films[1], err_msg=f"seed {seed}")
    assert read_metadata(killed / "film.mp4") == read_metadata(unbroken / "film.mp4")
    assert sorted(path.name for path in killed.iterdir()) == sorted(path.name for path in unbroken.iterdir())
    assert not [path.name for path in (killed / "film.shots").iterdir() if path.name.startswith(".dynamicrafter")]


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(tmp_path, processes):
    write_story(tmp_path, STORY)
    process = started(processes, tmp_path)
    while process.is_alive() and len(complete_clips(tmp_path / "film.shots")) < 2:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    kept = complete_clips(tmp_path / "film.shots")
    assert not (tmp_path / "film.mp4").exists()
    again = started(processes, tmp_path)
    again.join()
    assert again.exitcode == 0
    assert complete_clips(tmp_path / "film.shots").items() >= kept.items()
