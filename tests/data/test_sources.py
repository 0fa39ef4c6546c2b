import csv
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import pytest

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.records import ClipRecord, PackedRecords
from dynamicrafter.data.sources import Tally, find_source, read_records
from dynamicrafter.errors import InputError


def records(path, tally=None, **options):
    config = DataConfig(path=path, **options)
    return list(read_records(find_source(config), config, tally))


def write_csv(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


MOTION = ("dynamic_confidence", "dynamic_wording", "dynamic_source_category")


def test_webvids_list_leads_to_its_videos(tmp_path):
    path = write_csv(
        tmp_path / "w.csv", ["videoid", "duration", "page_dir", "name"], ["12", "PT3S", "000_050", "A, b\n c"]
    )
    expected = ClipRecord(tmp_path / "videos/000_050/12.mp4", "A, b c", "videos/000_050/12.mp4", None)
    assert records(path) == [expected]
    assert records(path, root=tmp_path / "..", kind="webvid")[0].path == tmp_path.parent / "videos/000_050/12.mp4"


def test_columns_of_motion_filter_and_retell(tmp_path):
    path = write_csv(
        tmp_path / "w.csv",
        ["videoid", "page_dir", "name", *MOTION],
        ["1", "p", "a man walking home", "90", "man walking", "Person"],
        ["2", "p", "a city from above", "55.5", "", "camera"],
        ["3", "p", "a table", "0", "", "none"],
        ["4", "p", "unknown", "", "", ""],
    )
    assert [record.motion_caption for record in records(path)] == ["man walking", None, None, None]
    tally = Tally()
    kept = records(path, tally, min_confidence=50, motion_sources=("person",))
    assert [record.key for record in kept] == ["videos/p/1.mp4"]
    assert (tally.listed, tally.unsure, tally.other_sources) == (4, 2, 1)
    assert (tally.least_confidence, tally.most_confidence) == (0, 90)
    with pytest.raises(InputError, match="holds no clips: none of its 4 clips passes the filters; lower them"):
        records(path, min_confidence=99)


@pytest.mark.parametrize("path_column", ["path", "file", "video"])
@pytest.mark.parametrize("caption_column", ["caption", "text", "prompt"])
def test_ones_own_list_in_either_form(tmp_path, path_column, caption_column):
    rows = [("a.mp4", "one"), ("sub/b.mov", "zwei, drei"), (str(tmp_path / "c.mp4"), "vier")]
    write_csv(tmp_path / "l.csv", [caption_column, path_column, "mine"], *[(c, p, "x") for p, c in rows])
    lines = [json.dumps({path_column: p, caption_column: c, "mine": [1]}) for p, c in rows]
    (tmp_path / "l.jsonl").write_text("\n\n".join(lines) + "\n")
    for name in ("l.csv", "l.jsonl"):
        found = records(tmp_path / name)
        assert [(r.key, r.caption) for r in found] == [("a.mp4", "one"), ("sub/b.mov", "zwei, drei"), ("c.mp4", "vier")]
        assert found[1].path == tmp_path / "sub/b.mov"


def test_a_folder_is_searched_for_videos_with_captions_beside(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.mp4", "sub/a.MOV", ".hidden.mp4", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "b.txt").write_text("\ufeff a boat \n drifts ")
    (tmp_path / "sub/a.txt").write_text("a cat")
    assert [(r.key, r.caption) for r in records(tmp_path)] == [("b.mp4", "a boat drifts"), ("sub/a.MOV", "a cat")]


def test_a_missing_caption_is_refused_unless_it_may_be_missing(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}.mp4").touch()
    (tmp_path / "4.txt").write_text("there")
    with pytest.raises(InputError, match=r"4 of 5 clips have no caption \(0\.mp4, 1\.mp4, 2\.mp4, …\); write them"):
        records(tmp_path)
    assert [r.caption for r in records(tmp_path, captions="optional")] == ["", "", "", "", "there"]
    write_csv(tmp_path / "l.csv", ["path", "caption"], ["0.mp4", "x"], ["1.mp4", " "])
    with pytest.raises(InputError, match=r"1 of 2 clips have no caption \(line 3\)"):
        records(tmp_path / "l.csv")
    write_csv(tmp_path / "bare.csv", ["path"], ["0.mp4"])
    assert records(tmp_path / "bare.csv", captions="optional")[0].caption == ""


@pytest.mark.parametrize("name", ["../a.mp4", "sub/../../a.mp4", "/etc/passwd", "..", ".", "a\0.mp4", "sub/.."])
def test_no_path_leads_out_of_the_root(tmp_path, name):
    (tmp_path / "l.jsonl").write_text(json.dumps({"path": "fine.mp4", "caption": "x"}) + "\n")
    with (tmp_path / "l.jsonl").open("a") as file:
        file.write(json.dumps({"path": name, "caption": "x"}) + "\n")
    with pytest.raises(InputError, match=r"l\.jsonl, line 2: .*(leads out of|NUL)"):
        records(tmp_path / "l.jsonl")


def test_webvids_columns_lead_out_of_the_root_as_little(tmp_path):
    write_csv(tmp_path / "w.csv", ["videoid", "page_dir", "name"], ["../../../x", "p", "c"])
    with pytest.raises(InputError, match=r"line 2: .*leads out of"):
        records(tmp_path / "w.csv")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("l.csv", "a,b\n1,2\n", "has no column path or file or video or file_name or .*, caption or text or"),
        ("l.csv", "", "has no column .* only none"),
        ("l.csv", "path,caption\n", "holds no clips: it is empty"),
        ("l.csv", "path,caption\na.mp4,x\n\nb.mp4,x,y\n", "line 4 has 3 cells where the header names 2; put text with"),
        ("l.csv", "path,caption\n,x\n", "line 2 has no path; fill it in or delete the line"),
        ("l.csv", "path,path,caption\n", "names column 'path' twice"),
        ("l.csv", 'path,caption\na.mp4,"' + "x" * 200_000, "line 2 opens a double quote that is never closed"),
        ("l.csv", "path,caption\n" + "x" * (1 << 20), "line 2 is longer than"),
        ("l.csv", b"path,caption\na.mp4,\xff\xfe\n", "is no UTF-8 text"),
        ("l.jsonl", '{"path": "a", "caption": "b"}\n{"path"\n', "line 2 is no JSON"),
        ("l.jsonl", '["a"]\n', "line 1 must be a JSON object"),
        ("l.jsonl", '{"path": "a", "caption": "b"}\n{"caption": "b"}\n', "line 2 has no path"),
        ("l.csv", f"path,caption,{','.join(MOTION)}\na.mp4,x,high,y,z\n", "dynamic_confidence must be a number, got"),
        ("l.parquet", "PAR1", "must end in .csv, .tsv, .jsonl, .ndjson"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as caught:
        records(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": None}, "data.path is missing"),
        ({"path": Path("nowhere.csv")}, "nowhere.csv does not exist"),
        ({"kind": "zip"}, "data.kind must be one of auto, webvid, table, folder, got 'zip'"),
        ({"kind": "table"}, "is a folder, where data.kind table wants a file"),
        ({"root": Path("nowhere")}, "data.root nowhere is no folder"),
        ({"captions": "maybe"}, "data.captions must be one of"),
        ({"num_frames": 0}, "data.num_frames must be between 1 and 1024, got 0; try 16"),
        ({"min_stride": 4, "max_stride": 3}, "data.max_stride must be between 4 and 1000, got 3"),
        ({"size": (0, 64)}, "data.size must be a positive"),
        ({"motion_caption_probability": 1.5}, "data.motion_caption_probability must be between 0 and 1, got 1.5"),
        ({"min_confidence": float("nan")}, "data.min_confidence must be a finite number, got nan"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        find_source(DataConfig(**{"path": tmp_path} | options))


def test_a_list_without_columns_of_motion_says_how_to_get_them(tmp_path):
    write_csv(tmp_path / "l.csv", ["path", "caption"], ["a.mp4", "x"])
    with pytest.raises(InputError, match=r"has no column dynamic_confidence.*`dynamicrafter data annotate` adds those"):
        records(tmp_path / "l.csv", min_confidence=50)


def test_packed_records_come_back_as_they_were(tmp_path):
    odd = os.fsdecode(b"caf\xe9.mp4")
    given = [
        ClipRecord(tmp_path / key, "ü 🚢", key, motion) for key, motion in (("a", None), (odd, "m"), ("c", "\x02"))
    ]
    packed = PackedRecords(given, root=tmp_path)
    assert [packed[index] for index in range(len(packed))] == given
    with pytest.raises(IndexError):
        packed[3]


def test_a_million_records_would_take_little_memory(tmp_path):
    count = 20_000
    rows = ([str(10**7 + i), "000001_000050", f"a caption of the usual length, number {i}"] for i in range(count))
    write_csv(tmp_path / "w.csv", ["videoid", "page_dir", "name"], *rows)
    config = DataConfig(path=tmp_path / "w.csv")
    tracemalloc.start()
    packed = PackedRecords(read_records(find_source(config), config), root=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(packed) == count
    assert len(pickle.dumps(packed)) < 120 * count
    assert peak < 500 * count
