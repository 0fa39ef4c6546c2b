import dataclasses
import io
import json
import os
import shutil
import signal
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from dynamicrafter import Animator
from dynamicrafter.animator.clip import Clip
from dynamicrafter.errors import OutputError
from dynamicrafter.media.video import read_clip, read_metadata
from dynamicrafter.presets import every_preset
from dynamicrafter.specs.model import model_spec

TINY = ("--model", "seeded:tiny", "--steps", "2", "--frames", "4")
_load = Animator.load


def load_afresh(name):
    return _load(model_spec(name))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("cache"))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif", "clip.webp", "clip.npy", "clip"])
def test_every_format_is_written_with_its_options_and_only_its_path_on_stdout(cli, photo, name):
    done = cli("animate", photo, "a boat", "-o", name, *TINY, "--fps", "12")
    assert (done.code, done.out) == (0, f"{name}\n")
    frames, fps = read_clip(name)
    assert frames.shape == (4, 64, 64, 3)
    assert fps == 12
    metadata = read_metadata(name)
    assert metadata["prompt"] == "a boat"
    assert metadata["options"]["steps"] == 2
    assert names(photo.parent) == sorted([name, "photo.png"])


def test_frames_are_those_of_the_python_interface_and_the_same_twice(cli, photo):
    flags = ("--seed", "7", "--guidance", "3", "--image-guidance", "2", "--motion", "20", "--negative", "blur")
    first = cli("animate", photo, "a boat", "-o", "a.npy", *TINY, *flags, "--size", "128x64", "--fit", "contain")
    again = cli("animate", photo, "a boat", "-o", "b.npy", *TINY, *flags, "--size", "128x64", "--fit", "contain")
    clip = load_afresh("seeded:tiny").animate(
        photo,
        "a boat",
        steps=2,
        frames=4,
        seed=7,
        guidance=3.0,
        image_guidance=2.0,
        motion=20,
        negative="blur",
        size=(64, 128),
        fit="contain",
    )
    assert (first.code, again.code) == (0, 0)
    assert clip.frames.shape == (4, 64, 128, 3)
    np.testing.assert_array_equal(np.load("a.npy"), clip.frames)
    np.testing.assert_array_equal(np.load("b.npy"), clip.frames)
    assert read_metadata("a.npy") == json.loads(json.dumps(clip.metadata)) | {"output": {"fps": "8", "crf": None}}


def test_interpolation_and_loops_reach_the_animator(cli, photo, other_photo):
    between = cli("interpolate", photo, other_photo, "dusk", "-o", "between.npy", *TINY)
    loop = cli("loop", photo, "-o", "loop.npy", *TINY)
    assert (between.code, loop.code) == (0, 0)
    animator = load_afresh("seeded:tiny")
    expected = animator.interpolate(photo, other_photo, "dusk", steps=2, frames=4)
    np.testing.assert_array_equal(np.load("between.npy"), expected.frames)
    np.testing.assert_array_equal(np.load("loop.npy"), animator.loop(photo, steps=2, frames=4).frames)
    warning = "warning: preset 512 was not trained to interpolate between pictures; 512_interp was."
    assert between.err.count(warning) == 1


def test_takes_are_the_samples_of_one_seed_each_in_a_file_of_its_own(cli, photo):
    done = cli("animate", photo, "-o", "clip.npy", *TINY, "--samples", "3")
    assert done.code == 0
    assert done.out.split() == ["clip.npy", "clip-2.npy", "clip-3.npy"]
    animator = load_afresh("seeded:tiny")
    for sample, name in enumerate(done.out.split()):
        expected = animator.animate(photo, steps=2, frames=4, sample=sample)
        np.testing.assert_array_equal(np.load(name), expected.frames)


