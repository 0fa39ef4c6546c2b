"""The HTTP API, by Gradio's own client."""

import re
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from dynamicrafter.cli.main import main
from dynamicrafter.media.video import read_clip
from dynamicrafter.modes import MODES
from ui_site import QUICK, ROCKET, ROOT

pytestmark = pytest.mark.xdist_group("page")


@pytest.fixture
def client(site, tmp_path):
    return Client(site.url, verbose=False, download_files=tmp_path / "downloads")


def test_the_same_seed_gives_the_same_frames_as_the_command_line(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--steps", "2", "--frames", "3", "--size", "64x64", "--seed", "7"]
    on = ["--model", "bundled", "--device", "cpu", "--dtype", "float32"]
    asked = {"prompt": "the camera pans left", "options": QUICK, "format": "npy"}
    for mode, pictures in (("animate", ["image"]), ("interpolate", ["first", "last"]), ("loop", ["image"])):
        assert main([mode, *[str(ROCKET)] * len(pictures), asked["prompt"], *words, *on, "-o", f"{mode}.npy"]) == 0
        path, details = client.predict(**dict.fromkeys(pictures, handle_file(ROCKET)), **asked, api_name=f"/{mode}")
        np.testing.assert_array_equal(np.load(path), np.load(f"{mode}.npy"))
        assert details["options"]["seed"] == 7
        assert [picture["name"] for picture in details["pictures"]] == [ROCKET.name] * len(pictures)


def test_the_server_keeps_nothing_of_a_finished_call_but_what_it_hands_out(client, site):
    before = len(site.service.results)
    client.predict(image=handle_file(ROCKET), options=QUICK, api_name="/animate")
    assert len(site.service.results) == before


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"options": {"steps": 0}}, "steps must be between 1 and 1000, got 0; try 1."),
        ({"options": {"colour": 1}}, "unknown options colour"),
        ({"options": {"size": [4096, 4096]}}, "size must be at most 589824 pixels in all on this server"),
        ({"model": "/etc/passwd"}, "model must be one of those in the list"),
        ({"format": "../x"}, "format must be one of"),
        ({"prompt": "a" * 2001}, "prompt must be at most 2000 characters"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_in_words(client, asked, message):
    with pytest.raises(AppError, match=re.escape(message)):
        client.predict(image=handle_file(ROCKET), **{"options": QUICK, **asked}, api_name="/animate")


def test_only_the_documented_endpoints_are_offered(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {f"/{mode}" for mode in MODES}


def test_the_documented_example_runs(site, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "ui.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(from gradio_client.*?)```", page, flags=re.DOTALL)
    assert "http://127.0.0.1:7860/" in example
    (tmp_path / "photo.jpg").write_bytes(ROCKET.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(example.replace("http://127.0.0.1:7860/", site.url), {})
    frames, _ = read_clip(Path("boat.gif"))
    assert len(frames) == 8
