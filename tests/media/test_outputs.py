import errno
import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dynamicrafter.errors import InputError, OutputError
from dynamicrafter.media import video
from dynamicrafter.media.video import check_output, read_clip, read_metadata, write_clip

NAMES = ("clip.mp4", "clip.webm", "clip.gif", "clip.webp", "clip", "clip.npy")
NOISE = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def write(path, frames=NOISE, **options):
    write_clip(path, frames, **{"fps": 8, "metadata": {"take": 1}, **options})


@contextmanager
def largest_file(num_bytes: int):
    """Let the operating system refuse longer files: a real failure in the middle of writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def closed_folder():
    """A folder that this user may read but not change; root steps down, as it may change everything.

    In its subfolder this user may write, but not change the one file in it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        (folder / "open" / "old.mp4").write_bytes(b"old")
        (folder / "open" / "old.mp4").chmod(0o444)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_refuses_leaves_the_older_clip_and_no_litter(tmp_path, name):
    write(tmp_path / name, NOISE[:, :16, :16], metadata={"take": "older"})
    older = sorted(tmp_path.rglob("*"))
    with (
        largest_file(3000),
        pytest.raises(OutputError, match="it would exceed the largest file"),
    ):
        write(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == older
    assert read_metadata(tmp_path / name) == {"take": "older"}
    assert len(read_clip(tmp_path / name)[0]) == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the disk is full; free some space or",
        ),
        (av.error.OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
        (OSError(errno.EROFS, "Read-only file system"), "the file system is read-only; choose another folder"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error; choose another folder"),
    ],
)
def test_trouble_with_the_disk_is_told_in_one_line(tmp_path, monkeypatch, name, trouble, line):
    def fail(path, *_, **__):
        path.mkdir(exist_ok=True) if path.suffix == "" else path.write_bytes(b"half")
        raise trouble

    monkeypatch.setattr(video, "_encode", fail)
    with pytest.raises(OutputError) as caught:
        write(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} could not be written: {line}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_leaves_the_older_clip_and_no_litter(tmp_path, monkeypatch, name):
    write(tmp_path / name, metadata={"take": "older"})
    older = sorted(tmp_path.rglob("*"))
    encode = video._encode

    def interrupted(*args, **options):
        encode(*args, **options)
        assert len(list(tmp_path.iterdir())) == 2, "written aside, in the same folder"
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == older
    assert read_metadata(tmp_path / name) == {"take": "older"}


def test_a_folder_that_cannot_take_its_place_gives_the_older_one_back(tmp_path, monkeypatch):
    write(tmp_path / "clip", metadata={"take": "older"})
    rename = Path.rename

    def refuse(self, target):
        if Path(target).name == "clip" and not self.name.endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="Input/output error"):
        write(tmp_path / "clip")
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip"]
    assert read_metadata(tmp_path / "clip") == {"take": "older"}


@pytest.mark.parametrize("name", NAMES)
def test_a_newer_clip_replaces_the_older_one_whole(tmp_path, name):
    write(tmp_path / name, np.concatenate([NOISE, NOISE[::-1]]))
    write(tmp_path / name, metadata={"take": 2})
    assert len(read_clip(tmp_path / name)[0]) == 2
    assert read_metadata(tmp_path / name) == {"take": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_whoever_is_watching_the_older_clip_sees_it_to_its_end(tmp_path):
    write(tmp_path / "a.gif", metadata={"take": "older"})
    older = (tmp_path / "a.gif").read_bytes()
    with (tmp_path / "a.gif").open("rb") as viewer:
        write(tmp_path / "a.gif", NOISE[::-1])
        assert viewer.read() == older
    assert (tmp_path / "a.gif").read_bytes() != older


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_as_open_to_others_as_the_user_wants(tmp_path, name):
    mask = os.umask(0o022)
    try:
        write(tmp_path / name)
    finally:
        os.umask(mask)
    mode = (tmp_path / name).stat().st_mode & 0o777
    assert mode == (0o755 if name == "clip" else 0o644)


def test_a_link_is_followed_rather_than_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "latest.gif").symlink_to(tmp_path / "disk" / "clip.gif")
    write(tmp_path / "latest.gif")
    assert (tmp_path / "latest.gif").is_symlink()
    assert read_metadata(tmp_path / "disk" / "clip.gif") == {"take": 1}


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "clip").mkdir()
    write(tmp_path / "clip")
    assert len(read_clip(tmp_path / "clip")[0]) == 2


