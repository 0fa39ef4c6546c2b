import csv
import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dynamicrafter.data import dataset as module
from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.dataset import open_dataset, read_report
from dynamicrafter.errors import InputError, OutputError
from numbered_clips import HEIGHT, WIDTH, damage, number_of, write_numbered

FPS = "frames per second"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of five clips, from 16 to 64 frames."""
    folder = tmp_path_factory.mktemp("clips")
    for index, count in enumerate((16, 31, 64, 40, 50)):
        write_numbered(folder / f"{index}.mp4", count)
        (folder / f"{index}.txt").write_text(f"clip {index}")
    return folder


def config(path, **options):
    return DataConfig(**{"path": path, "size": (HEIGHT, WIDTH), "seed": 3} | options)


def open_(path, *, unit=FPS, **options):
    return open_dataset(config(path, **options), motion_unit=unit)


def same(one, other):
    said = [(sample.caption, sample.motion, sample.key) for sample in (one, other)]
    return said[0] == said[1] and torch.equal(one.pixels, other.pixels)


def frames_of(sample):
    return [number_of(frame.numpy()) for frame in sample.pixels.permute(1, 2, 3, 0)]


def test_a_sample_is_evenly_spaced_frames_with_their_motion_number(clips):
    stream = open_(clips)
    assert len(stream) == 5
    strides = set()
    for position in range(20):
        sample = stream.draw(position)
        assert (sample.pixels.shape, sample.pixels.dtype) == ((3, 16, HEIGHT, WIDTH), torch.uint8)
        assert sample.caption == f"clip {sample.key[0]}"
        [stride] = set(np.diff(frames_of(sample)))
        assert sample.motion == 30 // stride
        assert open_(clips, unit="frame stride").draw(position).motion == stride
        strides.add(int(stride))
    assert {1, 2, 3, 4} == strides  # the longest clip has 64 frames


def test_each_pass_shows_each_clip_once(clips):
    stream = open_(clips)
    for epoch in range(3):
        assert {stream.draw(5 * epoch + place).key for place in range(5)} == {f"{index}.mp4" for index in range(5)}


def test_a_sample_depends_on_seed_and_position_alone(clips):
    forwards = open_(clips)
    drawn = [forwards.draw(position) for position in range(12)]
    backwards = open_(clips)
    again = [backwards.draw(position) for position in reversed(range(12))][::-1]
    assert all(map(same, drawn, again))
    other = [open_(clips, seed=4).draw(position) for position in range(12)]
    assert not all(map(same, drawn, other))


def test_a_stream_goes_to_other_processes(clips):
    stream = open_(clips)
    stream.draw(0)
    assert same(pickle.loads(pickle.dumps(stream)).draw(7), stream.draw(7))


class Positions(Dataset):
    def __init__(self, stream):
        self.stream = stream

    def __len__(self):
        return 12

    def __getitem__(self, position):
        sample = self.stream.draw(position)
        return sample.pixels, sample.key


def test_workers_draw_what_one_process_draws(clips):
    stream = open_(clips)
    stream.draw(0)  # libav has run here before the process forks
    loader = DataLoader(Positions(stream), batch_size=None, num_workers=2)
    for position, (pixels, key) in enumerate(loader):
        alone = stream.draw(position)
        assert key == alone.key
        assert torch.equal(pixels, alone.pixels)


@pytest.fixture
def flawed(clips, tmp_path):
    """The five clips among as many that can't be read."""
    for path in clips.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (clips / "3.mp4").read_bytes()
    bad = {"empty.mp4": b"", "cut.mp4": whole[:1500], "text.mp4": b"no video", "gone.mp4": None}
    for name, content in bad.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    write_numbered(tmp_path / "short.mp4", 15)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = [(f"{index}.mp4", f"clip {index}") for index in range(5)] + [(name, "bad") for name in bad]
        csv.writer(file).writerows([("path", "caption"), *rows, ("short.mp4", "bad")])
    return tmp_path / "list.csv"


