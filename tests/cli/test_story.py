"""`dynamicrafter story`, as a user types it."""

import shutil

import av
import numpy as np
import pytest
from PIL import Image

from dynamicrafter.media.video import read_clip, read_metadata
from stories import ROOT, write_story, write_tone

EXAMPLE = ROOT / "examples" / "story"
STORY = """\
defaults: {steps: 1, guidance: 1, frames: 3, size: 64x64}
shots:
  - picture: red.png
    prompt: a boat
  - title: End
    frames: 2
"""
TINY = ("--model", "seeded:tiny", "--device", "cpu", "--dtype", "float32")


def test_the_example_becomes_a_film_with_sound_that_shows_all_it_says(cli, tmp_path):
    """With the bundled model, small and in one step."""
    shutil.copytree(EXAMPLE, tmp_path / "example")
    path = tmp_path / "example" / "story.yaml"
    text = path.read_text()
    assert text.count("size: 128x128") == 1
    path.write_text(text.replace("size: 128x128", "size: 64x64\n  steps: 1"))
    done = cli("story", path, "-o", "trip.mp4", "--device", "cpu", "--dtype", "float32")
    assert (done.code, done.out) == (0, "trip.mp4\n"), done.err
    assert "6 shots, 93 frames, 12 s at 8 frames a second, 64×64" in done.err
    assert "warning" not in done.err
    frames, fps = read_clip("trip.mp4")
    assert (frames.shape, fps) == ((93, 64, 64, 3), 8)
    card = frames[0].astype(int)
    assert np.abs(card[0, 0] - (0x10, 0x1C, 0x3A)).max() < 8
    assert card.max() > 200  # letters
    metadata = read_metadata("trip.mp4")
    keys = {shot["name"]: shot["key"] for shot in metadata["shots"]}
    places = ((12, "shot-{shot 2}", 0), (28, "shot-{shot 3}", 4), (66, "between-{between shots 4 and 5}", 12))
    for at, name, index in places:
        with Image.open(tmp_path / "trip.shots" / name.format(**keys) / f"{index:04}.png") as kept:
            assert np.abs(frames[at].astype(int) - np.asarray(kept)).mean() < 6, name
    assert metadata["models"][0]["preset"] == "bundled"
    assert [shot["name"] for shot in metadata["shots"]] == [
        "shot 2",
        "shot 3",
        "shot 4",
        "shot 5",
        "between shots 4 and 5",
    ]
    with av.open("trip.mp4") as container:
        track = container.streams.audio[0]
        assert float(track.duration * track.time_base) == pytest.approx(93 / 8, abs=0.001)
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(track)], axis=1)
    assert np.abs(heard).max() > 0.05


def test_the_example_is_small_and_comes_with_all_that_it_names():
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 500_000


def test_the_plan_is_shown_and_nothing_made(cli, tmp_path):
    write_story(tmp_path, STORY)
    done = cli("story", "story.yaml", "-o", "film.mp4", "--dry-run", *TINY)
    assert done.code == 0
    assert done.out.splitlines() == [
        "2 shots, 5 frames, 0.6 s at 8 frames a second, 64×64",
        "",
        "   start  frames  what                                          state",
        "   0.00s       3  1. 'a boat'                                   to make",
        "   0.38s       2  2. title 'End'                                drawn",
        "",
        "0 clips kept in film.shots, 1 to make",
    ]
    assert not (tmp_path / "film.mp4").exists()
    assert not (tmp_path / "film.shots").exists()
    assert cli("story", "story.yaml", "-o", "film.mp4", *TINY).code == 0
    done = cli("story", "story.yaml", "-o", "film.mp4", "--dry-run", *TINY)
    assert "kept as shot-" in done.out
    assert done.out.endswith("1 clips kept in film.shots, 0 to make\n")