@pytest.mark.parametrize("stranger", ["notes.txt", "cat.png", "0003.jpg", "sub/0000.png"])
def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path, stranger):
    write(tmp_path / "clip")
    (tmp_path / "clip" / stranger).parent.mkdir(exist_ok=True)
    (tmp_path / "clip" / stranger).write_bytes(b"dear")
    for attempt in (write, check_output):
        with pytest.raises(OutputError, match=r"clip holds files that are no frames of a clip; choose another name or"):
            attempt(tmp_path / "clip")
    assert (tmp_path / "clip" / stranger).read_bytes() == b"dear"


def test_numbered_pictures_that_are_no_clip_of_ours_are_never_replaced(tmp_path):
    (tmp_path / "scans").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "scans" / "0000.png")
    with pytest.raises(OutputError, match="scans holds files that are no frames of a clip"):
        write(tmp_path / "scans")


def outputs_that_cannot_be(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.mp4")
    return {
        "nowhere/clip.mp4": "there is no folder .*nowhere; create it first",
        "nowhere/clip": "there is no folder .*nowhere; create it first",
        "folder.mp4": "folder.mp4 is a folder; add a file name, such as .*folder.mp4/clip.mp4",
        "file": "file is a file, where a folder of PNG frames is to be written; choose another name",
        "pipe.mp4": "pipe.mp4 is no regular file; choose another name",
        "clip.avi": r"has the unknown extension .avi; known are .mp4, .mov, .webm, .gif, .webp, .npy, or no extension",
        ".mp4": r"\.mp4 is an extension without a name before it; try .*clip\.mp4",
        "a\0b.mp4": "the output's name must not hold a NUL character",
        "clip.png": "clip.png names one picture, but PNG frames fill a folder; try .*clip",
        "x" * 260 + ".mp4": "could not be written: its name is too long; choose a shorter one",
        "x" * 260: "could not be written: its name is too long; choose a shorter one",
    }


def test_an_output_that_cannot_be_is_refused_before_and_while_writing(tmp_path):
    for name, line in outputs_that_cannot_be(tmp_path).items():
        before = sorted(tmp_path.rglob("*"))
        for attempt in (check_output, write):
            with pytest.raises(OutputError, match=line) as caught:
                attempt(tmp_path / name)
            assert "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_name_in_a_current_folder_that_is_gone_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError, match=r"clip\.mp4 could not be written: No such file or directory"):
        check_output("clip.mp4")


@pytest.mark.parametrize("attempt", [check_output, write])
def test_a_folder_without_permission_is_refused(closed_folder, attempt):
    with pytest.raises(OutputError, match="you have no permission to write there; choose another folder"):
        attempt(closed_folder / "new.mp4")
    with pytest.raises(OutputError, match="you have no permission to write there; choose another folder"):
        attempt(closed_folder / "new")


@pytest.mark.parametrize("attempt", [check_output, write])
def test_a_file_that_was_made_read_only_is_not_replaced(closed_folder, attempt):
    with pytest.raises(OutputError, match="you have no permission to write there"):
        attempt(closed_folder / "open" / "old.mp4")
    assert (closed_folder / "open" / "old.mp4").read_bytes() == b"old"
    check_output(closed_folder / "open" / "new.mp4")


def test_an_empty_name_is_refused():
    with pytest.raises(OutputError, match=r"the output's name is empty; try clip.mp4"):
        check_output("")


@pytest.mark.parametrize("name", [*NAMES, "clip.GIF", "./clip.webp"])
def test_a_check_that_passes_leaves_nothing_behind(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    check_output(name)
    check_output(tmp_path / name, fps="24000/1001", size=(64, 64))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("a.mp4", {"format": "gif"}, "has the extension .mp4, but format is gif; make them agree"),
        ("a.mp4", {"format": "mkv"}, "format must be one of mp4, mov, webm, gif, webp, png, npy, got 'mkv'"),
        ("a.png", {"format": "png"}, "PNG frames fill a folder"),
        ("a.gif", {"crf": 10}, "crf applies to mp4, mov and webm only"),
        ("a.gif", {"fps": 60}, "fps must be at most 50 for gif"),
        ("a.mp4", {"fps": 0}, "fps must be between 0.1 and 240"),
        ("a.mp4", {"size": (64, 63)}, "height and width must be even for mp4, got 64×63"),
    ],
)
def test_a_check_also_judges_the_options(tmp_path, name, options, line):
    with pytest.raises(InputError, match=line):
        check_output(tmp_path / name, **options)


def test_an_encoder_that_refuses_says_so_in_one_line(tmp_path):
    with pytest.raises(OutputError, match=r"the mp4 encoder refused frames of 2×20000 .*; try png"):
        write(tmp_path / "a.mp4", np.zeros((1, 2, 20_000, 3), np.uint8))
    assert not list(tmp_path.iterdir())
