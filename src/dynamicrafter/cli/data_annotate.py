"""`data annotate`: columns that tell the motion, by rules, a server or a model in a folder."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, arg

from dynamicrafter.cli.console import Stopped, hide_loading_bars, say
from dynamicrafter.data.annotate import RULES, Annotator, annotate
from dynamicrafter.data.language_models import ask_address, ask_folder
from dynamicrafter.errors import InputError

_FOLDER_BATCH = 8  # captions that a model in a folder reads at a time
_ROUNDS = 4  # requests behind each other between two writes of the journal


@dataclass(frozen=True, kw_only=True)
class AnnotateCommand:
    """Add the columns dynamic_confidence, dynamic_wording and dynamic_source_category to a list of clips.

    Stopped at any point, it goes on when it is started again with the same words. Rows whose captions get no good
    answer keep the three cells empty.
    """

    source: Annotated[Positional[Path], arg(metavar="LIST", help_behavior_hint="")]
    """A CSV with captions: WebVid's (name), or one's own (caption, text or prompt)."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(required)")]
    """The CSV to write or replace, best beside the list, from whose folder paths start."""
    by: Annotated[str, arg(metavar="NAME", help_behavior_hint="(default: rules)")] = "rules"
    """rules (words of motion, no model), an OpenAI-compatible address such as http://127.0.0.1:8000/v1, or a folder
    with a text-generation model of transformers."""
    model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Which model to ask for at the address."""
    key_variable: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: no key is sent)")] = None
    """Environment variable with the key for the address, such as OPENAI_API_KEY."""
    workers: int = 4
    """Requests to the address at a time."""
    device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the best there is)")] = None
    """Where a model in a folder runs: cpu, cuda, cuda:N or mps."""


def run(command: AnnotateCommand) -> None:
    """Annotate, and print the output's path once it is complete.

    Raises:
        InputError, OutputError: see `data.annotate.annotate`; address, key, folder or model are missing.
        Stopped: interrupted; what was answered is kept.
    """
    annotator = _annotator(command)
    target = command.output.absolute()
    done = 0
    try:
        with tqdm(desc="Annotating", unit="row", leave=False, disable=not sys.stderr.isatty()) as bar:

            def on_rows(rows: int) -> None:
                nonlocal done
                done = rows
                bar.update(rows - bar.n)

            report = annotate(command.source, target, annotator, on_rows=on_rows)
    except KeyboardInterrupt:
        if not done:
            raise
        raise Stopped(f"stopped after {done} rows; run the same command to go on") from None
    resumed = f", {report.resumed} of them by an earlier run" if report.resumed else ""
    say(f"{report.rows} rows{resumed}; {report.unanswered} without an answer")
    for reason, count in report.bad_answers.most_common():
        say(f"bad answers: {count}, {reason}")
    if target.parent != command.source.absolute().parent:
        say(f"the list's paths start from another folder than {target}; use it with --root {command.source.parent}")
    print(command.output)


def _annotator(command: AnnotateCommand) -> Annotator:
    if command.by == RULES.name:
        return RULES
    if command.by.startswith(("http://", "https://")):
        return _by_address(command)
    folder = Path(command.by)
    if not folder.is_dir():
        raise InputError(f"by must be rules, an address (http:// or https://) or a folder, got {command.by!r}.")
    from dynamicrafter.memory.devices import choose_device

    hide_loading_bars()
    ask = ask_folder(folder, device=str(choose_device(command.device)))
    return Annotator(f"the model in {folder.resolve().name}", _FOLDER_BATCH, ask)


def _by_address(command: AnnotateCommand) -> Annotator:
    if command.model is None:
        raise InputError(f"model is missing; name the one to ask for at {command.by}.")
    if command.workers < 1:
        raise InputError(f"workers must be 1 or more, got {command.workers}; try 4.")
    key = None
    if command.key_variable is not None:
        key = os.environ.get(command.key_variable)
        if not key:
            raise InputError(f"the environment variable {command.key_variable} is not set; put the key there.")
    ask = ask_address(command.by, model=command.model, key=key, workers=command.workers)
    return Annotator(f"{command.model} at {command.by}", command.workers * _ROUNDS, ask)
