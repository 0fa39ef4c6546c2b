import errno

import pytest

from dynamicrafter.errors import ModelNotFoundError
from dynamicrafter.presets import every_preset


def test_models_lists_what_the_named_folder_holds(cli, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    (folder / "512").mkdir(parents=True)
    official, mine = folder / "512" / "model.ckpt", folder / "mine.safetensors"
    official.write_bytes(b"x")
    mine.write_bytes(b"x")
    monkeypatch.setenv("DYNAMICRAFTER_MODELS", str(folder))
    done = cli("models")
    assert (done.code, done.err) == (0, "")
    listed = [line.split() for line in done.out.splitlines() if not line.startswith("bundled ")]
    assert listed == [["512", str(official)], ["?", str(mine)]]


def test_without_published_models_the_ways_to_get_one_are_named(cli):
    done = cli("models")
    assert done.code == 0
    assert all(line.startswith("bundled ") for line in done.out.splitlines())
    assert "`dynamicrafter download 512`" in done.err


@pytest.mark.parametrize(("flags", "source"), [([], "official"), (["--pruned"], "pruned")])
def test_download_fetches_a_preset_and_prints_its_path(cli, tmp_path, monkeypatch, flags, source):
    asked = []

    def download(name, *, source):
        asked.append((name, source))
        return tmp_path / "model.ckpt"

    monkeypatch.setattr("dynamicrafter.hub.download", download)
    done = cli("download", "interp", *flags)
    assert (done.code, done.out) == (0, f"{tmp_path / 'model.ckpt'}\n")
    assert asked == [("interp", source)]


def test_an_unknown_preset_ends_in_one_line(cli):
    names = ", ".join(preset.name for preset in every_preset())
    assert cli("download", "2048").errors == [f"error: preset must be one of {names}, got '2048'."]


def test_a_download_without_network_ends_in_one_line(cli):
    done = cli("download", "512")
    assert done.code == 2
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ModelNotFoundError("no network."), 2, "error: no network."),
        (KeyboardInterrupt(), 130, "stopped; run it again to go on where it stopped"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: the disk is full; "),
    ],
)
def test_a_download_that_stops_says_why(cli, monkeypatch, error, code, said):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("dynamicrafter.hub.download", fail)
    done = cli("download", "512")
    assert done.code == code
    assert done.err.startswith(said)
    assert done.err.count("\n") == 1
