"""What happens when something on the page is pressed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import gradio as gr

from dynamicrafter import hub
from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import AUTOMATIC
from dynamicrafter.faces.controls import controls, frequent_first, options_from
from dynamicrafter.ui import log, views
from dynamicrafter.ui.controls import look, value_of
from dynamicrafter.ui.guard import owner_of_cookies
from dynamicrafter.ui.layout import MOST_TAKES, ClipTab, Page, upload_from
from dynamicrafter.ui.requests import ClipRequest, StoryRow, Upload, mode_of
from dynamicrafter.ui.results import Result
from dynamicrafter.ui.service import Service
from dynamicrafter.ui.story import TRANSITIONS
from dynamicrafter.ui.tasks import ClipTask, TaskQueue

WATCH = 0.2  # seconds between two looks at a task

_SEED = [option.name for option in frequent_first()].index("seed")
_ROLL = "() => String(Math.floor(Math.random() * 2 ** 31))"
# Where the clip is below the form, it comes into sight by itself.
_SHOW = """() => {{
  const clip = document.querySelector('#gallery .newest');
  if (clip && innerWidth <= 960 && document.querySelector('#status-{tab} .done')) clip.scrollIntoView();
}}"""

Changes = dict[Any, Any]  # component → its new value or properties


def owner_of(request: gr.Request) -> str:
    """Whose a task is: the visit's, or the session's of a program that keeps no cookie."""
    return owner_of_cookies(request.headers.get("cookie", "")) or f"session {request.session_hash}"


async def watch(task: ClipTask, queue: TaskQueue) -> AsyncIterator[str]:
    """What the page says of a task, each time that it changes, until the task is over."""
    task.watchers += 1
    said = None
    try:
        while True:
            over = task.is_over
            now = views.status(task, queue)
            if now != said:
                said = now
                yield now
            if over:
                return
            await asyncio.sleep(WATCH)
    finally:
        task.watchers -= 1
        task.watched = queue.clock()


def connect(page: Page, service: Service) -> None:
    """Give every button its work."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    parts = [part for tab in page.clip_tabs for part in (*tab.inputs, tab.make, tab.cancel, tab.status)]
    everything = [page.gallery, page.model, page.tabs, page.download, page.model_note, *parts]
    ranges = [page.download, page.model_note, *(part for tab in page.clip_tabs for part in tab.options)]
    with page.blocks:
        for tab in page.clip_tabs:
            made = tab.make.click(
                _making(tab, page, service),
                [page.model, *tab.inputs],
                [tab.status, tab.make, tab.cancel, page.gallery],
                concurrency_limit=None,
                preprocess=False,
                **quiet,
            )
            made.then(None, None, None, js=_SHOW.format(tab=tab.mode), api_visibility="private")
            tab.dice.click(None, None, tab.options[_SEED], js=_ROLL, api_visibility="private")
            tab.cancel.click(_cancelling(tab, service), None, tab.cancel, queue=False, **quiet)
        page.model.input(_choosing(page, service), page.model, ranges, **quiet)
        page.download.click(
            _downloading(page, service), page.model, [page.download, page.model_note, page.model],
            concurrency_limit=None, **quiet,
        )  # fmt: skip
        page.gallery.click(_on_card(page, service), None, everything, **quiet)
        page.blocks.load(_resuming(page, service), None, everything, concurrency_limit=None, **quiet)


def _making(tab: ClipTab, page: Page, service: Service) -> Callable[..., AsyncIterator[Changes]]:
    async def make(request: gr.Request, model: str, *values: Any) -> AsyncIterator[Changes]:
        owner = owner_of(request)
        tasks: list[ClipTask] = []
        try:
            given = _given(tab, values)
            for sample in range(given.takes):
                tasks.append(await asyncio.to_thread(_submit, given, tab, model, sample, owner, service))
                log.asked(tasks[-1].id, tab.mode, owner, request.client)
        except InputError as error:
            yield {tab.status: views.problem(str(error))}
        for task in tasks:
            async for changes in _following(task, tab, page, service):
                yield changes

    return make


