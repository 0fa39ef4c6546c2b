"""`dynamicrafter text`: a clip from words alone."""

import pytest
from PIL import Image


def test_a_prompt_alone_becomes_a_clip(cli, tmp_path):
    path = tmp_path / "storm.mp4"
    done = cli("text", "a storm", "--model", "seeded:tiny-vc2", "--steps", "1", "--frames", "3", "-o", str(path))
    assert (done.code, done.out) == (0, f"{path}\n")
    assert path.stat().st_size > 0


@pytest.mark.parametrize("command", [("animate", "{picture}", "rain"), ("text", "rain")])
def test_a_model_that_can_not_make_such_a_clip_is_refused_with_those_that_can(cli, tmp_path, command):
    picture = tmp_path / "photo.png"
    Image.new("RGB", (64, 64)).save(picture)
    model = "seeded:tiny-512" if command[0] == "text" else "seeded:tiny-vc2"
    words = [word.format(picture=picture) for word in command]
    done = cli(*words, "--model", model, "-o", str(tmp_path / "a.mp4"))
    assert done.code == 2
    (error,) = done.errors
    assert f"got {command[0]}; for that take" in error
    assert not (tmp_path / "a.mp4").exists()


def test_without_a_model_from_text_the_ways_to_get_one_are_named(cli, tmp_path):
    done = cli("text", "rain", "-o", str(tmp_path / "a.mp4"))
    assert done.code == 2
    assert done.errors == [
        "error: no model for mode text is on this machine (vc1, vc1-1024, vc2); fetch one: dynamicrafter download vc1."
    ]
