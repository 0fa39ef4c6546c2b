"""`ui`: the web page."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

from dynamicrafter import hub
from dynamicrafter.cli.console import hide_loading_bars, importing, say
from dynamicrafter.errors import InputError
from dynamicrafter.schema import Unset
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.ui import log
from dynamicrafter.ui.settings import ServerSettings, read_users

Several = UseAppendAction[Annotated[tuple[str, ...], arg(help_behavior_hint="")]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlags(ServerSettings):
    """Where the page is served, to whom, and within which limits; here only what reads differently as a flag."""

    auth: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="USER:PASSWORD", help_behavior_hint="")]] = ()
    auth_file: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    domain: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="NAME", help_behavior_hint="")]] = ()
    root_path: Annotated[str, arg(metavar="PATH", help_behavior_hint="")] = ""
    open: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    no_downloads: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False


@dataclass(frozen=True, kw_only=True)
class UiCommand:
    """Serve a web page that makes clips: dynamicrafter ui, then open http://127.0.0.1:7860/"""

    server: ServerFlags = field(default_factory=ServerFlags)
    """How the page is served."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """What makes the clips: the model to begin with; visitors may choose another that is on this machine."""
    devices: Annotated[str | None, arg(metavar="LIST"), Unset("the one of --device")] = None
    """Several devices, such as cuda:0,cuda:1, on all of which clips are made at once."""


def run(command: UiCommand) -> None:
    """Check, load, and serve until Ctrl-C.

    Raises:
        InputError: a setting, a device or a model that can't be used, or gradio is not installed.
    """
    settings, model = command.server, command.model
    settings.check()
    users = read_users(settings)
    _check_model(model)
    if importlib.util.find_spec("gradio") is None:
        raise InputError('the page needs gradio, which is not installed; run `pip install "dynamicrafter[ui]"`.')
    with importing():  # all of it now: later, an import would hold up everybody who waits for an answer
        import dynamicrafter.animator.animator  # noqa: F401
        from dynamicrafter.faces.catalogue import Catalogue
        from dynamicrafter.memory.devices import choose_device, choose_dtype
        from dynamicrafter.ui.engine import Engine
        from dynamicrafter.ui.folder import sweep_leftovers
        from dynamicrafter.ui.server import address_of, build_app, open_socket, serve
        from dynamicrafter.ui.service import Service

        names = [model.device] if command.devices is None else [name.strip() for name in command.devices.split(",")]
        devices = [choose_device(name) for name in names]
    if len(set(devices)) < len(devices):
        raise InputError(f"devices must not hold one twice, got {command.devices}.")
    for device in devices:
        choose_dtype(model.dtype, device)
    hide_loading_bars()
    opened = open_socket(settings)
    catalogue = Catalogue(model, downloads=not settings.no_downloads)
    if swept := sweep_leftovers():
        say(f"Removed the files of {swept} earlier server{'s' * (swept > 1)} that had been killed.")
    service = Service(settings, catalogue, [Engine(str(device), model.dtype) for device in devices])
    try:
        tempfile.tempdir = str(service.folder)  # what a kill leaves behind is then swept with the rest
        app = build_app(service, users)
        say(f"The page is at {address_of(opened, settings)} (Ctrl-C ends it)")
        with log.shown():
            serve(app, opened)
    finally:
        tempfile.tempdir = None
        service.close()
        opened.close()


def _check_model(model: ModelSpec) -> None:
    """Raises InputError where there is no such model, or where flags that go with one are given without."""
    if model.name is None and (model.lora or model.preset or model.encoders):
        raise InputError("lora, preset and encoders go with a model; name it with --model.")
    if model.name is not None and not model.name.startswith(hub.SEEDED):
        hub.resolve(model.name)