def _submit(given: _Given, tab: ClipTab, model: str, sample: int, owner: str, service: Service) -> ClipTask:
    return service.submit(
        tab.mode,
        given.pictures,
        prompt=given.prompt,
        rows=given.rows,
        fps=given.fps,
        sample=sample,
        options=options_from(given.options, service.settings.most),
        model=model,
        owner=owner,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What a tab's components hold, sorted."""

    pictures: list[Upload | None]
    prompt: str
    takes: int
    fps: str
    rows: list[StoryRow]
    options: tuple[Any, ...]


def _given(tab: ClipTab, values: tuple[Any, ...]) -> _Given:
    """Of the pictures, those that the tab needs, and of the others those that are there; of the shots, those with
    a picture or a prompt."""
    needed, places = len(tab.text.pictures), len(tab.pictures)
    uploads = [upload_from(value) for value in values[:places]]
    pictures = uploads[:needed] + [upload for upload in uploads[needed:] if upload is not None]
    asked, takes, fps, *rest = values[places:]
    rows = []
    for number in range(len(tab.shots)):
        image, prompt, seconds, transition = rest[4 * number : 4 * number + 4]
        upload = upload_from(image)
        if upload is None and not prompt:
            continue
        if upload is None and not pictures:
            raise InputError("choose a picture for the first shot first.")
        place = None if upload is None else len(pictures)
        pictures += [] if upload is None else [upload]
        kind = transition if transition in TRANSITIONS else "cut"
        rows.append(StoryRow(picture=place, prompt=prompt or "", seconds=seconds or "2", transition=kind))
    return _Given(
        pictures=pictures,
        prompt=asked or "",
        takes=min(max(1, int(takes)), MOST_TAKES) if isinstance(takes, int | float) else 1,
        fps=str(fps or "").strip(),
        rows=rows,
        options=tuple(rest[4 * len(tab.shots) :]),
    )


async def _following(task: ClipTask, tab: ClipTab, page: Page, service: Service) -> AsyncIterator[Changes]:
    yield {tab.make: gr.update(interactive=False), tab.cancel: gr.update(interactive=True)}
    async for text in watch(task, service.queue):
        yield {tab.status: text}
    yield {
        tab.make: gr.update(interactive=True),
        tab.cancel: gr.update(interactive=False),
        page.gallery: views.gallery(service.results.of(task.owner)),
    }


def _cancelling(tab: ClipTab, service: Service) -> Callable[..., Any]:
    def cancel(request: gr.Request) -> Any:
        for task in service.queue.unfinished(owner_of(request)):
            if task.request.tab == tab.mode:
                service.queue.cancel(task)
        return gr.update(interactive=False)

    return cancel


def _resuming(page: Page, service: Service) -> Callable[..., AsyncIterator[Changes]]:
    async def resume(request: gr.Request) -> AsyncIterator[Changes]:
        """Show what this visit has made, and fill in again and go on watching what it has begun."""
        owner = owner_of(request)
        choices = [(choice.label, choice.key) for choice in service.catalogue.choices()]
        yield {page.gallery: views.gallery(service.results.of(owner)), page.model: gr.update(choices=choices)}
        for task in service.queue.unfinished(owner):
            tab = page.tab(task.request.tab)
            yield _filled(task.request, [each.path for each in task.request.uploads], page, service)
            async for changes in _following(task, tab, page, service):
                yield changes

    return resume


def _choosing(page: Page, service: Service) -> Callable[[str], Changes]:
    def choose(key: str) -> Changes:
        """Show the ranges of another model, and whether it must be fetched first."""
        choice = service.catalogue.get(key)
        missing = choice is not None and not choice.here
        text = f"Download {key} ({hub.OFFICIAL_GB:g} GB)"
        changes: Changes = {page.download: gr.update(visible=missing, value=text), page.model_note: ""}
        for tab in page.clip_tabs:
            changes |= _ranges(tab, service, key)
        return changes

    return choose


def _ranges(tab: ClipTab, service: Service, key: str) -> Changes:
    """What a model changes about a tab's options; what was typed in stays."""
    preset = service.catalogue.preset_for(key, mode_of(tab.mode))
    changes = {}
    for control, component in zip(controls(preset, service.settings.most), tab.options, strict=True):
        settings = look(control)
        if settings.pop("component") != "Slider":
            settings.pop("value")
        changes[component] = gr.update(**settings)
    return changes


def _downloading(page: Page, service: Service) -> Callable[[str], AsyncIterator[Changes]]:
    async def download(key: str) -> AsyncIterator[Changes]:
        choice = service.catalogue.get(key)
        if choice is None or choice.here or not service.catalogue.downloads:
            yield {page.model_note: views.problem("there is nothing to download; choose a model that is not here yet.")}
            return
        yield {page.download: gr.update(interactive=False), page.model_note: views.note(f"Downloading {key}…")}
        task = asyncio.create_task(asyncio.to_thread(hub.download, key))
        try:
            while not task.done():
                await asyncio.wait([task], timeout=1.0)
                arrived = await asyncio.to_thread(hub.arrived, key)
                if not task.done() and arrived:
                    text = f"Downloading {key}: {arrived / 1e9:.1f} of {hub.OFFICIAL_GB:g} GB"
                    yield {page.model_note: views.note(text)}
            task.result()
        except InputError as error:
            yield {page.download: gr.update(interactive=True), page.model_note: views.problem(str(error))}
            return
        choices = [(each.label, each.key) for each in service.catalogue.choices()]
        yield {
            page.download: gr.update(visible=False, interactive=True),
            page.model: gr.update(choices=choices),
            page.model_note: views.note(f"{key} is here now."),
        }

    return download


def _on_card(page: Page, service: Service) -> Callable[..., Changes]:
    def act(event: gr.EventData, request: gr.Request) -> Changes:
        """A button of a clip in the gallery."""
        owner, said = owner_of(request), dict(event._data or {})
        token = str(said.get("token", ""))
        if said.get("act") == "remove":
            service.results.remove(token, owner)
            return {page.gallery: views.gallery(service.results.of(owner))}
        result = service.results.find(token, owner)
        if result is None:
            return {page.gallery: views.gallery(service.results.of(owner))}
        return _use_again(result, page, service)

    return act


def _use_again(result: Result, page: Page, service: Service) -> Changes:
    """Fill a tab with what a clip was made from."""
    copies = [service.uploads.add_copy(each.path, result.owner, name=each.path.name) for each in result.request.uploads]
    changes = _filled(result.request, copies, page, service)
    said = views.note("Filled in from your clip; change what you like, and press the button.")
    return changes | {page.tab(result.request.tab).status: said}


def _filled(request: ClipRequest, files: list[Path], page: Page, service: Service) -> Changes:
    """A tab as it was when something was asked for.

    Args:
        files: the request's pictures, as the visitor's own.
    """
    tab = page.tab(request.tab)
    key = request.key if service.catalogue.get(request.key) is not None else AUTOMATIC
    preset = service.catalogue.preset_for(key, mode_of(tab.mode))
    changes: Changes = {page.tabs: gr.update(selected=tab.mode), page.model: key, tab.prompt: request.prompt}
    changes |= {tab.takes: 1, tab.fps: "" if request.fps is None else str(request.fps)}
    for other in page.clip_tabs:
        changes |= _ranges(other, service, key)
    for component, control in zip(tab.options, controls(preset, service.settings.most), strict=True):
        settings = look(control)
        settings.pop("component")
        value = value_of(control, getattr(request.spec.options, control.name))
        changes[component] = gr.update(**{**settings, "value": value})
    for component, file in zip_longest(tab.pictures, files[: len(tab.pictures)]):
        changes[component] = None if file is None else str(file)
    for fields, row in zip_longest(tab.shots, request.rows):
        image = None if row is None or row.picture is None else str(files[row.picture])
        values = (row.prompt, row.seconds, row.transition) if row else ("", "2", "cut")
        changes |= dict(zip(fields.parts, (image, *values), strict=True))
    return changes
