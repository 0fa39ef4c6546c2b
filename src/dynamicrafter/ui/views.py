"""What the page says, as HTML. Whatever comes from a visitor is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from html import escape

from dynamicrafter.faces.times import time_in_words
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.schema import schema_of
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.ui.results import PLAYED, Result
from dynamicrafter.ui.tasks import ClipTask, TaskQueue

DOWNLOADS = {"png": "PNG frames"}  # other formats are called by their names
_BIG = 360  # pixels; a small clip is shown as large as this


def problem(text: str) -> str:
    """Something went wrong, in words; read out at once."""
    if not text:
        return ""
    sentence = text[0].upper() + text[1:]
    return f'<div class="say problem" role="alert"><strong>That didn’t work.</strong> {escape(sentence)}</div>'


def note(text: str) -> str:
    """Something worth knowing."""
    return f'<div class="say" role="status">{escape(text)}</div>' if text else ""


def status(task: ClipTask, queue: TaskQueue) -> str:
    """How a task fares."""
    match task.state:
        case "waiting":
            return _waiting(queue.place(task), queue)
        case "running":
            return _running(task, queue.clock())
        case "failed":
            return problem(task.problem)
        case "cancelled":
            return note("Cancelled. Nothing was kept.")
    seconds = time_in_words(task.ended - task.began)
    link = f'<a href="#clip-{_anchor(task.result.token)}">Show it</a>' if isinstance(task.result, Result) else ""
    return f'<div class="say done" role="status"><strong>Done</strong> in {seconds}. {link}</div>' + _notes(task.notes)


def _waiting(place: int, queue: TaskQueue) -> str:
    seconds = queue.seconds_until(place)
    about = f", for about {time_in_words(seconds)}" if seconds else ""
    ahead = "Next in line" if place <= 1 else f"Number {place} in line"
    return _progress(f"{ahead}: waiting{about}", None, "")


def _running(task: ClipTask, now: float) -> str:
    if not task.step:
        return _progress(f"{task.phase or 'Starting'}…", None, "")
    if task.phase:
        return _progress(f"{task.phase}…", task.step / task.steps, task.preview)
    left = (now - task.stepped) / task.step * (task.steps - task.step)
    text = f"Step {task.step} of {task.steps}, about {time_in_words(left)} left"
    return _progress(text, task.step / task.steps, task.preview)


def _progress(text: str, share: float | None, preview: str) -> str:
    now = "" if share is None else f'aria-valuenow="{round(100 * share)}"'
    width = "" if share is None else f' style="width:{100 * share:.0f}%"'
    bar = (
        f'<div class="bar{" unsure" if share is None else ""}" role="progressbar" aria-label="Progress" '
        f'aria-valuemin="0" aria-valuemax="100" {now}><div{width}></div></div>'
    )
    strip = f'<img class="preview" alt="A preview of the clip as it forms" src="{preview}">' if preview else ""
    return f'<div class="say busy"><div class="line">{escape(text)}</div>{bar}{strip}</div>'


def gallery(results: Iterable[Result]) -> str:
    """All results of a visit, the newest first and large."""
    cards = [_card(result, newest=place == 0) for place, result in enumerate(results)]
    if not cards:
        return '<div class="empty">Your clips will appear here.</div>'
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(result: Result, *, newest: bool) -> str:
    size = result.metadata["options"]["size"]
    height, width = size if isinstance(size, list | tuple) else (1, 1)
    title = result.request.prompt or result.request.tab.capitalize()
    play = "autoplay muted" if newest else "muted"
    links = "".join(f'<a href="{_address(result, name)}" download>{DOWNLOADS.get(name, name)}</a>' for name in FORMATS)
    return f"""
<article class="card{" newest" if newest else ""}" id="clip-{_anchor(result.token)}" data-token="{result.token}">
  <video src="{_address(result, PLAYED)}" {play} loop playsinline controls preload="metadata"
    style="aspect-ratio:{width}/{height};max-width:{max(width, _BIG)}px" aria-label="{escape(title)}"></video>
  <div class="body">
    <h3>{escape(title)}</h3>
    <p class="facts">{escape(_facts(result))}</p>
    {_notes(result.notes)}
    <div class="buttons">
      <button type="button" data-act="again">Use again</button>
      <button type="button" data-act="remove" aria-label="Remove this clip">Remove</button>
    </div>
    <div class="downloads" role="group" aria-label="Download"><span>Download</span>{links}</div>
    <details><summary>All options</summary><table>{_rows(result)}</table></details>
  </div>
</article>"""


def _facts(result: Result) -> str:
    options = result.metadata["options"]
    model = result.metadata["model"]["preset"]
    take = f", take {result.request.take}" if result.request.take > 1 else ""
    return f"{result.request.tab} · {model} · {options['frames']} frames · seed {options['seed']}{take} · " + (
        f"made in {time_in_words(result.seconds)}"
    )


def _rows(result: Result) -> str:
    options = result.metadata["options"]
    pairs = [("model", result.metadata["model"]["name"])]
    pairs += [("picture", picture.name) for picture in result.request.uploads]
    pairs += [(each.label.lower(), each.write(options.get(each.name))) for each in schema_of(AnimateOptions).values()]
    return "".join(f"<tr><th>{escape(name)}</th><td>{escape(value or '–')}</td></tr>" for name, value in pairs)


def _notes(notes: Iterable[str]) -> str:
    return "".join(f'<p class="note">{escape(text[0].upper() + text[1:])}</p>' for text in notes if text)


def _address(result: Result, name: str) -> str:
    return f"results/{result.token}/{name}"


def _anchor(token: str) -> str:
    """A name for a place on the page that does not give the token away in the address bar."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]