def test_without_a_name_the_clip_is_named_after_the_picture_and_replaces_nothing(cli, photo):
    (photo.parent / "photo-2.mp4").write_text("mine")
    assert cli("animate", photo, *TINY).out == "photo.mp4\n"
    assert cli("animate", photo, *TINY, "--samples", "2").out == "photo-3.mp4\nphoto-4.mp4\n"
    assert cli("animate", photo, *TINY, "--format", "gif").out == "photo.gif\n"
    assert (photo.parent / "photo-2.mp4").read_text() == "mine"


def test_a_path_that_is_no_valid_text_is_printed_byte_by_byte(cli, photo, monkeypatch, tmp_path):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert cli("animate", photo, "a b\udcffat", *TINY, "-o", "cl\udcffp.npy").code == 0
    assert stdout.buffer.getvalue() == b"cl\xffp.npy\n"
    assert (tmp_path / "cl\udcffp.npy").exists()


def test_a_named_file_is_replaced(cli, photo):
    (photo.parent / "clip.gif").write_text("old")
    assert cli("animate", photo, *TINY, "-o", "clip.gif").code == 0
    assert read_clip("clip.gif")[0].shape[0] == 4


def test_a_fraction_of_frames_per_second_is_kept_exactly(cli, photo):
    assert cli("animate", photo, *TINY, "-o", "clip.mp4", "--fps", "24000/1001", "--crf", "30").code == 0
    assert read_clip("clip.mp4")[1] == Fraction(24000, 1001)


def test_phases_and_pace_are_said_on_stderr_unless_quiet(cli, photo):
    loud = cli("animate", photo, *TINY, "-o", "clip.npy").err.splitlines()
    assert loud[0] == "Loading seeded:tiny…"
    assert loud[1] == "Decoding…"
    assert loud[2].startswith("2 steps in ")
    assert len(loud) == 3
    quiet = cli("animate", photo, *TINY, "-o", "clip.npy", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "clip.npy\n", "")


ERRORS = {
    "no picture": ([], "image is missing"),
    "no such picture": (["nothing.png"], "nothing.png does not exist"),
    "a folder": (["."], ". is a folder"),
    "steps": (["photo.png", "--steps", "0"], "steps must be between 1 and 1000, got 0; try 1."),
    "eta": (["photo.png", "--eta", "nan"], "eta must be between 0 and 1, got nan"),
    "guidance": (["photo.png", "--guidance", "-1"], "guidance must be between 0 and 100, got -1.0; try 0."),
    "seed": (["photo.png", "--seed", "-2"], "seed must be between -1 and "),
    "frames": (["photo.png", "--frames", "513"], "frames must be between 1 and 512, got 513; try 512."),
    "size": (["photo.png", "--size", "100x64"], "width must be a positive multiple of 64 pixels, got 100; try 128."),
    "samples": (["photo.png", "--samples", "0"], "samples must be between 1 and 1000, got 0; try 1."),
    "fps": (["photo.png", "--fps", "fast"], "fps must be a number or a fraction such as 24000/1001, got 'fast'."),
    "crf": (["photo.png", "--crf", "99"], "crf must be a whole number from 0 (best) to 51 (worst) for mp4, got 99"),
    "format": (["photo.png", "--format", "avi"], "format must be one of mp4, "),
    "extension": (["photo.png", "-o", "clip.txt"], "has the unknown extension .txt"),
    "extension alone": (["photo.png", "-o", ".mp4"], ".mp4 is an extension without a name before it; try "),
    "no output": (["photo.png", "-o", ""], "--output must not be empty; name a file or a folder."),
    "web address": (["https://example.org/a.png"], "is a web address, where a file is wanted; download the picture"),
    "huge": (["photo.png", "--size", "99968x64"], "width must be at most 4096 pixels, got 99968; try 4096."),
    "folder": (["photo.png", "-o", "gone/clip.mp4"], "there is no folder "),
    "preset": (
        ["photo.png", "--preset", "2048"],
        f"preset must be one of {', '.join(preset.name for preset in every_preset())}, got '2048'.",
    ),
    "long prompt": (["photo.png", "word " * 500], "prompt must be at most 2000 characters, got 2500"),
}


