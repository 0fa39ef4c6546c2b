"""What is let through to the page, and to whom: a layer around the whole application.

Gradio has more doors than this page needs, among them a proxy for any address. Only those that it does need are open.
A visit is a random cookie. What a visit uploads, and the streams that tell it how its jobs fare, are for it alone. A
message goes to Gradio as it was understood here: with the caller's own files in it, and no other names of files.
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

from dynamicrafter.ui import log
from dynamicrafter.ui.uploads import Uploads

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE = "dynamicrafter_visit"
_VISIT = "visit "
_LARGEST_MESSAGE = 1_000_000  # bytes of anything but an upload
_MOST_REMEMBERED = 50_000  # streams whose owners are known

_OPEN = re.compile(
    r"/|/healthz|/results/[\w-]+/\w+|/config/?|/theme\.css|/(assets|static|svelte)/.+|/favicon\.ico|/manifest\.json|"
    r"/robots\.txt|/login/?|/logout|/gradio_api/(info/?|app_id/?|user/?|token/?|login_check/?|theme\.css|startup-events|"
    r"upload|upload_progress|run/predict|queue/(join|data)|call/\w+(/\w+)?|cancel|reset/?|heartbeat/[\w-]+|"
    r"file=.+)"
)
_UPLOAD, _STREAM, _FILE = "/gradio_api/upload", "/gradio_api/queue/data", "/gradio_api/file="
_FORMS = frozenset({_UPLOAD, "/login", "/login/"})  # what is sent there is a form; anywhere else it is JSON
_BEGINS = frozenset({"/", "/config", "/config/", _UPLOAD})  # where a caller without a visit is given one
_NOTHING = 404, "there is nothing here"

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

    def __init__(self, app: Any, uploads: Uploads, *, hosts: frozenset[str] = frozenset(), largest_upload: int) -> None:
        self._app, self._uploads, self._hosts, self._largest_upload = app, uploads, hosts, largest_upload
        self._streams: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        owner = owner_of_cookies(headers.get("cookie", ""))
        new = secrets.token_urlsafe(32) if path in _BEGINS and not owner else None
        owner = owner or (f"{_VISIT}{new}" if new else "")
        log.caller.set(log.words_for(owner, scope.get("client")))
        refusal = self._refusal(scope, path, headers, owner)
        if refusal is None and scope["method"] == "POST" and path not in _FORMS:
            try:
                scope, receive = await self._as_understood(scope, receive, owner)
            except _Unfit as error:
                refusal = error.status, error.reason
        if refusal is not None:
            log.refused(f"{scope['method']} {path}", f"{refusal[0]}, {refusal[1]}")
            await _answer(send, *refusal)
            return
        if new:
            log.said("a visit begins")
        noted = (lambda body: self._uploads.give(_names(body), owner)) if path == _UPLOAD else None
        sent = _Answered(
            send, new_visit=new, secure=scope.get("scheme") == "https", forget=path == "/logout", noted=noted
        )
        await self._app(scope, _Limited(receive, self._limit(path)), sent)

    def _limit(self, path: str) -> int:
        return self._largest_upload if path == _UPLOAD else _LARGEST_MESSAGE

    async def _as_understood(self, scope: Scope, receive: Receive, owner: str) -> tuple[Scope, Receive]:
        """A request whose body names no files but the caller's own.

        Raises:
            _Unfit: the body is too large, or no JSON.
        """
        body = await _read(receive, _LARGEST_MESSAGE)
        try:
            message, refused = self._uploads.with_files_of(owner, json.loads(body))
            body = json.dumps(message).encode()
        except (ValueError, RecursionError):
            raise _Unfit(400, "that is no JSON") from None
        for name in refused:
            log.refused("a file", f"not the visit's own: {name!r}")
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
        return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, _Once(body, receive)

    def _refusal(self, scope: Scope, path: str, headers: dict[str, str], owner: str) -> tuple[int, str] | None:
        """Status and reason where a request is not let through."""
        host = headers.get("host", "")
        if self._hosts and _name(host) not in self._hosts:
            return 403, "this page is not served under that name; see --domain"
        if not _OPEN.fullmatch(path):
            return _NOTHING
        origin = headers.get("origin", "")
        if scope["method"] not in ("GET", "HEAD") and origin and urlsplit(origin).netloc != host:
            return 403, "this page takes requests from itself only; a proxy has to pass the Host header on"
        limit = self._limit(path)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            return 413, f"that is too large; at most {limit // 10**6} MB are taken"
        if path == _STREAM:
            return self._refuse_stream(scope, owner)
        if path.startswith(_FILE) and self._uploads.find(path.removeprefix(_FILE), owner) is None:
            return _NOTHING
        return None

    def _refuse_stream(self, scope: Scope, owner: str) -> tuple[int, str] | None:
        """A stream is the visit's that opened it first."""
        session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        first = self._streams.setdefault(session, owner)
        while len(self._streams) > _MOST_REMEMBERED:
            self._streams.popitem(last=False)
        return None if secrets.compare_digest(first, owner) else _NOTHING


class _Unfit(Exception):  # noqa: N818 a request, and no error of ours
    """A request's body is not let through; status and reason are those of a refusal."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def owner_of_cookies(cookies: str) -> str:
    """Whose is what a Cookie header's visit makes and sends; "" where it names no visit of ours."""
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return f"{_VISIT}{morsel.value}" if morsel is not None and re.fullmatch(r"[\w-]{43}", morsel.value) else ""


def _names(body: bytes) -> list[str]:
    """Where Gradio says that it put what was uploaded."""
    try:
        paths = json.loads(body)
    except ValueError:
        return []
    return [str(path) for path in paths] if isinstance(paths, list) else []


async def _read(receive: Receive, limit: int) -> bytes:
    """A request's body.

    Raises:
        _Unfit: it is larger than `limit`, or its sender went away.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Unfit(400, "that is not whole")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _Unfit(413, f"that is too large; at most {limit // 10**6} MB are taken")
        if not message.get("more_body"):
            return body


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


class _Once:
    """Gives a body in one piece, and then what else happens."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Answered:
    """Adds our headers to an answer.

    Args:
        noted: given the whole body before its end is sent, so that the receiver can refer to it at once.
    """

    def __init__(
        self,
        send: Send,
        *,
        new_visit: str | None,
        secure: bool,
        forget: bool,
        noted: Callable[[bytes], None] | None,
    ) -> None:
        self._send, self._new_visit, self._secure, self._forget = send, new_visit, secure, forget
        self._noted, self._body = noted, b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Gradio and Starlette set none of these, but for what a file is sent as.
            message["headers"] = [*message["headers"], *self._more()]
        elif message["type"] == "http.response.body" and self._noted is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                self._noted(self._body)
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
