"""Lists of jobs from CSV and JSONL: every option a column, and all that is wrong said at once, with its line."""

import json
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.jobs.cells import COLUMNS, column_of
from dynamicrafter.jobs.job import Defaults, JobsError
from dynamicrafter.jobs.lists import read_jobs
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.specs.output import OutputOptions


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def problems_of(path, **defaults):
    with pytest.raises(JobsError) as caught:
        read_jobs(path, Defaults(**defaults))
    return [problem.replace(str(path.parent), "…") for problem in caught.value.problems]


def test_a_csv_gives_a_job_for_each_line_and_its_paths_are_relative_to_it(write, tmp_path):
    path = write(
        "jobs.csv",
        "Name,image,last,prompt,mode,steps,guidance,size,deterministic,samples,format,fps,crf\r\n"
        'one,a.jpg,,"rain, and wind",,2,1.5,128x64,yes,3,webm,24000/1001,30\r\n'
        "\r\n"
        "two,sub/b.jpg,c.png,,,,,,,,,,\r\n",
    )
    one, two = read_jobs(path, Defaults(prompt="snow", options=AnimateOptions(seed=9), output=OutputOptions(samples=2)))
    assert one.pictures == (tmp_path / "a.jpg",)
    assert (one.key, one.clip.prompts[0], one.clip.mode, one.where) == (
        "one",
        "rain, and wind",
        "animate",
        f"{path}, line 2",
    )
    assert one.clip.options == AnimateOptions(seed=9, steps=2, guidance=1.5, size=(64, 128), deterministic=True)
    assert (one.output.samples, one.format, one.output.fps, one.output.crf) == (3, "webm", "24000/1001", 30)
    assert two.pictures == (tmp_path / "sub/b.jpg", tmp_path / "c.png")
    assert (two.clip.mode, two.clip.prompts[0], two.output.samples, two.where) == (
        "interpolate",
        "snow",
        2,
        f"{path}, line 4",
    )


def test_jsonl_keeps_types_and_counts_blank_lines(write):
    path = write(
        "jobs.jsonl",
        '{"key": 7, "picture": "a.jpg", "steps": 3, "size": "auto", "fps": 12, "negative": "", "motion": null, '
        '"guidance_interval": "200-800", "cache": 0.1}\n\n'
        '{"first": "b.jpg", "last_image": "c.jpg", "image-guidance": 2, "prompt": ""}',
    )
    one, two = read_jobs(path, Defaults(prompt="snow"))
    assert (one.key, one.clip.options.steps, one.clip.options.size, one.output.fps) == ("7", 3, "auto", "12")
    assert (one.clip.options.guidance_interval, one.clip.options.cache) == ((200, 800), 0.1)
    assert (two.key, two.clip.prompts[0], two.clip.options.image_guidance) == ("b-c", "", 2)
    assert two.where.endswith("line 3")


def test_without_a_name_a_job_is_called_after_its_picture_wherever_it_stands(write):
    lines = [json.dumps({"image": name}) for name in ("x/boat.jpg", "hill.png")]
    forwards = read_jobs(write("a.jsonl", "\n".join(lines)), Defaults())
    backwards = read_jobs(write("b.jsonl", "\n".join(lines[::-1])), Defaults())
    assert [job.key for job in forwards] == ["boat", "hill"]
    assert [job.key for job in backwards] == ["hill", "boat"]


def test_every_option_of_a_clip_is_a_column_that_reads_its_own_default(write):
    names = [option.name for option in fields(AnimateOptions)]
    assert set(names) < set(COLUMNS)
    assert [column_of(name.upper().replace("_", "-")) for name in names] == names
    usual = AnimateOptions().as_dict() | {"size": "512x320"}
    hints = {name: str(hint) for name, hint in get_type_hints(AnimateOptions).items()}
    texts = {name: "1" if value is None and "float" in hints[name] else value for name, value in usual.items()}
    cells = {name: str(text) for name, text in texts.items() if text not in (None, "")}
    path = write("jobs.csv", ",".join(["image", *cells]) + "\n" + ",".join(["a.jpg", *cells.values()]) + "\n")
    [job] = read_jobs(path, Defaults())
    assert job.clip.options.size == (320, 512)
    assert (job.clip.options.seed, job.clip.options.fit, job.clip.options.deterministic) == (123, "cover", False)
    assert job.clip.options.eta == 1.0


