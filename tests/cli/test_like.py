import shutil

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.media.video import read_metadata, write_clip

TINY = ("--model", "seeded:tiny", "--steps", "2", "--frames", "4")
FLAGS = ("--seed", "5", "--motion", "20", "--dtype", "float32", "--deterministic", "--pin-first-frame")


@pytest.fixture
def clip(cli, photo):
    done = cli("animate", "photo.png", "a boat", "-o", "clip.npy", *TINY, *FLAGS, "--samples", "2", "--quiet")
    assert done.code == 0, done.err
    return photo.parent / "clip-2.npy"


def rewritten(clip, **changes):
    """The clip with other metadata, as anyone could write it."""
    frames = np.load(clip)
    metadata = read_metadata(clip)
    write_clip("forged.npy", frames, fps=8, metadata={k: v for k, v in (metadata | changes).items() if v is not ...})
    return "forged.npy"


def test_a_clip_is_repeated_frame_by_frame_from_its_file_alone(cli, clip):
    done = cli("animate", "--like", clip, "-o", "again.npy")
    assert (done.code, done.out) == (0, "again.npy\n")
    assert "warning" not in done.err
    np.testing.assert_array_equal(np.load("again.npy"), np.load(clip))
    assert read_metadata("again.npy") == read_metadata(clip)


@pytest.mark.parametrize(
    ("command", "words"), [("interpolate", ["photo.png", "other.png", "dusk"]), ("loop", ["photo.png"])]
)
def test_the_other_modes_are_repeated_too(cli, photo, other_photo, command, words):
    cli(command, *words, "-o", "clip.npy", *TINY)
    done = cli(command, "--like", "clip.npy", "-o", "again.npy")
    assert done.code == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load("clip.npy"))
    assert read_metadata("again.npy") == read_metadata("clip.npy")


def test_a_long_clip_in_its_pictures_own_shape_is_repeated_to_the_bit(cli, photo):
    words = ("--frames", "18", "--window", "6", "--window-stride", "3", "--size", "auto")
    assert cli("animate", photo, "-o", "clip.npy", *TINY, *words, "--steps", "1").code == 0
    assert np.load("clip.npy").shape == (18, 64, 64, 3)
    assert cli("animate", "--like", "clip.npy", "-o", "again.npy").code == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load("clip.npy"))
    assert read_metadata("again.npy") == read_metadata("clip.npy")


def test_pace_and_quality_are_repeated_and_can_be_changed(cli, photo):
    cli("animate", "photo.png", "-o", "clip.mp4", *TINY, "--fps", "24000/1001", "--crf", "30")
    assert cli("animate", "--like", "clip.mp4", "-o", "again.mp4").code == 0
    assert read_metadata("again.mp4")["output"] == {"fps": "24000/1001", "crf": 30}
    assert cli("animate", "--like", "clip.mp4", "-o", "fast.gif", "--fps", "12").code == 0
    assert read_metadata("fast.gif")["output"] == {"fps": "12", "crf": None}


def test_flags_pictures_and_prompt_that_are_given_go_first(cli, clip, other_photo):
    done = cli(
        "animate", other_photo, "a storm", "--like", clip, "-o", "new.npy", "--seed", "123", "--no-deterministic"
    )
    assert done.code == 0
    then, now = read_metadata(clip), read_metadata("new.npy")
    assert now["prompt"] == "a storm"
    assert now["pictures"] != then["pictures"]
    assert now["options"] == then["options"] | {"seed": 123, "deterministic": False}
    assert (now["sample"], now["model"], now["dtype"]) == (1, then["model"], "float32")


def test_the_sampler_is_repeated_and_another_one_brings_its_own_noise(cli, clip):
    assert cli("animate", "--like", clip, "-o", "new.npy", "--sampler", "unipc").code == 0
    then, now = read_metadata(clip)["options"], read_metadata("new.npy")["options"]
    assert (then["sampler"], then["eta"]) == ("ddim", 1.0)
    assert now == then | {"sampler": "unipc", "eta": 0.0}
    assert cli("animate", "--like", "new.npy", "-o", "again.npy").code == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load("new.npy"))


def test_another_quality_replaces_what_the_first_one_set_but_for_what_is_given(cli, photo):
    first = cli("animate", "photo.png", "-o", "a.npy", "--model", "seeded:tiny", "--frames", "2", "--quality", "draft")
    assert first.code == 0
    assert cli("animate", "--like", "a.npy", "-o", "b.npy", "--quality", "fast", "--steps", "2").code == 0
    then, now = read_metadata("a.npy")["options"], read_metadata("b.npy")["options"]
    assert (then["steps"], then["sampler"], then["quality"]) == (5, "unipc", "draft")
    assert (now["steps"], now["sampler"], now["quality"]) == (2, "unipc", "fast")
    assert now["guidance_interval"] != then["guidance_interval"]


def test_several_takes_like_a_clip_go_on_from_its_own(cli, clip):
    assert cli("animate", "--like", clip, "-o", "more.npy", "--samples", "2").code == 0
    np.testing.assert_array_equal(np.load("more.npy"), np.load(clip))
    assert read_metadata("more-2.npy")["sample"] == 2


