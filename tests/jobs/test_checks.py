"""What can be seen to be wrong with a list before a model is loaded."""

from dataclasses import replace

import pytest
from PIL import Image

from dynamicrafter.jobs.job import JobsError
from dynamicrafter.jobs.plan import together
from quick_jobs import QUICK


def problems_of(check, **jobs):
    with pytest.raises(JobsError) as caught:
        check(**jobs)
    return caught.value.problems


def test_every_broken_rule_of_every_job_is_said(check, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    problems = problems_of(
        check,
        a={"pictures": (tmp_path / "gone.png",)},
        b={"pictures": (tmp_path / "text.png",)},
        c={"format": "mp4", "crf": 99},
        d={"fps": "fast"},
        e={"options": replace(QUICK, sampler="unipc", eta=1)},
        f={},
    )
    said = [
        "gone.png does not exist",
        "text.png is no picture",
        "crf must be a whole number from 0 (best) to 51",
        "fps must be a number or a fraction",
        "eta must be 0 with the sampler unipc",
    ]
    assert len(problems) == len(said)
    for problem, key, text in zip(problems, "abcde", said, strict=True):
        assert problem.startswith(f"list, {key}: ")
        assert text in problem


def test_outputs_must_differ_on_every_system(check, picture):
    assert problems_of(check, boat={"samples": 2}, **{"boat-2": {}}) == (
        "list, boat-2: output boat-2.npy is also that of list, boat ('boat'); give one another name.",
    )
    [problem] = problems_of(check, Boat={}, boat={})
    assert "output boat.npy, which some systems take for Boat.npy, is also" in problem
    assert len(problems_of(check, **{key: {} for key in ("e\u0301", "\u00e9")})) == 1  # one letter, in two spellings
    assert check(boat={"format": "npy"}, **{"boat-2": {}})


def test_nothing_may_take_the_place_of_the_account_or_of_a_picture(check, picture, tmp_path):
    picture.rename(tmp_path / "clip.gif")
    (tmp_path / "out").symlink_to(tmp_path)
    [problem] = problems_of(check, clip={"pictures": (tmp_path / "clip.gif",), "format": "gif"})
    assert problem.endswith("clip.gif; choose another folder or name.")
    (tmp_path / "out").unlink()
    [problem] = problems_of(check, **{"results.jsonl": {"pictures": (tmp_path / "clip.gif",), "format": "png"}})
    assert "results.jsonl" in problem


def test_what_decides_the_frames_decides_the_fingerprint(check, picture, tmp_path):
    [base] = check(a={})
    copy = tmp_path / "copy.bmp"
    copy.write_bytes(picture.read_bytes())
    [same] = check(a={"pictures": (copy,), "samples": 3})
    assert same.fingerprint == base.fingerprint
    changed = [
        check(a=own)[0].fingerprint
        for own in (
            {"prompt": "rain"},
            {"mode": "loop"},
            {"options": replace(QUICK, seed=1)},
            {"options": replace(QUICK, motion=5)},
            {"format": "gif"},
            {"fps": "9"},
        )
    ]
    assert len({base.fingerprint, *changed}) == 7


def test_what_a_batch_may_differ_in_does_not_keep_jobs_apart(check):
    a, b, c, d = check(
        a={},
        b={"prompt": "rain", "options": replace(QUICK, seed=1, motion=5, negative="x"), "format": "gif"},
        c={"options": replace(QUICK, steps=2)},
        d={"mode": "loop"},
    )
    assert together(a) == together(b)
    assert len({together(a), together(c), together(d)}) == 3
    assert c.weight == 2 * a.weight


def test_size_auto_keeps_pictures_of_other_shapes_apart(check, picture, tmp_path):
    wide, auto = tmp_path / "wide.png", replace(QUICK, size="auto")
    Image.new("RGB", (300, 80)).save(wide)
    a, b, c = check(a={"options": auto}, b={"options": auto, "pictures": (wide,)}, c={"options": auto})
    assert together(a) == together(c) != together(b)