def test_all_that_is_wrong_in_a_csv_is_said_with_its_line(write):
    path = write(
        "jobs.csv",
        "name,image,steps,deterministic,mode,size,last\n"
        "a,a.jpg,many,,,,\n"
        "b,,1,,,,\n"
        "c,c.jpg,1,maybe,,,\n"
        "d,d.jpg,1,,,,,extra\n"
        "../e,e.jpg,,,,,\n"
        "f,f.jpg,,,dance,,\n"
        "g,g.jpg,,,interpolate,,\n"
        "h,h.jpg,,,loop,,i.jpg\n"
        "i,i.jpg,,,,64,\n",
    )
    assert problems_of(path) == [
        "…/jobs.csv, line 2: steps must be a whole number, got 'many'.",
        "…/jobs.csv, line 3: image is missing; name the picture.",
        "…/jobs.csv, line 4: deterministic must be true or false, got 'maybe'.",
        "…/jobs.csv, line 5 has 8 cells where the header names 7; put text with ',' into double quotes.",
        "…/jobs.csv, line 6: name must not hold / or \\ or control characters, got '../e'; it names files.",
        "…/jobs.csv, line 7: mode must be one of animate, interpolate, loop, text, got 'dance'.",
        "…/jobs.csv, line 8: last is missing; mode interpolate needs the picture to end on.",
        "…/jobs.csv, line 9: last must be left out with mode loop, which takes one picture.",
        "…/jobs.csv, line 10: size must be width x height in pixels, such as 1024x576, or auto, got '64'.",
    ]


def test_all_that_is_wrong_in_jsonl_is_said_with_its_line(write):
    path = write(
        "jobs.jsonl",
        '{"image": "a.jpg", "stepps": 3}\n{"image": 3}\nno json\n[1]\n{"image": "a.jpg", "image": "b.jpg"}\n'
        '{"image": "a.jpg", "picture": "b.jpg"}\n{"image": "a.jpg", "model": "512"}\n{"image": "a.jpg", "seed": 1.5}\n'
        '{"image": "a.jpg", "size": [64, 64]}\n',
    )
    assert problems_of(path) == [
        "…/jobs.jsonl, line 1: unknown column 'stepps'; did you mean steps?",
        "…/jobs.jsonl, line 2: image must be text, got 3.",
        "…/jobs.jsonl, line 3 is no JSON; write one object a line.",
        '…/jobs.jsonl, line 4 must be a JSON object, such as {"path": …, "caption": …}, one a line.',
        "…/jobs.jsonl, line 5 names 'image' twice; remove one.",
        "…/jobs.jsonl, line 6: columns image and picture mean the same; remove one.",
        "…/jobs.jsonl, line 7: column 'model' can't differ from job to job; give --model to all.",
        "…/jobs.jsonl, line 8: seed must be a whole number, got 1.5.",
    ]


def test_headings_that_mean_nothing_or_the_same_are_said(write):
    assert problems_of(write("a.csv", "image,promt,first\nx.jpg,rain,y.jpg\n")) == [
        "…/a.csv: unknown column 'promt'; did you mean prompt?",
        "…/a.csv: columns image and first mean the same; remove one.",
    ]


@pytest.mark.parametrize(
    "key", ["", " a", "a/b", "a\\b", "..", ".a", "a.", "a\nb", "a\0b", "a\x1bb", "x" * 151, "ü" * 76]
)
def test_a_name_that_could_leave_the_folder_or_fit_no_file_system_is_refused(write, key):
    [problem] = problems_of(write("jobs.jsonl", json.dumps({"image": "a.jpg", "name": key})))
    assert "line 1: name must" in problem


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("jobs.txt", b"", "must be a folder of pictures, or a list that ends in .csv, .tsv or .jsonl"),
        ("jobs.csv", b"image\nf\xfcr.jpg\n", "is no UTF-8 text"),
        ("jobs.csv", b"image,prompt\n", "holds no jobs"),
        ("jobs.jsonl", b"\n\n", "holds no jobs"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_jobs(tmp_path / name, Defaults())


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_jobs(tmp_path / "gone.csv", Defaults())
