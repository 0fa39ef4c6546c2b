"""What the page says, as HTML. Whatever comes from a visitor is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import fields
from html import escape

from dynamicrafter.animator.options import AnimateOptions
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.ui.jobs import Job, JobQueue
from dynamicrafter.ui.results import PLAYED, Result

DOWNLOADS = {"png": "PNG frames"}  # other formats are called by their names
_BIG = 360  # pixels; a small clip is shown as large as this


def in_words(seconds: float) -> str:
    """A span of time as one says it: 8 s, 3 min 7 s, 1 h 2 min."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def problem(text: str) -> str:
    """Something went wrong, in words; read out at once."""
    if not text:
        return ""
    sentence = text[0].upper() + text[1:]
    return f'<div class="say problem" role="alert"><strong>That didn’t work.</strong> {escape(sentence)}</div>'


def note(text: str) -> str:
    """Something worth knowing."""
    return f'<div class="say" role="status">{escape(text)}</div>' if text else ""


def status(job: Job, queue: JobQueue) -> str:
    """How a job fares."""
    match job.state:
        case "waiting":
            return _waiting(queue.place(job), queue)
        case "running":
            return _running(job, queue.clock())
        case "failed":
            return problem(job.problem)
        case "cancelled":
            return note("Cancelled. Nothing was kept.")
    seconds = in_words(job.ended - job.began)
    link = f'<a href="#clip-{_anchor(job.result.token)}">Show it</a>' if isinstance(job.result, Result) else ""
    return f'<div class="say done" role="status"><strong>Done</strong> in {seconds}. {link}</div>' + _notes(job.notes)


def _waiting(place: int, queue: JobQueue) -> str:
    seconds = queue.seconds_until(place)
    about = f", for about {in_words(seconds)}" if seconds else ""
    ahead = "Next in line" if place <= 1 else f"Number {place} in line"
    return _progress(f"{ahead}: waiting{about}", None, "")


def _running(job: Job, now: float) -> str:
    if not job.step:
        return _progress(f"{job.phase or 'Starting'}…", None, "")
    if job.phase:
        return _progress(f"{job.phase}…", job.step / job.steps, job.preview)
    left = (now - job.stepped) / job.step * (job.steps - job.step)
    text = f"Step {job.step} of {job.steps}, about {in_words(left)} left"
    return _progress(text, job.step / job.steps, job.preview)


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
    title = result.request.prompt or result.request.mode.capitalize()
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
    return f"{result.request.mode} · {model} · {options['frames']} frames · seed {options['seed']} · " + (
        f"made in {in_words(result.seconds)}"
    )


def _rows(result: Result) -> str:
    options = result.metadata["options"]
    pairs = [("model", result.metadata["model"]["name"])]
    pairs += [("picture", picture.name) for picture in result.request.pictures]
    pairs += [(field.name, options.get(field.name)) for field in fields(AnimateOptions)]
    return "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(_value(name, value))}</td></tr>"
        for name, value in pairs
    )


def _value(name: str, value: object) -> str:
    if value is None or value == "":
        return "–"
    if name == "size" and isinstance(value, list | tuple):
        return f"{value[1]}×{value[0]}"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _notes(notes: Iterable[str]) -> str:
    return "".join(f'<p class="note">{escape(text[0].upper() + text[1:])}</p>' for text in notes if text)


def _address(result: Result, name: str) -> str:
    return f"results/{result.token}/{name}"


def _anchor(token: str) -> str:
    """A name for a place on the page that does not give the token away in the address bar."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]