@pytest.mark.parametrize(("words", "said"), ERRORS.values(), ids=ERRORS)
def test_what_can_be_seen_to_be_wrong_ends_in_one_line_before_a_model_is_loaded(cli, photo, monkeypatch, words, said):
    monkeypatch.setattr("dynamicrafter.cli.make.load_animator", lambda *_: pytest.fail("it loaded a model"))
    done = cli("animate", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert names(photo.parent) == ["photo.png"]


def test_a_clip_may_not_replace_its_own_picture(cli, photo):
    photo.rename(photo.with_suffix(".gif"))
    done = cli("animate", "photo.gif", "-o", "./photo.gif", *TINY)
    assert done.code == 2
    assert done.errors == [
        "error: output photo.gif would replace the picture that the clip is made of; choose another name."
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "seeded:huge"], "error: model 'seeded:huge' must be one of "),
        (["--model", "nothing.ckpt"], "error: model nothing.ckpt is a path to nothing"),
        (["--model", "512"], 'error: model 512 is not on this machine; run "dynamicrafter download 512"'),
        (["--model", "seeded:tiny", "--device", "abacus"], "error: device must be cpu, cuda, cuda:N or mps"),
        (["--model", "seeded:tiny", "--dtype", "int4"], "error: dtype must be one of float32, bfloat16, float16"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_in_one_line(cli, photo, flags, said):
    done = cli("animate", photo, *flags, "--quiet")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(said)
    assert done.err.count("\n") == 1


def test_without_any_other_model_the_bundled_one_makes_the_clip(cli, photo, monkeypatch):
    asked = []
    monkeypatch.setattr(Animator, "load", lambda spec: asked.append(spec.name) or load_afresh("seeded:tiny"))
    for command in ("animate", "loop"):
        done = cli(command, photo, "-o", "clip.npy", "--steps", "1", "--frames", "4")
        assert done.code == 0
        assert done.err.splitlines()[0] == "No --model given; using bundled (the small model of the package)"
    assert asked == ["bundled", "bundled"]


@pytest.mark.parametrize("name", [(), ("--model", "bundled")])
def test_options_are_held_against_the_bundled_preset_where_it_is_used(cli, photo, other_photo, monkeypatch, name):
    monkeypatch.setattr("dynamicrafter.cli.make.load_animator", raising(OutputError("as far as this.")))
    between = cli("interpolate", photo, other_photo, *name, "--motion", "24")
    assert between.err.splitlines()[-1] == "error: as far as this."
    assert "was tuned for" not in between.err
    assert "motion 30 is outside the range that preset bundled was tuned for, 8 to 24" in cli(
        "animate", photo, *name, "--motion", "30"
    ).err  # fmt: skip
    assert cli("animate", photo, *name, "--frames", "513").errors == [
        "error: --frames must be between 1 and 512, got 513; try 512."
    ]


def test_a_model_that_was_chosen_for_want_of_a_name_is_said(cli, photo, monkeypatch, tmp_path):
    from dynamicrafter.hub import LocalModel

    path = tmp_path / "512.safetensors"
    path.write_bytes(b"{}")
    monkeypatch.setattr("dynamicrafter.hub.best_local", lambda task: LocalModel(path=path, kind="file", preset="512"))
    done = cli("animate", photo)
    assert done.err.splitlines()[0] == f"No --model given; using 512 ({path})"


def test_a_motion_outside_the_presets_range_is_warned_of_once(cli, photo):
    done = cli("animate", photo, *TINY, "--motion", "3", "--samples", "2", "-o", "clip.npy")
    lines = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: motion 3 is outside the range that preset 512 was tuned for")


def raising(error):
    def fail(*_args, **_options):
        raise error

    return fail


def disk_full():
    error = OutputError("clip.mp4 could not be written: the disk is full.")
    error.__cause__ = OSError(28, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 1, "error: out of memory; try --memory 8GB or less, a smaller --size"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "error: out of memory; try --memory 8GB or less"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "error: out of memory"),
        (OSError(28, "No space left on device", "clip.mp4"), 1, "error: the disk is full (clip.mp4); "),
        (disk_full(), 1, "error: clip.mp4 could not be written: the disk is full"),
        (KeyboardInterrupt(), 130, "stopped; nothing was written"),
    ],
)
def test_what_the_machine_is_not_up_to_ends_in_one_line(cli, photo, monkeypatch, error, code, said):
    monkeypatch.setattr(Animator, "run", raising(error))
    done = cli("animate", photo, *TINY, "--quiet", "-o", "clip.mp4")
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(said)
    assert done.err.count("\n") == 1


