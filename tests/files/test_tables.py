"""Lists as Excel, pandas and people write them, read the same for batches and for training."""

import json
import unicodedata
from pathlib import Path

import pytest

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.sources import find_source, read_records
from dynamicrafter.errors import InputError
from dynamicrafter.files.tables import TableRow, table_columns, table_rows
from dynamicrafter.jobs.job import Defaults, JobsError
from dynamicrafter.jobs.lists import read_jobs


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "list.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def cells(path):
    return [row.cells for row in table_rows(path)]


def as_job(path):
    [job] = read_jobs(path, Defaults())
    return job.pictures[0].relative_to(path.parent), job.clip.prompts[0]


def as_clip(path):
    [clip] = read_records(find_source(DataConfig(path=path)), DataConfig(path=path))
    return clip.path.relative_to(path.parent), clip.caption


@pytest.mark.parametrize(
    "content",
    [
        "path,caption\r\na.png,x\r\n",
        "\ufeffpath,caption\r\na.png,x\r\n",
        "path;caption\r\na.png;x\r\n",
        "path\tcaption\r\na.png\tx\r\n",
        "sep=,\r\npath,caption\r\na.png,x\r\n",
        '"sep=;"\r\npath;caption\r\na.png;x\r\n',
        "sep=|\npath|caption\na.png|x\n",
        "path\tcaption\na.png\tx\n".encode("utf-16"),
        "path,caption\ra.png,x\r",
        "Path,Caption\na.png,x\n",
        "FILE_NAME,TEXT\na.png,x\n",
        "File Name,Prompt\na.png,x\n",
        "path, caption\na.png, x\n",
        "path,caption\xa0\na.png\xa0,x\n",
        "path,caption,,\na.png,x,,\n,,,\n",
        "path,caption\na.png,x,,\n\n",
        ",path,caption\n0,a.png,x\n",
        "Unnamed: 0,path,caption\n0,a.png,x\n",
    ],
)
def test_what_spreadsheets_write_is_the_same_list_for_batch_and_training(write, content):
    path = write(content)
    assert as_job(path) == as_clip(path) == (Path("a.png"), "x")


@pytest.mark.parametrize("file_heading", ["path", "file", "file_name", "filename", "FilePath"])
@pytest.mark.parametrize("text_heading", ["caption", "text", "prompt", "Text"])
def test_headings_have_the_same_names_in_both(write, file_heading, text_heading):
    path = write(json.dumps({file_heading: "a.png", text_heading: "x"}) + "\n", "list.jsonl")
    assert as_job(path) == as_clip(path) == (Path("a.png"), "x")
    path = write(f"{text_heading},{file_heading}\nx,a.png\n")
    assert as_job(path) == as_clip(path) == (Path("a.png"), "x")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a.png,"never closed\nb.png,x\nc.png,y\n', 2),
        ('a.png,x\nb.png,"never closed\nc.png,y\n', 3),
        ('a.png,"two\nlines"\nb.png,"never closed\n', 4),
        ('a.png,"closed on\nthe next",\nb.png,"open ""twice""\nc.png,x', 4),
        ('a.png,"' + "x" * 200_000 + "\nb.png,x\n", 2),
        ('"a.png,x\nb.png,y\n', 2),
    ],
)
def test_a_quote_that_is_never_closed_is_told_with_its_line_in_both(write, rows, line):
    path = write("path,caption\n" + rows)
    said = rf"list\.csv, line {line} opens a double quote that is never closed"
    with pytest.raises(JobsError) as caught:
        read_jobs(path, Defaults())
    assert [problem for problem in caught.value.problems if f"line {line} opens a double quote" in problem]
    with pytest.raises(InputError, match=said):
        as_clip(path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('a.png,"one\nb.png,"two"\n', "line 2 has text behind a double quote that closes on line 3"),
        ('a.png,"a boat" sailing\n', "line 2 has text behind a double quote that closes;"),
        ('a.png,x\nb.png,"5" tall"\n', "line 3 has text behind a double quote that closes;"),
    ],
)
def test_a_quote_that_another_row_closes_swallows_nothing(write, rows, said):
    path = write("path,caption\n" + rows)
    with pytest.raises(InputError, match=said):
        list(table_rows(path))


def test_rows_that_two_open_quotes_may_have_swallowed_are_told(write, caplog):
    path = write('path,caption\na.png,"one\nb.png,two"\n')
    assert len(cells(path)) == 1
    assert (
        "line 2: a cell in quotes runs on to line 3; if those are rows of their own, a quote is missing" in caplog.text
    )


def test_quotes_that_are_right_are_read(write):
    path = write('path,caption\r\na.png,"he said ""hi"", then\nleft"\r\nb.png,a 5" screen\r\n')
    assert [row.line for row in table_rows(path)] == [2, 4]
    assert cells(path) == [
        {"path": "a.png", "caption": 'he said "hi", then\nleft'},
        {"path": "b.png", "caption": 'a 5" screen'},
    ]


