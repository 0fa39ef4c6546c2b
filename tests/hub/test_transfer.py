"""A download that was interrupted, in whatever way, goes on where it stopped, and never ends in a wrong file."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.utils import enable_progress_bars

from dynamicrafter import hub
from dynamicrafter.errors import ModelNotFoundError, OutputError
from fake_hub import COMMIT, INDEX, Cache, FakeHub, refusal

REPO = "Doubiiu/DynamiCrafter"
CONTENT = bytes(range(256)) * 1200  # 307200 bytes


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)


@pytest.fixture(autouse=True)
def pause(monkeypatch) -> SimpleNamespace:
    """What the library does in the second before it takes a broken line up again: nothing, and at once."""
    doing = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.file_download.time", doing)
    return doing


@pytest.fixture
def server(server) -> FakeHub:
    server.files[REPO] = {"model.ckpt": CONTENT}
    return server


def partials(cache: Cache) -> list[Path]:
    return sorted(cache.root.glob("*/blobs/*.incomplete"))


@pytest.fixture
def interrupt(server, pause):
    """Breaks a download off by Ctrl-C when 100,000 bytes have arrived; returns what the interrupt says."""

    def interrupt(action=lambda: hub.download("256")) -> str:
        def press(seconds: float) -> None:
            raise KeyboardInterrupt

        server.break_after, before, pause.sleep = 100_000, pause.sleep, press
        with pytest.raises(KeyboardInterrupt) as caught:
            action()
        pause.sleep = before
        server.asked.clear()
        return str(caught.value)

    return interrupt


def start_elsewhere(server: FakeHub, cache: Cache, *, pause_after: int) -> subprocess.Popen[bytes]:
    """Begin a download in another process, and come back when that much has arrived and no more comes."""
    server.pause_after = pause_after
    code = "from huggingface_hub import constants as c; c.DOWNLOAD_CHUNK_SIZE = 10_000; "
    code += "from dynamicrafter import hub; hub.download('256')"
    settings = {"HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(cache.root), "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | settings, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size >= pause_after for path in partials(cache)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


class TestInterruptions:
    @pytest.mark.parametrize("resets", [False, True])
    def test_a_line_that_breaks_is_taken_up_at_once(self, server, resets):
        server.break_after, server.resets = 100_000, resets
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=100000-"]

    def test_a_download_that_gives_up_is_gone_on_with_the_next_time(self, server, pause):
        def refuse(seconds: float) -> None:
            server.refused[REPO] = (403, "")

        server.break_after, pause.sleep = 100_000, refuse
        message = refusal(ModelNotFoundError, hub.download, "256")
        assert "what has arrived is kept" in message
        server.refused.clear()
        server.asked.clear()
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == ["bytes=100000-"]

    def test_ctrl_c_says_that_the_same_command_goes_on_and_leaves_no_model(self, server, interrupt):
        said = interrupt()
        assert said == "stopped with 100kB of 307kB here; run it again to go on where it stopped"
        assert hub.find_local("256") is None
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == ["bytes=100000-"]

    def test_a_killed_process_is_taken_over_where_it_stopped(self, server, cache):
        process = start_elsewhere(server, cache, pause_after=120_000)
        process.kill()
        process.communicate()
        assert hub.find_local("256") is None
        server.asked.clear()
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == ["bytes=120000-"]
        assert partials(cache) == []

    def test_what_arrived_whole_is_not_asked_for_again(self, server, interrupt, cache):
        interrupt()
        partials(cache)[0].write_bytes(CONTENT)
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == []

    def test_the_bar_goes_on_from_where_it_stopped(self, server, interrupt, monkeypatch, capfd):
        monkeypatch.setenv("TQDM_POSITION", "-1")  # the library shows it where no terminal is, too
        enable_progress_bars()  # a command line that ran in this process before may have switched them off
        interrupt()
        capfd.readouterr()
        hub.download("256")
        bar = capfd.readouterr().err
        assert " 33%" in bar.split("\r")[1]
        assert "307k/307k" in bar
        assert "model.ckpt" in bar

    def test_a_pipeline_s_weights_go_on_as_well(self, server, interrupt, cache):
        server.files["user/pipe"] = {"model_index.json": json.dumps(INDEX).encode(), "unet/a.safetensors": CONTENT}
        for name in ("unet/config.json", "vae/config.json"):
            server.files["user/pipe"][name] = b"{}"
        interrupt(lambda: hub.resolve("user/pipe", download=True))
        found = hub.resolve("user/pipe", download=True)
        assert (found.path / "unet" / "a.safetensors").read_bytes() == CONTENT
        asked = [given for _, path, given in server.asked if path.endswith(".safetensors") and given]
        assert asked == ["bytes=100000-"]

    def test_all_parts_are_of_one_commit_whatever_the_branch_does_meanwhile(self, server, interrupt):
        interrupt()
        hub.download("256")
        asked = [path for command, path, _ in server.asked if command == "GET"]
        assert asked == [f"/{REPO}/resolve/{COMMIT}/model.ckpt"]


class TestTwoAtOnce:
    def test_the_second_waits_for_the_first_and_says_so(self, server, cache, caplog):
        process = start_elsewhere(server, cache, pause_after=120_000)
        waiting = threading.Thread(target=hub.download, args=("256",))
        waiting.start()
        self.wait_for(caplog, f"another program is downloading model.ckpt of {REPO}; waiting for it.")
        server.go_on.set()
        waiting.join(20)
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert hub.find_local("256").path.read_bytes() == CONTENT
        assert server.ranges == [None]

    def test_the_second_goes_on_when_the_first_is_killed(self, server, cache, caplog):
        process = start_elsewhere(server, cache, pause_after=120_000)
        waiting = threading.Thread(target=hub.download, args=("256",))
        waiting.start()
        self.wait_for(caplog, "waiting for it")
        process.kill()
        process.communicate()
        waiting.join(20)
        assert hub.find_local("256").path.read_bytes() == CONTENT
        assert server.ranges == [None, "bytes=120000-"]

    def wait_for(self, caplog, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class TestWhatCanNotBeGoneOnWith:
    def test_a_server_without_ranges_begins_anew(self, server, interrupt):
        interrupt()
        server.ignores_ranges = True
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == ["bytes=100000-"]

    def test_a_file_that_changed_begins_anew_and_says_so(self, server, interrupt, cache, caplog):
        interrupt()
        server.files[REPO]["model.ckpt"] = CONTENT[::-1]
        assert hub.download("256").read_bytes() == CONTENT[::-1]
        assert server.ranges == [None]
        assert partials(cache) == []
        assert [record.getMessage() for record in caplog.records if record.name.startswith("dynamicrafter")] == [
            f"model.ckpt of {REPO} has changed on the hub; the 100kB of an earlier attempt are removed, and it begins "
            f"anew."
        ]

    def test_another_file_of_the_repository_is_left_alone(self, server, interrupt, cache):
        interrupt()
        server.files[REPO]["other.ckpt"] = b"other"
        hub.resolve(f"{REPO}/other.ckpt", download=True)
        assert hub.download("256").read_bytes() == CONTENT
        assert "bytes=100000-" in server.ranges

    def test_more_than_the_file_has_begins_anew_and_says_so(self, server, interrupt, cache, caplog):
        interrupt()
        partials(cache)[0].write_bytes(CONTENT + b"more")
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == [None]
        assert "is shorter than what has arrived; the 307kB of an earlier attempt are removed" in caplog.text

    def test_a_part_that_was_damaged_is_removed_and_never_becomes_a_model(self, server, interrupt, cache):
        interrupt()
        partials(cache)[0].write_bytes(b"x" * 100_000)
        message = refusal(ModelNotFoundError, hub.download, "256")
        assert message.startswith(f"model.ckpt of {REPO} arrived damaged (its sha256 begins ")
        assert f"not {hashlib.sha256(CONTENT).hexdigest()[:8]}) and is removed; run it again" in message
        assert hub.find_local("256") is None
        assert partials(cache) == []
        assert hub.download("256").read_bytes() == CONTENT

    def test_a_file_whose_etag_is_no_sha256_is_taken_by_its_size(self, server, interrupt):
        server.etags["model.ckpt"] = "0123456789abcdef0123456789abcdef01234567"
        interrupt()
        assert hub.download("256").read_bytes() == CONTENT
        assert server.ranges == ["bytes=100000-"]


class TestRoom:
    def test_too_little_room_for_what_is_missing_is_told_before_anything_is_asked_for(
        self, server, monkeypatch, interrupt, cache
    ):
        interrupt()
        usage = shutil.disk_usage(cache.root)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=207_199))
        message = refusal(OutputError, hub.download, "256")
        assert message.startswith(f"model.ckpt of {REPO} needs 207kB more on the disk of {cache.root}")
        assert "which has 207kB; make room, or set HF_HOME to a folder on another disk." in message
        assert server.ranges == []
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=207_200))
        assert hub.download("256").read_bytes() == CONTENT


class TestCache:
    def test_the_library_knows_what_is_left_in_its_cache(self, server, interrupt, cache):
        interrupt()
        assert not scan_cache_dir(cache.root).repos or not scan_cache_dir(cache.root).warnings
        hub.download("256")
        (repo,) = scan_cache_dir(cache.root).repos
        assert (repo.repo_id, repo.size_on_disk, repo.nb_files) == (REPO, len(CONTENT), 1)
        path = cache.root / "models--Doubiiu--DynamiCrafter" / "snapshots" / COMMIT / "model.ckpt"
        assert path.is_symlink()
        assert path.resolve().name == hashlib.sha256(CONTENT).hexdigest()

    def test_where_links_are_impossible_only_one_copy_is_kept(self, server, monkeypatch, interrupt, cache):
        monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda cache_dir=None: False)
        interrupt()
        path = hub.download("256")
        assert server.ranges == ["bytes=100000-"]
        assert path.read_bytes() == CONTENT
        assert not path.is_symlink()
        assert list((path.parents[2] / "blobs").iterdir()) == []
        assert hub.find_local("256").path == path


def test_what_an_unfinished_download_has_brought_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert hub.arrived("512") == 0
    blobs = tmp_path / "models--Doubiiu--DynamiCrafter_512" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.0123.incomplete").write_bytes(bytes(300))
    (blobs / "finished").write_bytes(bytes(50))
    assert hub.arrived("512") == 300
    assert hub.arrived("1024") == 0