def test_a_picture_is_found_beside_the_clip_from_another_folder(cli, clip, monkeypatch):
    elsewhere = clip.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert cli("animate", "--like", clip, "-o", "again.npy").code == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load(clip))


def test_a_picture_that_was_moved_beside_the_clip_is_found(cli, photo):
    inside, kept = photo.parent / "album", photo.parent / "kept"
    inside.mkdir()
    kept.mkdir()
    shutil.copy(photo, inside / "holiday.png")
    assert cli("animate", "album/holiday.png", "-o", "kept/clip.npy", *TINY).code == 0
    (inside / "holiday.png").rename(kept / "holiday.png")
    assert cli("animate", "--like", "kept/clip.npy", "-o", "again.npy").code == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load(kept / "clip.npy"))


def test_of_two_pictures_of_one_name_the_one_with_the_clips_pixels_is_taken(cli, clip, other_photo, monkeypatch):
    elsewhere = clip.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(other_photo, elsewhere / "photo.png")
    monkeypatch.chdir(elsewhere)
    assert cli("animate", "--like", clip, "-o", "again.npy").code == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load(clip))


def test_a_picture_that_was_encoded_anew_without_loss_still_counts_as_the_same(cli, clip, photo):
    image = Image.open(photo)
    image.load()
    image.save(photo, format="BMP")
    assert cli("animate", "--like", clip, "-o", "again.npy").code == 0


def test_a_picture_that_was_changed_is_refused(cli, clip, photo, other_photo):
    shutil.copy(other_photo, photo)
    done = cli("animate", "--like", clip, "-o", "again.npy")
    assert done.code == 2
    assert "photo.png is not the picture that" in done.errors[0]
    assert not (clip.parent / "again.npy").exists()


def test_a_picture_that_is_gone_is_named(cli, clip, photo):
    photo.unlink()
    done = cli("animate", "--like", clip)
    assert done.code == 2
    assert "was made of 'photo.png', which is not there; name the picture" in done.errors[0]


@pytest.mark.parametrize("path", ["/dev/zero", "/etc", "no\0name", "x" * 5000, "/etc/passwd", "clip.npy", ""])
def test_a_forged_picture_path_reads_nothing_but_pictures(cli, clip, path):
    forged = rewritten(clip, pictures=[{"path": path, "sha256": "0" * 64}])
    done = cli("animate", "--like", forged)
    assert (done.code, done.out) == (2, "")
    assert len(done.errors) == 1
    assert done.err.count("\n") == 1


def test_a_picture_that_came_from_a_program_is_asked_for(cli, clip):
    forged = rewritten(clip, pictures=[{"path": None, "sha256": "0" * 64}])
    assert "doesn't say where its picture was" in cli("animate", "--like", forged).errors[0]


def test_forged_metadata_cannot_write_to_the_terminal(cli, clip):
    forged = rewritten(clip, mode="\x1b[2Jpaint\n\nerror: all is well")
    done = cli("animate", "--like", forged)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err


@pytest.mark.parametrize("changes", [{"model": ...}, {"options": {"steps": "many"}}, {"pictures": []}])
def test_metadata_that_cannot_be_used_ends_in_one_line(cli, clip, changes):
    done = cli("animate", "--like", rewritten(clip, **changes))
    assert done.code == 2
    assert done.errors[0].startswith("error: forged.npy ")
    assert done.err.count("\n") == 1


def test_options_out_of_range_are_refused_wherever_they_come_from(cli, clip):
    options = read_metadata(clip)["options"] | {"steps": 10**9}
    assert "steps must be between 1 and 1000" in cli("animate", "--like", rewritten(clip, options=options)).errors[0]


def test_another_mode_names_the_command_to_repeat_with(cli, clip):
    done = cli("loop", "--like", clip)
    assert done.code == 2
    assert f"`dynamicrafter animate --like {clip}`" in done.errors[0]


def test_a_file_that_is_no_clip_of_ours_is_refused(cli, photo):
    done = cli("animate", "--like", photo)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert cli("animate", "--like", "nothing.mp4").code == 2


def test_other_weights_versions_devices_and_formats_are_warned_of(cli, clip):
    model = read_metadata(clip)["model"] | {"hash": "f00d"}
    forged = rewritten(clip, model=model, generator="dynamicrafter 99.0", torch="1.0", device="abacus")
    done = cli("animate", "--like", forged, "--dtype", "bfloat16", "-o", "again.npy")
    assert done.code == 0
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert [line.split(": ")[2].split(" changed from ")[0] for line in warnings] == [
        "the weights",
        "the program",
        "torch",
        "the device",
        "the number format",
    ]


def test_a_repository_that_only_the_file_names_is_not_downloaded(cli, clip):
    forged = rewritten(clip, model={"name": "someone/model", "preset": "512", "hash": ""})
    done = cli("animate", "--like", forged, "--download", "-o", "new.npy")
    assert done.code == 2
    assert "'someone/model', which is not downloaded on a file's word" in done.err