def test_a_fault_of_the_package_keeps_its_traceback(cli, photo, monkeypatch):
    monkeypatch.setattr(Animator, "run", raising(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        cli("animate", photo, *TINY)


def test_an_interrupt_in_the_second_take_says_that_the_first_is_there(cli, photo, monkeypatch):
    run, calls = Animator.run, []

    def interrupted(self, shots, *, on_step=None):
        calls.append(shots)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return run(self, shots, on_step=on_step)

    monkeypatch.setattr(Animator, "run", interrupted)
    done = cli("animate", photo, *TINY, "--samples", "2", "--quiet", "-o", "clip.gif")
    assert (done.code, done.out, done.err) == (130, "clip.gif\n", "stopped; 1 of 2 takes were written\n")
    assert names(photo.parent) == ["clip.gif", "photo.png"]


def test_an_interrupt_that_a_library_turned_into_its_own_error_is_still_an_interrupt(cli, photo, monkeypatch):
    def swallow(*_args, **_options):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("could not be imported") from error

    monkeypatch.setattr(Animator, "load", swallow)
    done = cli("animate", photo, *TINY, "--quiet")
    assert (done.code, done.err) == (130, "stopped; nothing was written\n")


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        (["SIGINT"], 130),
        (["SIGTERM"], 143),
        (["SIGHUP"], 129),
        (["SIGHUP", "SIGHUP", "SIGTERM"], 129),  # as a terminal that closes sends them
    ],
)
@pytest.mark.parametrize("name", ["clip.webm", "frames"])
def test_a_signal_while_the_file_is_written_leaves_nothing(cli, photo, monkeypatch, signals, code, name):
    save, rmtree = Clip.save, shutil.rmtree

    def interrupted(self, *args, **options):
        clip = dataclasses.replace(self, frames=np.concatenate([self.frames] * 50))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return save(clip, *args, **options)

    def send(*_):
        os.kill(os.getpid(), getattr(signal, signals[0]))

    def clear(*args, **options):
        for more in signals[1:]:
            os.kill(os.getpid(), getattr(signal, more))
        rmtree(*args, **options)

    monkeypatch.setattr(Clip, "save", interrupted)
    monkeypatch.setattr("dynamicrafter.files.atomic.shutil.rmtree", clear)
    before = signal.signal(signal.SIGALRM, send)
    try:
        done = cli("animate", photo, *TINY, "--quiet", "-o", name)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (done.code, done.out, done.err) == (code, "", "stopped; nothing was written\n")
    assert names(photo.parent) == ["photo.png"]


def test_standard_output_is_no_place_for_a_clip(cli, photo):
    done = cli("animate", photo, *TINY, "-o", "-")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: output must be a file, got -, which would be standard output; try -o clip.mp4.\n"


def test_the_models_files_are_asked_for_before_it_is_loaded(cli, photo, monkeypatch):
    asked = []
    monkeypatch.setattr("dynamicrafter.cli.make.read_ahead", asked.append)
    assert cli("animate", photo, "a boat", "-o", "clip.npy", *TINY).code == 0
    assert asked == ["seeded:tiny"]
