"""The command `ui`: what it refuses before it serves, and that it serves and ends."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from dynamicrafter.cli.parsing import parse
from dynamicrafter.cli.ui import UiCommand
from dynamicrafter.ui.settings import ServerSettings


def test_every_setting_is_a_flag_and_the_defaults_are_the_settings_own():
    command = parse(UiCommand, [], prog="dynamicrafter ui")
    assert command.server == ServerSettings() or vars_of(command.server) == vars_of(ServerSettings())
    command = parse(
        UiCommand,
        ["--port", "0", "--auth", "a:password", "--auth", "b:password", "--device", "cpu", "--max-steps", "9"],
        prog="dynamicrafter ui",
    )
    assert command.server.auth == ("a:password", "b:password")
    assert (command.server.port, command.server.max_steps, command.model.device) == (0, 9, "cpu")


def vars_of(settings):
    return {name: getattr(settings, name) for name in ServerSettings.__dataclass_fields__}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "99999"], "port must be between 0 and 65535, got 99999"),
        (["--auth", "nobody"], "--auth must be USER:PASSWORD"),
        (["--device", "tpu"], "device must be cpu, cuda, cuda:N or mps, got 'tpu'"),
        (["--devices", "cpu,cpu"], "devices must not hold one twice"),
        (["--dtype", "int8", "--device", "cpu"], "dtype must be one of"),
        (["--host", "192.0.2.1", "--open", "--device", "cpu"], "192.0.2.1:7860 can't be listened on"),
        (["--host", "0.0.0.0"], "host 0.0.0.0 lets other machines use the page"),
        (["--model", "no-such-model", "--device", "cpu"], "model no-such-model is neither a preset"),
        (["--preset", "512"], "lora, preset and encoders go with a model"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_served(cli, words, message):
    outcome = cli("ui", *words)
    assert outcome.code == 2
    assert message in outcome.err


def test_it_serves_until_it_is_stopped_and_leaves_no_files(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-m", "dynamicrafter.cli", "ui", "--port", "0", "--device", "cpu"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        line = next(line for line in server.stderr if "The page is at" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        with urllib.request.urlopen(f"{address}healthz", timeout=60) as answer:
            assert b'"status":"ok"' in answer.read()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) in (0, 130)
    finally:
        server.kill()
        server.wait()
    assert "Traceback" not in server.stderr.read()
    assert [path.name for path in tmp_path.iterdir() if "dynamicrafter" in path.name] == []
