"""What is let through to the page, and to whom: a layer around the whole application.

Gradio has more doors than this page needs, among them a proxy for any address. Only those that it does need are open.
A visit is a random cookie. What a visit uploads, and the streams that tell it how its jobs fare, are for it alone;
files of programs without a cookie are protected by their unguessable names.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE = "dynamicrafter_visit"
_LARGEST_MESSAGE = 1_000_000  # bytes of anything but an upload
_MOST_REMEMBERED = 50_000  # streams and files whose owners are known

_OPEN = re.compile(
    r"/|/healthz|/results/[\w-]+/\w+|/config/?|/theme\.css|/(assets|static|svelte)/.+|/favicon\.ico|/manifest\.json|"
    r"/robots\.txt|/login/?|/logout|/gradio_api/(info/?|app_id/?|user/?|token/?|login_check/?|theme\.css|startup-events|"
    r"upload|upload_progress|run/predict|queue/(join|data)|call/\w+(/\w+)?|cancel|reset/?|heartbeat/[\w-]+|"
    r"file=.+)"
)
_UPLOAD, _STREAM, _FILE = "/gradio_api/upload", "/gradio_api/queue/data", "/gradio_api/file="

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: "
        "blob:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware.

    Args:
        app: what it stands before.
        hosts: names under which the page may be called; empty for any. A page on this machine alone answers to local
            names only, so that no foreign page can reach it through a name that leads here.
        largest_upload: bytes.
    """

    def __init__(self, app: Any, *, hosts: frozenset[str] = frozenset(), largest_upload: int) -> None:
        self._app, self._hosts, self._largest_upload = app, hosts, largest_upload
        self._streams: OrderedDict[str, str] = OrderedDict()
        self._files: OrderedDict[str, set[str]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        visit = visit_of(headers.get("cookie", ""))
        refusal = self._refusal(scope, path, headers, visit)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        limit = self._largest_upload if path == _UPLOAD else _LARGEST_MESSAGE
        new = secrets.token_urlsafe(32) if path == "/" and not visit else None
        received = _Limited(receive, limit)
        sent = _Watched(send, new_visit=new, secure=scope.get("scheme") == "https", forget=path == "/logout")
        sent.keep_body = path == _UPLOAD
        await self._app(scope, received, sent)
        if path == _UPLOAD and visit:
            self._note_files(sent.body, visit)

    def _refusal(self, scope: Scope, path: str, headers: dict[str, str], visit: str) -> tuple[int, str] | None:
        """Status and reason where a request is not let through."""
        host = headers.get("host", "")
        if self._hosts and _name(host) not in self._hosts:
            return 403, "this page is not served under that name; see --domain"
        if not _OPEN.fullmatch(path):
            return 404, "there is nothing here"
        origin = headers.get("origin", "")
        if scope["method"] not in ("GET", "HEAD") and origin and urlsplit(origin).netloc != host:
            return 403, "this page takes requests from itself only; a proxy has to pass the Host header on"
        limit = self._largest_upload if path == _UPLOAD else _LARGEST_MESSAGE
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            return 413, f"that is too large; at most {limit // 10**6} MB are taken"
        if path == _STREAM:
            return self._refuse_stream(scope, visit)
        if path.startswith(_FILE):
            return self._refuse_file(path.removeprefix(_FILE), visit)
        return None

    def _refuse_stream(self, scope: Scope, visit: str) -> tuple[int, str] | None:
        """A stream is the visit's that opened it first."""
        session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        owner = self._streams.setdefault(session, visit)
        while len(self._streams) > _MOST_REMEMBERED:
            self._streams.popitem(last=False)
        return None if secrets.compare_digest(owner, visit) else (404, "there is nothing here")

    def _refuse_file(self, path: str, visit: str) -> tuple[int, str] | None:
        if re.match(r"\w+:", path):  # Gradio would fetch any address
            return 404, "there is nothing here"
        owners = self._files.get(path)
        return None if owners is None or visit in owners else (404, "there is nothing here")

    def _note_files(self, body: bytes, visit: str) -> None:
        try:
            paths = json.loads(body)
        except ValueError:
            return
        for path in paths if isinstance(paths, list) else []:
            self._files.setdefault(str(path), set()).add(visit)
        while len(self._files) > _MOST_REMEMBERED:
            self._files.popitem(last=False)


def visit_of(cookies: str) -> str:
    """The visit that a Cookie header names; empty where it names none of ours."""
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None and re.fullmatch(r"[\w-]{43}", morsel.value) else ""


def _name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


class _Limited:
    """Lets no more than so many bytes of a request through."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            return {"type": "http.disconnect"}
        return message


class _Watched:
    """Adds our headers to an answer, and keeps its body where asked to."""

    def __init__(self, send: Send, *, new_visit: str | None, secure: bool, forget: bool) -> None:
        self._send, self._new_visit, self._secure, self._forget = send, new_visit, secure, forget
        self.keep_body = False
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Gradio and Starlette set none of these, but for what a file is sent as.
            message["headers"] = [*message["headers"], *self._more()]
        elif message["type"] == "http.response.body" and self.keep_body and len(self.body) < _LARGEST_MESSAGE:
            self.body += message.get("body", b"")
        await self._send(message)

    def _more(self) -> list[tuple[bytes, bytes]]:
        more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        if self._new_visit or self._forget:
            age = "; Max-Age=0" if self._forget else ""
            secure = "; Secure" if self._secure else ""
            cookie = f"{COOKIE}={self._new_visit or ''}; Path=/; HttpOnly; SameSite=Lax{secure}{age}"
            more.append((b"set-cookie", cookie.encode()))
        return more


async def _answer(send: Send, status: int, text: str) -> None:
    body = f"{text}.\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
