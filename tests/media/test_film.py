"""A film is written frame by frame, in memory that doesn't grow with it, and appears when it is complete."""

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import clear_leftovers
from dynamicrafter.media.film import film_format, write_film


def write(path, frames, num_frames, **options):
    write_film(path, frames, num_frames=num_frames, size=(64, 64), fps=Fraction(8), metadata={}, **options)


def peak_of(path, num_frames):
    tracemalloc.start()
    try:
        write(path, (np.full((64, 64, 3), index % 256, np.uint8) for index in range(num_frames)), num_frames)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_a_films_length(tmp_path):
    short = peak_of(tmp_path / "short.mp4", 40)
    assert peak_of(tmp_path / "long.mp4", 800) < short + 10 * 64 * 64 * 3


def test_a_film_that_fails_half_way_leaves_the_older_one(tmp_path):
    film = tmp_path / "film.mp4"
    film.write_text("older")

    def frames():
        yield np.zeros((64, 64, 3), np.uint8)
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        write(film, frames(), 2, within=tmp_path)
    assert film.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_folders_leftovers_are_cleared_and_nothing_else(tmp_path):
    (tmp_path / ".dynamicrafter-12ab.mp4").write_text("half")
    (tmp_path / ".dynamicrafter-34cd").mkdir()
    (tmp_path / ".dynamicrafter-34cd" / "0000.png").write_text("half")
    (tmp_path / "mine.txt").write_text("mine")
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "sound", "said"),
    [
        ("film.gif", False, "film.gif must be a film, mp4 or webm; name it film.mp4."),
        ("film", False, "must be a film"),
        ("film.webm", True, "film.webm can't hold AAC sound, which mp4 does; name it film.mp4."),
        ("film.avi", False, "unknown extension .avi"),
    ],
)
def test_formats_that_hold_no_film_are_refused(name, sound, said):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        film_format(Path(name), sound=sound)
