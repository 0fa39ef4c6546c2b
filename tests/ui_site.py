"""One page for all tests of it: the bundled model behind a real server, and a browser before it."""

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from dynamicrafter.faces.catalogue import Catalogue
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.ui.engine import Engine
from dynamicrafter.ui.settings import ServerSettings, Users

ROOT = Path(__file__).parents[1]
ROCKET = ROOT / "examples" / "rocket.jpg"
START = ModelSpec(name="bundled", device="cpu", dtype="float32")
FOLDER = "GRADIO_TEMP_DIR"
QUICK = {"steps": 2, "frames": 3, "size": [64, 64], "seed": 7}


class SteeredEngine(Engine):
    """An engine that tests can hold before a step, and let fail."""

    def __init__(self):
        super().__init__("cpu", "float32")
        self.go = threading.Event()
        self.go.set()
        self.fails = []

    def make(self, request, progress):
        if self.fails:
            raise self.fails.pop()
        return super().make(request, _Held(progress, self.go))


class _Held:
    def __init__(self, progress, go):
        self.on_phase, self.on_preview = progress.on_phase, progress.on_preview
        self._progress, self._go = progress, go

    def on_step(self, done, steps):
        assert self._go.wait(60)
        self._progress.on_step(done, steps)


@dataclass
class Site:
    """A running page: where it is, and what stands behind it."""

    url: str
    service: object
    engine: SteeredEngine

    @property
    def session_files(self):
        return sorted(path for path in self.service.folder.rglob("*") if path.is_file())


def start_site(settings, *, users=None, folder=None):
    """Serve a page in this process.

    Returns:
        The site, and what ends it.
    """
    import uvicorn

    from dynamicrafter.ui.server import address_of, build_app, open_socket
    from dynamicrafter.ui.service import Service

    before = os.environ.get(FOLDER)  # which Gradio reads at every answer; a second page would take over the first's
    engine = SteeredEngine()
    service = Service(settings, Catalogue(START), [engine], folder=folder)
    opened = open_socket(settings)
    app = build_app(service, Users(users or {}))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)

    def end():
        server.should_exit = True
        engine.go.set()
        thread.join(timeout=20)
        service.close()
        if before is not None:
            os.environ[FOLDER] = before

    return Site(address_of(opened, settings), service, engine), end


@pytest.fixture(scope="session")
def _served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    site, end = start_site(ServerSettings(port=0, max_upload=2, max_steps=30), folder=folder)
    yield site
    end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def site(_served):
    """The page, with nothing in its queue."""
    yield _served
    _served.engine.go.set()
    _served.engine.fails.clear()
    with _served.service.queue._changed:
        left = [*_served.service.queue._running, *_served.service.queue._waiting]
    for task in left:
        _served.service.queue.cancel(task)
        task.finished.wait(30)


@pytest.fixture(scope="session")
def _browser():
    from playwright.sync_api import sync_playwright

    path = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if path is None:
        said = "the page's tests need Chromium: apt-get install chromium, or another package that brings it"
        # Where everything is to be tested, a test that can't run has failed.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            said, **({"pytrace": False} if os.environ.get("CI") else {})
        )
    os.environ.setdefault("PLAYWRIGHT_SKIP_VALIDATE_HOST_REQUIREMENTS", "1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(_browser, site):
    """Open the page as a new visitor; called again, as another one."""
    contexts = []

    def open_page(**settings):
        context = _browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.goto(site.url)
        page.locator("#gallery").get_by_text("Your clips will appear here").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def visitor(site):
    """A visitor's browser, as far as cookies go; called again, another one's."""
    clients = []

    def come():
        client = httpx.Client(base_url=site.url, timeout=60)
        assert client.get("/").status_code == 200
        clients.append(client)
        return client

    yield come
    for client in clients:
        client.close()
