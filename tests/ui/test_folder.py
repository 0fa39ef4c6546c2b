"""A killed server's folder is removed by the next one, and no other is."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dynamicrafter.ui.folder import ServerFolder, sweep_leftovers

_SERVER = "from dynamicrafter.ui.folder import ServerFolder as F; folder = F(); print(folder.path, flush=True); input()"


@pytest.fixture(autouse=True)
def _temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def start(tmp_path):
    running = []

    def start():
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        running.append(server)
        return server, tmp_path / Path(server.stdout.readline().strip()).name

    yield start
    for server in running:
        server.kill()
        server.wait()


def test_leftovers_of_the_killed_go_and_the_folders_of_the_living_stay(start, tmp_path):
    killed, left = start()
    _, lives = start()
    (left / "uploads").mkdir()
    (left / "uploads" / "photo.png").write_bytes(b"x")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.is_dir()
    assert sweep_leftovers() == 1
    assert not left.exists()
    assert lives.is_dir()
    assert sweep_leftovers() == 0


def test_one_that_ends_leaves_nothing(tmp_path):
    folder = ServerFolder()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert sweep_leftovers() == 0
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_only_looks_like_a_leftover_stays(tmp_path):
    foreign = tmp_path / "elsewhere"
    foreign.mkdir()
    (foreign / ".lock").touch()
    (tmp_path / "dynamicrafter-ui-link").symlink_to(foreign)
    (tmp_path / "dynamicrafter-ui-new").mkdir()
    (tmp_path / "dynamicrafter-ui-file").touch()
    assert sweep_leftovers() == 0
    assert len(list(tmp_path.iterdir())) == 4
    assert (foreign / ".lock").exists()
