import json
import time

import numpy as np
import pytest

from dynamicrafter.data import check as module
from dynamicrafter.data.check import check_data
from dynamicrafter.data.config import DataConfig
from dynamicrafter.errors import InputError
from numbered_clips import number_of, rotate_by_header, write_numbered


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three good clips, of which one stands upright, and four that can't be used."""
    folder = tmp_path_factory.mktemp("clips")
    write_numbered(folder / "a.mp4", 60)
    write_numbered(folder / "b.mkv", 40, fps=20)
    rotate_by_header(write_numbered(folder / "c.mp4", 31), (0, 1, -1, 0))
    write_numbered(folder / "short.mp4", 12)
    (folder / "cut.mp4").write_bytes((folder / "a.mp4").read_bytes()[:2500])
    (folder / "empty.mov").touch()
    (folder / "text.avi").write_text("no video")
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text("a clip")
    return folder


def test_usable_clips_are_measured_and_the_others_named(folder):
    report = check_data(DataConfig(path=folder))
    assert (report.clips, report.looked_at, report.usable) == (7, 7, 3)
    assert report.problems == {
        "cut.mp4": "is cut short; copy or download it again.",
        "empty.mov": "is empty; copy or download the clip again.",
        "short.mp4": "the clip has 12 frames, and 16 at stride 1 need 16.",
        "text.avi": report.problems["text.avi"],
    }
    assert report.sizes == {(48, 64): 2, (64, 48): 1}
    assert report.rates == {30: 2, 20: 1}
    assert report.strides == {3: 1, 2: 2}
    assert sorted(report.seconds) == pytest.approx([31 / 30, 2, 2])
    assert sorted(report.frames) == [31, 40, 60]
    assert json.loads(json.dumps(report.as_json()))["skipped"] == report.problems


def test_the_number_of_readers_changes_nothing(folder):
    reports = [check_data(DataConfig(path=folder), workers=count).as_json() for count in (1, 3, 16)]
    assert reports[0] == reports[1] == reports[2]


def test_fewer_clips_are_spread_over_the_list(folder):
    done = []
    report = check_data(DataConfig(path=folder), limit=3, on_clip=lambda *counts: done.append(counts))
    assert (report.clips, report.looked_at, report.usable) == (7, 3, 2)
    assert set(report.problems) == {"empty.mov"}  # the first, third and fifth
    assert done == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(InputError, match="limit must be 1 or more, got 0"):
        check_data(DataConfig(path=folder), limit=0)
    with pytest.raises(InputError, match="workers must be 1 or more, got 0"):
        check_data(DataConfig(path=folder), workers=0)


def test_thumbnails_are_the_first_the_middle_and_the_last_frame(folder):
    report = check_data(DataConfig(path=folder, size=(48, 64)), sheet_clips=7)
    found = dict(report.sheet)
    assert list(found) == ["a.mp4", "b.mkv", "c.mp4"]
    assert found["a.mp4"].shape == (3, 144, 192, 3)
    assert [number_of(view) for view in found["a.mp4"]] == [0, 29, 59]
    assert [number_of(view) for view in found["b.mkv"]] == [0, 19, 39]
    assert found["a.mp4"].dtype == np.uint8


def test_few_clips_wait_at_a_time(folder, monkeypatch):
    begun = []
    check_clip = module.check_clip
    monkeypatch.setattr(
        module, "check_clip", lambda record, *_, **__: begun.append(record) or check_clip(record, *_, **__)
    )
    (folder / "many.csv").write_text("path,caption\n" + "a.mp4,x\n" * 50)
    ahead = []
    config = DataConfig(path=folder / "many.csv")

    def on_clip(done, _count):
        time.sleep(0.01)
        ahead.append(len(begun) - done)

    check_data(config, workers=2, on_clip=on_clip)
    assert max(ahead) <= 2 * 4
