"""The run for a card, in its smallest form on a processor: every section comes to its numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_every_section_of_the_gpu_check_runs_and_passes_in_its_smallest_form(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, SCRIPT, "--device", "cpu", "--tiny", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())
    assert {row["section"] for row in rows} == {"machine", "goldens", "measures", "unet", "runs"}
    assert all(row["passes"] for row in rows if "passes" in row)
    assert sum("passes" in row for row in rows) == 2 + 3
    timed = [row for row in rows if row["section"] == "unet"]
    assert len(timed) == 6
    assert all(row["seconds"] > 0 and row["share"] > 0 for row in timed)


def test_a_section_that_fails_is_told_and_the_exit_code_says_so(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, SCRIPT, "--device", "meta", "--tiny", "--only", "goldens", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 1
    assert "error" in json.loads(out.read_text())[-1]
