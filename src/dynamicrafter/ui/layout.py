"""The page: four tabs to ask for clips on the left, what came of it on the right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from pydantic import ConfigDict, model_validator

from dynamicrafter.errors import InputError
from dynamicrafter.faces.catalogue import AUTOMATIC, Catalogue
from dynamicrafter.faces.controls import FREQUENT, Control, controls, groups
from dynamicrafter.presets import OUTPUT_FPS
from dynamicrafter.ui.controls import build
from dynamicrafter.ui.requests import STORY, Upload, mode_of
from dynamicrafter.ui.story import TRANSITIONS
from dynamicrafter.ui.tabs import MOST_SHOTS, TabText, all_tabs
from dynamicrafter.ui.uploads import NOT_YOURS

HERE = Path(__file__).parent
MOST_TAKES = 4  # at one press
PICTURES = HERE / "pictures"
TITLE = "DynamiCrafter"

_ON_CLICK = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-act]');
  if (button) trigger('click', {act: button.dataset.act, token: button.closest('[data-token]').dataset.token});
});
"""


_GONE = (
    '<div class="say problem" id="gone" role="alert" hidden><strong>The server doesn’t answer.</strong> What is shown '
    "below may be old. Clips that were being made go on if the server does; reload the page when it is back.</div>"
)
# Looks for the server while a clip is awaited, and gives the rows of examples names that a screen reader can read.
_WATCH = """
const gone = element.querySelector('#gone');
setInterval(async () => {
  for (const row of document.querySelectorAll('[id^=examples-] tr.tr-body:not([aria-label])')) {
    row.setAttribute('aria-label', `Example: ${row.innerText.trim()}`);
    row.querySelectorAll('img').forEach(image => { image.alt = ''; });
  }
  if (gone.hidden && !document.querySelector('.say.busy')) return;
  try { gone.hidden = (await fetch('healthz', {cache: 'no-store'})).ok; } catch { gone.hidden = false; }
}, 3000);
"""


def picture(label: str, **settings: Any) -> gr.Image:
    """A place for one picture.

    What uses it leaves out Gradio's preprocessing, which would decode the file whatever its size; see `upload_from`.
    No subclass of ours changes it: Gradio writes a file beside every module that defines one.
    """
    made = gr.Image(label=label, sources=["upload", "clipboard"], type="filepath", buttons=["fullscreen"], **settings)
    made.data_model = _SentPicture
    return made


class _SentPicture(ImageData):
    """A picture, or an empty place for what can't be one, so that `upload_from` says the same of it as of the rest."""

    model_config = ConfigDict(title="ImageData")

    @model_validator(mode="before")
    @classmethod
    def _or_none(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"path": ""}