@pytest.mark.parametrize("blank", ["", " ", "nan", "NaN", "<NA>", "None", "#N/A", '""'])
def test_blank_cells_of_any_program_are_no_cells(write, blank):
    assert cells(write(f"path,caption,seed\na.png,x,{blank}\n")) == [{"path": "a.png", "caption": "x"}]
    assert cells(write('{"path": "a", "seed": NaN, "prompt": null}', "l.jsonl")) == [{"path": "a"}]


def test_whole_numbers_may_have_a_point_and_a_zero_and_shortened_ones_are_refused(write):
    [job] = read_jobs(write("image,seed,frames,steps\na.png,7.0,4.0,2.00\n"), Defaults())
    assert (job.clip.options.seed, job.clip.options.frames, job.clip.options.steps) == (7, 4, 2)
    [job] = read_jobs(write('{"image": "a.png", "seed": 7.0, "samples": 2.0}', "l.jsonl"), Defaults())
    assert (job.clip.options.seed, job.output.samples) == (7, 2)
    with pytest.raises(InputError, match=r"seed must be a whole number, got '1\.23457E\+12'"):
        read_jobs(write("image,seed\na.png,1.23457E+12\n"), Defaults())


def test_where_a_semicolon_separates_numbers_have_a_comma(write):
    [job] = read_jobs(write("image;guidance;prompt\na.png;7,5;hello, world\n"), Defaults())
    assert (job.clip.options.guidance, job.clip.prompts[0]) == (7.5, "hello, world")


def test_captions_may_be_lists(write):
    path = write('{"path": "a.png", "caption": ["x"]}', "l.jsonl")
    assert as_job(path) == as_clip(path) == (Path("a.png"), "x")
    path = write('{"path": "a.png", "caption": ["x", "y"]}', "l.jsonl")
    [clip] = read_records(find_source(DataConfig(path=path)), DataConfig(path=path))
    assert (clip.caption, clip.other_captions) == ("x", ("y",))
    with pytest.raises(InputError, match="prompt must be one text, got 2; write a row for each"):
        read_jobs(path, Defaults())


def test_paths_of_windows_are_read_or_told(write, tmp_path):
    path = write("path,caption\nsub\\a.png,x\n")
    assert as_job(path) == as_clip(path) == (Path("sub/a.png"), "x")
    for named in ("C:\\Users\\me\\q.png", "d:/clips/q.png", "\\\\server\\clips\\q.png"):
        path = write(f"path,caption\n{named},x\n")
        for read in (as_job, as_clip):
            with pytest.raises(InputError, match=r"line 2: .* lies on a disk or server of Windows.* such as q\.png"):
                read(path)
    with pytest.raises(InputError, match=r"line 2: .* leads out of"):
        as_clip(write("path,caption\n..\\..\\a.png,x\n"))
    (tmp_path / "odd\\name.png").touch()
    assert as_job(write("path,caption,name\nodd\\name.png,x,a\n"))[0] == Path("odd\\name.png")


@pytest.mark.parametrize(("stored", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_are_found_whichever_way_their_letters_are_composed(write, tmp_path, stored, listed):
    here, there = (unicodedata.normalize(form, "café") for form in (stored, listed))
    (tmp_path / here).mkdir()
    (tmp_path / here / f"{here}.png").touch()
    [job] = read_jobs(write(f"path,caption\n{there}/{there}.png,x\n"), Defaults())
    assert job.pictures[0].exists()
    assert job.key == unicodedata.normalize("NFC", "café")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,caption,\na.png,x,note\n", "line 2 has 3 cells where the header names 2"),
        ("path,,caption\na.png,note,x\n", "line 2 has 'note' in column 2, which has no heading; name it"),
        ("path,Path,caption\na.png,b.png,x\n", "line 1 names column 'path' twice"),
        ("path,caption\na.png,x, y\n", "line 2 has 3 cells where the header names 2; put text with ',' into double"),
        ("path;caption\na.png;x; y\n", "line 2 has 3 cells where the header names 2; put text with ';' into double"),
        (b"path,caption\na.png,caf\xe9\n", "is no UTF-8 text"),
        ("path,caption\na.png,x\n".encode("utf-16")[:-1], "is no UTF-8 text"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused_with_its_line(write, content, said):
    with pytest.raises(InputError, match=said):
        list(table_rows(write(content)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"path": "a"}]', r"line 1 must be a JSON object, such as .*, one a line"),
        ('{"path": "a"}\n{"path"', "line 2 is no JSON"),
        ('{"path": "a", "Path": "b"}', "line 1 names 'path' twice"),
    ],
)
def test_what_is_no_row_of_json_is_refused_with_its_line(write, content, said):
    with pytest.raises(InputError, match=said):
        list(table_rows(write(content, "l.jsonl")))


def test_bad_rows_can_be_gathered_and_the_others_read(write):
    problems = []
    rows = list(table_rows(write("path,caption\na,1,2\nb,x\nc,1,2\n"), problems.append))
    assert rows == [TableRow(3, {"path": "b", "caption": "x"})]
    assert [str(problem).split(" has")[0][-6:] for problem in problems] == ["line 2", "line 4"]


def test_a_short_row_has_blank_cells_at_its_end(write):
    path = write("path,caption,seed\na.png\n")
    assert cells(path) == [{"path": "a.png"}]
    assert table_columns(path) == ("path", "caption", "seed")
