"""The same for programs: endpoints of Gradio's HTTP API that make a clip and return it as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import gradio as gr

from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import AUTOMATIC
from dynamicrafter.faces.controls import options_from
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.modes import MODES, ModeEntry
from dynamicrafter.ui import log
from dynamicrafter.ui.actions import owner_of, watch
from dynamicrafter.ui.layout import Page, picture, upload_from
from dynamicrafter.ui.results import PLAYED, Result
from dynamicrafter.ui.service import Service

_REST = (
    "`options` are the fields of AnimateOptions, as in {'steps': 20, 'seed': 7}; `model` is a row of the page's list;"
    f" `format` is one of {', '.join(FORMATS)} (png: a zip archive). Returns the clip and how it was made."
)


def add_api(page: Page, service: Service) -> None:
    """Add an endpoint for each mode."""
    with page.blocks, gr.Column(visible=False):
        prompt, model = gr.Textbox("", label="prompt"), gr.Textbox(AUTOMATIC, label="model")
        options, form = gr.JSON({}, label="options"), gr.Textbox(PLAYED, label="format")
        clip, details = gr.File(label="clip"), gr.JSON(label="details")
        places = [picture(f"picture {number}") for number in range(1, 3)]
        for entry in MODES.values():
            if len(entry.picture_names) > len(places):
                continue
            gr.Button(visible=False).click(
                _endpoint(entry, service),
                [*places[: len(entry.picture_names)], prompt, options, model, form],
                [clip, details],
                api_name=entry.name,
                api_description=f"{entry.promise} {_REST}",
                concurrency_limit=None,
                preprocess=False,
            )


def _endpoint(mode: ModeEntry, service: Service) -> Callable[..., Any]:
    async def made(
        request: gr.Request, pictures: list[Any], prompt: str, options: Any, model: str, form: str
    ) -> tuple[str, dict[str, Any]]:
        try:
            if form not in FORMATS:
                raise InputError(f"format must be one of {', '.join(FORMATS)}, got {str(form)[:20]!r}.")
            if not isinstance(options or {}, dict):
                raise InputError(f"options must be an object such as {{'steps': 20}}, got {str(options)[:60]!r}.")
            task = await asyncio.to_thread(
                lambda: service.submit(
                    mode.name,
                    [upload_from(picture) for picture in pictures],
                    prompt=prompt or "",
                    options=options_from(options or {}, service.settings.most),
                    model=model or AUTOMATIC,
                    owner=owner_of(request),
                )
            )
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        log.asked(task.id, f"{mode.name} by a program", task.owner, request.client)
        try:
            async for _ in watch(task, service.queue):
                pass
        finally:
            service.queue.cancel(task)  # of no use to anybody once the caller is gone
        if not isinstance(task.result, Result):
            raise gr.Error(task.problem or "The clip was cancelled.", print_exception=False)
        return await asyncio.to_thread(_handed_over, task.result, form, service)

    # Parameters' names are those of the API.
    if len(mode.picture_names) == 2:

        async def two_pictures(
            request: gr.Request,
            first: Any,
            last: Any,
            prompt: str = "",
            options: Any = None,
            model: str = AUTOMATIC,
            format: str = PLAYED,  # noqa: A002 the word that users know
        ) -> Any:
            return await made(request, [first, last], prompt, options, model, format)

        return two_pictures

    if not mode.picture_names:

        async def no_picture(
            request: gr.Request,
            prompt: str = "",
            options: Any = None,
            model: str = AUTOMATIC,
            format: str = PLAYED,  # noqa: A002
        ) -> Any:
            return await made(request, [], prompt, options, model, format)

        return no_picture

    async def one_picture(
        request: gr.Request,
        image: Any,
        prompt: str = "",
        options: Any = None,
        model: str = AUTOMATIC,
        format: str = PLAYED,  # noqa: A002
    ) -> Any:
        return await made(request, [image], prompt, options, model, format)

    return one_picture


def _handed_over(result: Result, form: str, service: Service) -> tuple[str, dict[str, Any]]:
    """Move a clip to where Gradio serves it from, under a name that can't be guessed; the store forgets it."""
    file = result.file(form)
    target = service.uploads.add_copy(file, result.owner, name=f"{result.name}{file.suffix}")
    service.results.remove(result.token, result.owner)
    details = {**result.metadata, "seconds": round(result.seconds, 2), "notes": list(result.notes)}
    for kind in ("pictures", "lora"):  # Gradio takes whatever has a "path" for a file to be fetched
        details[kind] = [_with_name(each) for each in result.metadata[kind]]
    return str(target), details


def _with_name(entry: dict[str, Any]) -> dict[str, Any]:
    return {"name": entry["path"], **{name: value for name, value in entry.items() if name != "path"}}