def upload_from(value: dict[str, Any] | None) -> Upload | None:
    """A picture as `Guard` lets it through: the caller's own file, or an empty place.

    Raises:
        InputError: it is no file of the caller's.
    """
    if value is None:
        return None
    path = value.get("path") if isinstance(value, dict) else None
    if not path:
        raise InputError(NOT_YOURS)
    return Upload(path=Path(path), name=Path(value.get("orig_name") or path).name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotFields:
    """The components of one shot of the Story tab."""

    picture: gr.Image
    prompt: gr.Textbox
    seconds: gr.Textbox
    transition: gr.Dropdown

    @property
    def parts(self) -> list[gr.components.Component]:
        return [self.picture, self.prompt, self.seconds, self.transition]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTab:
    """The components of one mode's tab."""

    text: TabText
    pictures: list[gr.Image]
    prompt: gr.Textbox
    takes: gr.Slider
    fps: gr.Textbox
    shots: list[ShotFields]
    options: list[gr.components.Component]  # in the order of `controls`
    make: gr.Button
    cancel: gr.Button
    dice: gr.Button
    status: gr.HTML

    @property
    def mode(self) -> str:
        return self.text.name

    @property
    def inputs(self) -> list[gr.components.Component]:
        rows = (part for row in self.shots for part in row.parts)
        return [*self.pictures, self.prompt, self.takes, self.fps, *rows, *self.options]


@dataclass(slots=True, kw_only=True)
class Page:
    """All components that do something."""

    blocks: gr.Blocks
    model: gr.Dropdown
    download: gr.Button
    model_note: gr.HTML
    tabs: gr.Tabs
    gallery: gr.HTML
    clip_tabs: list[ClipTab] = field(default_factory=list)

    def tab(self, mode: str) -> ClipTab:
        return next(tab for tab in self.clip_tabs if tab.mode == mode)


def draw(catalogue: Catalogue, most: Mapping[str, int]) -> Page:
    """Lay all components out; nothing happens yet when they are pressed.

    Args:
        most: the highest values of options that the server takes.
    """
    choices = [(choice.label, choice.key) for choice in catalogue.choices()]
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.HTML(
            f"<header><h1>{TITLE}</h1><p>A still picture and a sentence become a video.</p></header>{_GONE}",
            js_on_load=_WATCH,
        )
        with gr.Row(elem_classes="model-row"):
            model = gr.Dropdown(
                choices, value=AUTOMATIC, label="Model", scale=3, min_width=260, filterable=False, elem_id="model"
            )
            download = gr.Button("Download", visible=False, scale=1, min_width=140, elem_id="download")
        model_note = gr.HTML(js_on_load=None)
        with gr.Row(elem_classes="halves"):
            with gr.Column(scale=5, min_width=320), gr.Tabs(elem_id="tabs") as tabs:
                clip_tabs = [
                    _draw_tab(text, controls(catalogue.preset_for(AUTOMATIC, mode_of(text.name)), most))
                    for text in all_tabs()
                ]
            with gr.Column(scale=6, min_width=320, elem_classes="results"):
                gr.HTML("<h2>Your clips</h2>", js_on_load=None)
                gallery = gr.HTML(js_on_load=_ON_CLICK, elem_id="gallery")
    return Page(
        blocks=blocks,
        model=model,
        download=download,
        model_note=model_note,
        tabs=tabs,
        gallery=gallery,
        clip_tabs=clip_tabs,
    )


def _draw_tab(text: TabText, shown: list[Control]) -> ClipTab:
    with gr.Tab(text.title, id=text.name, elem_id=f"tab-{text.name}"):
        gr.HTML(f'<p class="lead">{text.lead}</p>', js_on_load=None)
        with gr.Row(visible=bool(text.pictures)):
            pictures = [_place(text, number) for number in range(len(text.pictures))]
        if text.more:
            with gr.Accordion("More pictures", open=False), gr.Row():
                pictures += [_place(text, number) for number in range(len(pictures), len(pictures) + len(text.more))]
        prompt = gr.Textbox(
            label=text.asks, placeholder=text.prompt, lines=1 if text.name == STORY else 2, max_length=4000
        )
        shots = [_draw_shot(number) for number in range(MOST_SHOTS)] if text.name == STORY else []

        components: dict[str, gr.components.Component] = {}
        by_name = {control.name: control for control in shown}

        def add(names: Iterable[str]) -> None:
            for name in names:
                components[name] = build(
                    by_name[name],
                    min_width=230,
                    elem_id=f"option-{text.name}-{name}",
                    visible=name not in text.without,
                )

        with gr.Row(elem_classes="frequent"):
            add(FREQUENT)
            takes, fps = _draw_output(text)
            dice = gr.Button("Another seed", size="sm", min_width=120, elem_id=f"dice-{text.name}")
        with gr.Row():
            make = gr.Button(text.button, variant="primary", scale=3, elem_id=f"make-{text.name}")
            cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id=f"cancel-{text.name}")
        status = gr.HTML(js_on_load=None, elem_id=f"status-{text.name}")
        with gr.Accordion("More options", open=False):
            for title, options in groups().items():
                gr.HTML(f"<h3>{title}</h3>", js_on_load=None)
                with gr.Row():
                    add(option.name for option in options)
        if text.examples:
            gr.Examples(
                [[*(str(PICTURES / name) for name in names), words] for names, words in text.examples],
                inputs=[*pictures[: len(text.pictures)], prompt],
                label="Examples: choose one, then press the button",
                elem_id=f"examples-{text.name}",
                api_visibility="private",
                preload=False,
            )
    return ClipTab(
        text=text,
        pictures=pictures,
        prompt=prompt,
        takes=takes,
        fps=fps,
        shots=shots,
        options=[components[control.name] for control in shown],
        make=make,
        cancel=cancel,
        dice=dice,
        status=status,
    )


def _draw_output(text: TabText) -> tuple[gr.Slider, gr.Textbox]:
    """How many clips there are to be, and how fast they play; a film has shots instead."""
    visible, name = text.name != STORY, text.name
    takes = gr.Slider(
        1, MOST_TAKES, 1, step=1, label="Takes", info="Clips of one seed, one after the other.",
        min_width=230, visible=visible, elem_id=f"takes-{name}",
    )  # fmt: skip
    fps = gr.Textbox(
        label="Playing speed", info="Frames per second, such as 12; how much moves is motion's.",
        placeholder=str(OUTPUT_FPS), max_length=24, min_width=230, visible=visible, elem_id=f"fps-{name}",
    )  # fmt: skip
    return takes, fps


def _draw_shot(number: int) -> ShotFields:
    with gr.Accordion(f"Shot {number + 1}", open=number < 2, elem_id=f"shot-{number}"), gr.Row():
        image = picture("Picture", height=180, min_width=180, elem_id=f"picture-story-{number}")
        with gr.Column(min_width=220):
            prompt = gr.Textbox(label="What happens", placeholder="the camera pans left", max_length=4000)
            with gr.Row():
                seconds = gr.Textbox("2", label="Seconds", max_length=8, min_width=80)
                choices = [(label, kind) for kind, label in TRANSITIONS.items()]
                transition = gr.Dropdown(choices, value="cut", label="Then", min_width=120)
    return ShotFields(picture=image, prompt=prompt, seconds=seconds, transition=transition)


def _place(text: TabText, number: int) -> gr.Image:
    label = (*text.pictures, *text.more)[number]
    return picture(label, height=230, min_width=200, elem_id=f"picture-{text.name}-{number}")


def theme() -> gr.themes.Base:
    """Colours and shapes; fonts are the system's own, so that none is fetched."""
    system = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=system,
        font_mono=mono,
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )


def style() -> str:
    """The page's own rules."""
    return (HERE / "style.css").read_text(encoding="utf-8")
