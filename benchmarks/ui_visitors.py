"""Many visitors at once: are all served, in the order in which they came, and does the server's memory stay flat?

python benchmarks/ui_visitors.py [VISITORS] [CLIPS]; needs the extra "ui". Starts a server of its own with the bundled
model on the CPU, and visits it with Gradio's client, one thread a visitor; a visitor asks for its next clip when it has
the one before. Clips have two steps and three frames of 64×64 pixels, so that it is the server that is measured.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from gradio_client import Client, handle_file

PICTURE = Path(__file__).parents[1] / "examples" / "rocket.jpg"
OPTIONS = {"steps": 2, "frames": 3, "size": "64x64"}


def start_server() -> tuple[subprocess.Popen[str], str]:
    """A server on a free port, and its address."""
    command = [sys.executable, "-m", "dynamicrafter.cli", "ui", "--port", "0", "--device", "cpu", "--model", "bundled"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert server.stderr is not None
    line = next(line for line in server.stderr if "The page is at" in line)
    found = re.search(r"http\S+", line)
    assert found is not None
    return server, found[0]


def main(visitors: int, clips: int) -> None:
    server, address = start_server()
    process, lock = psutil.Process(server.pid), threading.Lock()
    asked: list[tuple[int, int]] = []
    served: list[tuple[int, int]] = []
    waits: list[float] = []
    memory: list[float] = []

    def visit(visitor: int) -> None:
        client = Client(address, verbose=False, httpx_kwargs={"timeout": 120})
        for turn in range(clips // visitors):
            began = time.monotonic()
            with lock:
                asked.append((visitor, turn))
            client.predict(image=handle_file(PICTURE), options={**OPTIONS, "seed": visitor}, api_name="/animate")
            with lock:
                served.append((visitor, turn))
                waits.append(time.monotonic() - began)
                memory.append(process.memory_info().rss / 2**20)

    began = time.monotonic()
    try:
        with ThreadPoolExecutor(visitors) as pool:
            list(pool.map(visit, range(visitors)))
        seconds = time.monotonic() - began
        turns = [turn for _, turn in served]
        print(f"{len(served)} of {len(asked)} clips for {visitors} visitors in {seconds:.0f} s")
        print(f"a visitor waited {sorted(waits)[len(waits) // 2]:.1f} s (median), {max(waits):.1f} s at most")
        ahead = max(later - min(turns[place:]) for place, later in enumerate(turns))
        print(f"nobody was served more than {ahead} clip(s) ahead of another visitor")
        for share in (0.1, 0.25, 0.5, 0.75, 1.0):
            place = max(1, round(share * len(memory)))
            print(f"resident memory after {place:4} clips: {memory[place - 1]:.0f} MiB")
    finally:
        server.terminate()
        server.wait(timeout=60)


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:3] if len(sys.argv) > 2 else ("10", "100"))))
