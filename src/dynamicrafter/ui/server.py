"""The page, its API and its files as one application, and the server that runs it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse

from dynamicrafter import __version__
from dynamicrafter.errors import InputError
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.ui import log
from dynamicrafter.ui.guard import Guard, owner_of_cookies
from dynamicrafter.ui.results import PLAYED
from dynamicrafter.ui.service import Service
from dynamicrafter.ui.settings import ServerSettings, Users
from dynamicrafter.ui.uploads import PUBLIC

_WRONG_PASSWORD_PAUSE = 1.0  # seconds, so that guessing takes long
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def build_app(service: Service, users: Users) -> Any:
    """The whole application, guarded.

    Args:
        service: everything behind the page.
        users: who may log in; none, and everybody who reaches the page may use it.
    """
    # Read when gradio is imported or draws: no reports to anybody, no files outside the service's folder, and no
    # statistics of its own, for which it would load pandas.
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(service.uploads.folder),
        GRADIO_ANALYTICS_CACHE_FREQUENCY=str(2**31),
        GRADIO_ANALYTICS_MAX_EVENTS="100",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    import gradio as gr

    from dynamicrafter.ui.actions import connect
    from dynamicrafter.ui.api import add_api
    from dynamicrafter.ui.layout import PICTURES, draw, style, theme

    page = draw(service.catalogue, service.settings.most)
    connect(page, service)
    add_api(page, service)
    service.uploads.give((path for path in service.uploads.folder.rglob("*") if path.is_file()), PUBLIC)
    app = FastAPI(title="dynamicrafter", docs_url=None, redoc_url=None, openapi_url=None)
    _add_routes(app, service)
    settings = service.settings
    gr.mount_gradio_app(
        app,
        page.blocks.queue(default_concurrency_limit=None),
        path="/",
        auth=_login(users) if users else None,
        root_path=settings.root_path or None,
        allowed_paths=[],
        favicon_path=str(PICTURES / "icon.png"),
        show_error=False,
        max_file_size=settings.max_upload * 10**6,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        footer_links=["api", "settings"],
        theme=theme(),
        css=style(),
    )
    hosts = _LOCAL_NAMES | set(settings.domain) if settings.is_local else frozenset()
    return Guard(app, service.uploads, hosts=frozenset(hosts), largest_upload=settings.max_upload * 10**6 + 10_000)


def _login(users: Users) -> Callable[[str, str], Any]:
    async def may_enter(user: str, password: str) -> bool:
        if users.knows(user, password):
            log.said(f"login as {log.harmless(user)}")
            return True
        log.refused(f"login as {user}", "wrong name or password")
        await asyncio.sleep(_WRONG_PASSWORD_PAUSE)
        return False

    return may_enter


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, Any]:
        waiting, running = service.queue.counts
        return {"status": "ok", "version": __version__, "waiting": waiting, "running": running}

    @app.get("/results/{token}/{format}")
    @app.head("/results/{token}/{format}")
    def result(token: str, format: str, request: Request) -> FileResponse:  # noqa: A002 the word that users know
        owner = owner_of_cookies(request.headers.get("cookie", ""))
        found = service.results.find(token, owner) if owner else None
        if found is None or format not in FORMATS:
            raise HTTPException(404, "There is no such clip.")
        try:
            path = found.file(format)
        except InputError as error:
            raise HTTPException(422, str(error)) from None
        # Played in the page as it is; a link with `download` saves it under this name.
        inline = format == PLAYED
        return FileResponse(
            path,
            filename=f"{found.name}{path.suffix}",
            content_disposition_type="inline" if inline else "attachment",
            headers={"cache-control": "private, max-age=3600"},
        )


def open_socket(settings: ServerSettings) -> socket.socket:
    """Take the address before the model is loaded.

    Raises:
        InputError: it is taken, not this machine's, or not to be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"host {settings.host} is no address of this machine; try 127.0.0.1.") from None
    opened = socket.socket(family)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        opened.listen(128)  # from now on, callers wait instead of being turned away
    except OSError as error:
        opened.close()
        raise InputError(
            f"{settings.host}:{settings.port} can't be listened on ({error.strerror}); try another --port."
        ) from None
    return opened


def address_of(opened: socket.socket, settings: ServerSettings) -> str:
    """What to type into a browser on this machine."""
    name = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{opened.getsockname()[1]}{settings.root_path}/"


def serve(app: Any, opened: socket.socket) -> None:
    """Answer requests until the process is told to stop."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[opened])
