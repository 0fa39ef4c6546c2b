"""A Hugging Face cache and a hub that answers on this machine, for tests without a network."""

import contextlib
import hashlib
import http.server
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

from dynamicrafter import hub
from dynamicrafter.presets import PRESETS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = {"_class_name": "X", "unet": ["a", "B"], "vae": ["c", "D"], "extra": [None, None], "note": "x"}


class Cache:
    """Writes the Hugging Face cache's own layout: blobs, snapshots of links to them, and references."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, repo: str, file: str, content: bytes = b"weights") -> Path:
        home = self.root / f"models--{repo.replace('/', '--')}"
        path = home / "snapshots" / COMMIT / file
        for folder in (home / "refs", home / "blobs", path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text(COMMIT)
        blob = home / "blobs" / file.replace("/", "-")
        blob.write_bytes(content)
        path.symlink_to(blob)
        return path

    def add_preset(self, name: str) -> Path:
        return self.add(PRESETS[name].repo, PRESETS[name].file)


class FakeHub(http.server.ThreadingHTTPServer):
    """As much of the hub as its library asks for: repositories, their files, and refusals."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHubHandler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.refused: dict[str, tuple[int, str]] = {}  # repository: status and the hub's code for it
        self.etags: dict[str, str] = {}  # by file, instead of the sha256 of its content
        self.ignores_ranges = False
        self.break_after: int | None = None  # bytes of the next transfer, after which the line goes dead
        self.resets = False  # a line that goes dead does so by a reset instead of an end
        self.pause_after: int | None = None  # bytes of the next transfer, after which it waits
        self.go_on = threading.Event()
        self.asked: list[tuple[str, str, str | None]] = []

    @property
    def ranges(self) -> list[str | None]:
        """What was asked for of files' contents, request by request; None is all."""
        return [given for command, path, given in self.asked if command == "GET" and not path.startswith("/api/")]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class FakeHubHandler(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        listing = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repo, rest = "/".join(parts[:2]), parts[2:]
        if repo in self.server.refused:
            self._refuse(*self.server.refused[repo])
        elif repo not in self.server.files:
            self._refuse(404, "RepoNotFound")
        elif listing:
            self._list(repo, rest)
        else:
            self._send_file(repo, "/".join(rest[2:]))

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _list(self, repo: str, rest: list[str]) -> None:
        files = self.server.files[repo]
        if rest[:1] == ["tree"]:
            value = [{"type": "file", "path": f, "size": len(c), "oid": f"oid-{f}"} for f, c in files.items()]
        else:
            value = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_file(self, repo: str, file: str) -> None:
        content = self.server.files[repo].get(file)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        etag = self.server.etags.get(file, hashlib.sha256(content).hexdigest())
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
        if first and not self.server.ignores_ranges:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(content[first:], headers, status=206)
        else:
            self._send(content, headers)

    def _send(self, content: bytes, headers: dict[str, str], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if "ETag" in headers:
            self._write_with_troubles(content)
        else:
            self.wfile.write(content)

    def _write_with_troubles(self, content: bytes) -> None:
        cut, self.server.break_after = self.server.break_after, None
        pause, self.server.pause_after = self.server.pause_after, None
        with contextlib.suppress(ConnectionError):  # nobody listens any more
            if pause is not None:
                self.wfile.write(content[:pause])
                self.server.go_on.wait(20)
                content = content[pause:]
            self.wfile.write(content[:cut])
        if cut is not None and self.server.resets:
            sleep(0.1)  # a reset throws away what the other side hasn't read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def use_server(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let the hub's library ask at this address and nowhere else."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def serving() -> Iterator[FakeHub]:
    with FakeHub() as fake:
        thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        fake.go_on.set()
        fake.shutdown()
        thread.join()


def refusal(kind: type[Exception], action, *args, **options) -> str:
    with pytest.raises(kind) as caught:
        action(*args, **options)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.isprintable(), "more than one line, or control characters"
    assert message.endswith(".")
    return message


def models_folder(tmp_path: Path, monkeypatch, *files: str) -> Path:
    folder = tmp_path / "models"
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(INDEX) if path.suffix == ".json" else "weights")
    monkeypatch.setenv(hub.MODELS_VARIABLE, str(folder))
    return folder
