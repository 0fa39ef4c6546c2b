"""Files of weights that the system is asked for before they are read."""

import os
from pathlib import Path

import pytest

from dynamicrafter.hub.read_ahead import read_ahead

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system can't be asked")


@pytest.fixture
def asked(monkeypatch):
    """(file, bytes) that the system was asked for, by file in the order of asking."""
    wanted: dict[str, int] = {}

    def fadvise(descriptor, start, size, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        assert start == wanted.get(path, 0)
        wanted[path] = start + size

    monkeypatch.setattr(os, "posix_fadvise", fadvise)
    return wanted


def test_a_whole_file_is_asked_for(tmp_path, asked):
    file = tmp_path / "model.ckpt"
    file.write_bytes(bytes(300_000))
    read_ahead(str(file)).join()
    assert list(asked) == [str(file)]
    assert 300_000 <= asked[str(file)] < 600_000


def test_of_a_folder_the_weights_that_are_read_in_the_order_in_which_they_are(tmp_path, asked):
    (tmp_path / "model_index.json").write_text("{}")
    for name in (
        "unet/b.safetensors",
        "unet/a.safetensors",
        "unet/a.bin",
        "vae/a.bin",
        "vae/config.json",
        "other/a.bin",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")
    read_ahead(str(tmp_path)).join()
    assert list(asked) == [str(tmp_path / name) for name in ("vae/a.bin", "unet/a.safetensors", "unet/b.safetensors")]


@pytest.mark.parametrize("name", ["no/such/model", "./nothing", "", "512"])
def test_what_is_not_here_is_somebody_elses_error(asked, name, capfd):
    read_ahead(name).join()
    assert not asked
    assert capfd.readouterr() == ("", "")