def test_bad_clips_are_passed_over_counted_and_named(flawed):
    report = flawed.parent / "report.jsonl"
    stream = open_(flawed, report=report)
    drawn = [stream.draw(position) for position in range(20)]
    assert {sample.key for sample in drawn} == {f"{index}.mp4" for index in range(5)}
    assert dict(stream.skipped) == {
        "empty.mp4": "is empty; copy or download the clip again.",
        "cut.mp4": "is cut short; copy or download it again.",
        "text.mp4": stream.skipped["text.mp4"],
        "gone.mp4": "does not exist; check the clip's name and folder.",
        "short.mp4": "the clip has 15 frames, and 16 at stride 1 need 16.",
    }
    assert read_report(report) == dict(stream.skipped)
    assert len(report.read_text().splitlines()) == 5
    # What came before has no part in a sample, bad clips or not.
    assert all(same(sample, open_(flawed).draw(position)) for position, sample in enumerate(drawn))


def test_a_bad_clip_is_not_tried_twice(flawed, monkeypatch):
    opened = []
    open_clip = module.opened_clip
    monkeypatch.setattr(module, "opened_clip", lambda path: opened.append(path.name) or open_clip(path))
    stream = open_(flawed)
    for position in range(30):
        stream.draw(position)
    assert all(opened.count(name) == 1 for name in stream.skipped)
    assert len(opened) == 30 + len(stream.skipped)


def test_processes_add_to_one_report(flawed):
    report = flawed.parent / "report.jsonl"
    loader = DataLoader(Positions(open_(flawed, report=report)), batch_size=None, num_workers=2)
    assert len(list(loader)) == 12
    assert set(read_report(report)) <= {"empty.mp4", "cut.mp4", "text.mp4", "gone.mp4", "short.mp4"}
    assert all(set(json.loads(line)) == {"clip", "reason"} for line in report.read_text().splitlines())


def test_damage_that_one_draw_meets_leaves_other_draws_of_the_clip(tmp_path):
    write_numbered(tmp_path / "a.mp4", 60)
    damage(tmp_path / "a.mp4")  # behind frame 40
    write_numbered(tmp_path / "b.mp4", 60)
    drawn = {}
    stream = open_(tmp_path, captions="optional", max_stride=1)
    for position in range(24):
        drawn[position] = stream.draw(position)
    keys = [sample.key for sample in drawn.values()]
    assert set(stream.skipped) == {"a.mp4"}
    first = next(position for position in range(0, 24, 2) if keys[position] == keys[position + 1])
    assert "a.mp4" in keys[first + 2 :]
    resumed = open_(tmp_path, captions="optional", max_stride=1)
    assert all(same(resumed.draw(position), drawn[position]) for position in range(first + 1, 24))


def test_only_a_source_without_any_good_clip_is_an_error(tmp_path, flawed):
    for index in range(5):
        (flawed.parent / f"{index}.mp4").write_bytes(b"")
    stream = open_(flawed)
    with pytest.raises(
        InputError, match=r"list\.csv: none of 10 clips can be used; \S+\.mp4: .*data check` lists them"
    ):
        stream.draw(4)
    with pytest.raises(InputError, match="none of 10 clips can be used"):
        stream.draw(5)


def test_thousands_of_missing_clips_in_a_row_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_TRIES", 3)
    (tmp_path / "l.csv").write_text("path,caption\n" + "".join(f"{index}.mp4,x\n" for index in range(9)))
    with pytest.raises(InputError, match="none of 3 clips in a row can be used"):
        open_(tmp_path / "l.csv").draw(0)


def test_the_motions_wording_is_the_caption_as_often_as_asked(clips):
    path = clips / "motion.csv"
    rows = [(f"{index}.mp4", "caption", 90, "wording", "person") for index in (0, 1, 2)]
    with path.open("w", newline="") as file:
        head = ("path", "caption", "dynamic_confidence", "dynamic_wording", "dynamic_source_category")
        csv.writer(file).writerows([head, *rows, ("3.mp4", "caption", 0, "", "none")])
    small = {"size": (6, 8), "num_frames": 1}
    for probability, low, high in ((0, 0, 0), (0.3, 10, 40), (1, 75, 75)):
        drawn = [open_(path, motion_caption_probability=probability, **small).draw(i) for i in range(100)]
        assert low <= sum(sample.caption == "wording" for sample in drawn) <= high
        assert all(sample.caption == "caption" for sample in drawn if sample.key == "3.mp4")
    path.unlink()


def test_a_report_that_cannot_be_written_is_said(flawed):
    stream = open_(flawed, report=flawed.parent / "nowhere" / "r.jsonl", num_frames=1000)
    with pytest.raises(OutputError, match=r"r\.jsonl could not be written: .*; choose another folder"):
        stream.draw(0)
