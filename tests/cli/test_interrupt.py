"""Ctrl-C as a user presses it: a signal to the whole program, on a terminal."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

import pytest

PATIENCE = 120  # seconds; a machine that is shared takes its time


@contextmanager
def on_terminal(folder, *words):
    """The command with its stderr on a terminal of 100 columns; gives the process and a reader of what is shown."""
    # A test run that was started in the background ignores the signal, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "dynamicrafter.cli", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    signal.signal(signal.SIGINT, before)
    shown = bytearray()

    def read_until(pattern: str) -> str:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends and not re.search(pattern, shown.decode(errors="replace")):
            if select.select([ours], [], [], 1)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # how a terminal says that its other end is closed
                    break
                shown.extend(part)
        return shown.decode()

    try:
        yield process, read_until
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.close(ours)


@pytest.mark.parametrize("sign", ["Loading", "Denoising, step [1-9]"])
def test_ctrl_c_ends_in_one_line_and_leaves_no_file(photo, sign):
    words = ("animate", "photo.png", "--model", "seeded:tiny", "--steps", "1000", "-o", "clip.mp4")
    with on_terminal(photo.parent, *words) as (process, read_until):
        assert re.search(sign, read_until(sign))
        process.send_signal(signal.SIGINT)
        shown = read_until("$^")
        assert process.wait(PATIENCE) == 130
        assert process.stdout.read() == b""
    last = shown.replace("\r", "\n").strip().splitlines()[-1]
    assert last == "stopped; nothing was written"
    assert "Traceback" not in shown
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]