def test_a_film_that_is_there_already_is_left_as_it_is(cli, tmp_path):
    write_story(tmp_path, STORY)
    assert cli("story", "story.yaml", *TINY).out == "story.mp4\n"
    before = (tmp_path / "story.mp4").stat()
    again = cli("story", "story.yaml", *TINY)
    assert (again.code, again.out) == (0, "story.mp4\n")
    assert "The film is there already, and is what it would be now" in again.err
    assert (tmp_path / "story.mp4").stat().st_mtime_ns == before.st_mtime_ns
    write_story(tmp_path, STORY.replace("End", "Fin"))
    changed = cli("story", "story.yaml", *TINY)
    assert "Made 0 clips, kept 1" in changed.err
    assert (tmp_path / "story.mp4").stat().st_mtime_ns != before.st_mtime_ns


def test_quiet_says_the_path_alone(cli, tmp_path):
    write_story(tmp_path, STORY)
    done = cli("story", "story.yaml", "-o", "film.mp4", "--quiet", *TINY)
    assert (done.code, done.out, done.err) == (0, "film.mp4\n", "")


def test_models_that_the_file_names_are_used_and_flags_go_first(cli, tmp_path):
    write_story(tmp_path, f"model: nothing.ckpt\ntransition_model: seeded:interp\n{STORY}")
    done = cli("story", "story.yaml", "-o", "film.mp4", *TINY, "--transition-model", "seeded:tiny")
    assert done.code == 0
    assert read_metadata("film.mp4")["models"][0]["name"] == "seeded:tiny"
    assert cli("story", "story.yaml", "-o", "film.mp4").errors == [
        "error: model nothing.ckpt is a path to nothing; check the path."
    ]


def test_what_a_file_names_is_not_downloaded_on_its_word(cli, tmp_path):
    write_story(tmp_path, f"model: someone/model\n{STORY}")
    done = cli("story", "story.yaml", "--download")
    assert done.code == 2
    assert "the story asks for the model 'someone/model', which is not downloaded on a file's word" in done.err


ERRORS = {
    "no story": (["gone.yaml"], STORY, "gone.yaml can't be read (No such file or directory)"),
    "a line": (["story.yaml"], STORY.replace("prompt", "promt"), "story.yaml, line 4: a shot has no key 'promt'"),
    "picture": (["story.yaml"], STORY.replace("red", "gone"), "story.yaml, line 3: gone.png does not exist"),
    "extension": (["story.yaml", "-o", "film.gif"], STORY, "film.gif must be a film, mp4 or webm; name it film.mp4."),
    "sound": (["story.yaml", "-o", "a.webm"], "audio: tone.wav\n" + STORY, "a.webm can't hold AAC sound"),
    "folder": (["story.yaml", "-o", "gone/film.mp4"], STORY, "there is no folder "),
    "crf": (["story.yaml", "--crf", "99"], STORY, "crf must be a whole number from 0 (best) to 51"),
    "stdout": (["story.yaml", "-o", "-"], STORY, "output must be a file, got -"),
}


@pytest.mark.parametrize(("words", "text", "said"), ERRORS.values(), ids=ERRORS)
def test_what_is_wrong_ends_in_one_line_before_a_model_is_looked_for(cli, tmp_path, monkeypatch, words, text, said):
    monkeypatch.setattr("dynamicrafter.cli.story._planned", lambda *_: pytest.fail("it looked for a model"))
    write_tone(tmp_path / "tone.wav", seconds=0.1)
    write_story(tmp_path, text)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = cli("story", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_sound_is_not_replaced_by_the_film(cli, tmp_path):
    write_tone(tmp_path / "tone.mp4", seconds=0.1)
    write_story(tmp_path, f"audio: tone.mp4\n{STORY}")
    assert cli("story", "story.yaml", "-o", "tone.mp4", *TINY).errors == [
        "error: output tone.mp4 would replace the sound that the film is to have; choose another name."
    ]


def test_a_films_file_can_not_be_repeated_as_a_clip(cli, tmp_path):
    write_story(tmp_path, STORY)
    assert cli("story", "story.yaml", "-o", "film.mp4", *TINY).code == 0
    done = cli("animate", "--like", "film.mp4")
    assert done.code == 2
    assert len(done.errors) == 1
    assert "Traceback" not in done.err
