"""The account of a list: a line for each job, whole lines only, and one writer."""

import json
import os
import subprocess
import sys

import pytest

from dynamicrafter.errors import InputError, OutputError
from dynamicrafter.jobs import ledger
from dynamicrafter.jobs.ledger import LedgerEntry, folder_locked, opened, read_entries


@pytest.fixture
def aside(tmp_path):
    (tmp_path / "aside").mkdir()
    return tmp_path / "aside"


def entry(key, **values):
    return LedgerEntry(
        **({"key": key, "status": "done", "outputs": (f"{key}.mp4",), "made_from": {"seed": 1}} | values)
    )


def test_lines_come_back_as_they_were_written(tmp_path, aside):
    first, second = entry("a"), entry("b\n", status="failed", outputs=(), error="no\nluck", seconds=1.5)
    with opened(tmp_path, {}, aside=aside) as account:
        account.append([first])
        account.append([second])
    assert read_entries(tmp_path) == {"a": first, "b\n": second}
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b\n"]


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_line_that_a_kill_cut_off_is_dropped_and_the_next_begins_anew(tmp_path, aside, caplog, cut):
    path = tmp_path / "results.jsonl"
    with opened(tmp_path, {}, aside=aside) as account:
        account.append([entry("a"), entry("b")])
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:cut])
    entries = read_entries(tmp_path)
    assert list(entries) == ["a"]
    assert "ends in half a line" in caplog.text
    with opened(tmp_path, entries, aside=aside) as account:
        account.append([entry("c")])
    assert list(read_entries(tmp_path)) == ["a", "c"]


def test_entries_that_no_longer_hold_leave_no_line(tmp_path, aside):
    with opened(tmp_path, {}, aside=aside) as account:
        account.append([entry("a"), entry("b")])
    with opened(tmp_path, {"b": entry("b")}, aside=aside) as account:
        account.append([entry("a", seconds=2)])
    assert list(read_entries(tmp_path)) == ["b", "a"]
    assert (tmp_path / "results.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"key": "a"}', '{"key": "a", "status": "?", "outputs": [], "made_from": {}}']
)
def test_damage_elsewhere_is_said_and_nothing_is_changed(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"results.jsonl, line 1 is damaged; delete the line"):
        read_entries(tmp_path)
    assert path.read_text() == f"{line}\n"


def test_a_full_disk_is_said_in_one_line(tmp_path, aside, monkeypatch):
    with opened(tmp_path, {}, aside=aside) as account:
        monkeypatch.setattr(account, "_file", type("Full", (), {"write": lambda self, data: len(data) - 1})())
        with pytest.raises(OutputError, match="the disk is full"):
            account.append([entry("a")])


def test_a_second_run_is_kept_off_until_the_first_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "PATIENCE", 0.2)
    program = (
        "import sys, time; from pathlib import Path; from dynamicrafter.jobs.ledger import folder_locked\n"
        f"with folder_locked(Path({str(tmp_path)!r})): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match="is being written by another run"), folder_locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with folder_locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
