"""`ui`: the web page."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

from dynamicrafter import hub
from dynamicrafter.animator.adapters import parse_adapters
from dynamicrafter.cli.console import hush_loading_bars, importing, say
from dynamicrafter.errors import InputError
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.ui.settings import AUTH_VARIABLE, ServerSettings, read_users

Several = UseAppendAction[Annotated[tuple[str, ...], arg(help_behavior_hint="")]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlags(ServerSettings):
    """Where the page is served, to whom, and within which limits; here only what reads differently as a flag."""

    auth: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="USER:PASSWORD", help_behavior_hint="")]] = ()
    auth_file: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    domain: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="NAME", help_behavior_hint="")]] = ()
    root_path: Annotated[str, arg(metavar="PATH", help_behavior_hint="")] = ""
    no_downloads: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlags:
    """What makes the clips, and on what."""

    model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the best for each task)")] = None
    """The model to begin with, as `animate --model` takes it; visitors may choose another that is on this machine."""
    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Which preset a file descends from, where its keys don't tell."""
    encoders: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """File or folder with CLIP's encoders, for a pruned file without them."""
    lora: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="FILE[:SCALE]", help_behavior_hint="")]] = ()
    """Adapters to put on the model of --model; may be given several times."""
    device: UseAppendAction[
        Annotated[tuple[str, ...], arg(metavar="NAME", help_behavior_hint="(default: the best there is)")]
    ] = ()
    """cpu, cuda, cuda:N or mps; given several times, clips are made on all of them at once."""
    dtype: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: what suits the device)")] = None
    """Number format: float32, bfloat16 or float16."""


@dataclass(frozen=True, kw_only=True)
class UiCommand:
    """Serve a web page that makes clips: dynamicrafter ui, then open http://127.0.0.1:7860/"""

    server: ServerFlags = field(default_factory=ServerFlags)
    """How the page is served."""
    engine: EngineFlags = field(default_factory=EngineFlags)
    """What makes the clips."""


def run(command: UiCommand) -> None:
    """Check, load, and serve until Ctrl-C.

    Raises:
        InputError: a setting, a device or a model that can't be used, or gradio is not installed.
    """
    settings, engine = command.server, command.engine
    settings.check()
    users = read_users(settings)
    start = _start(engine)
    if importlib.util.find_spec("gradio") is None:
        raise InputError('the page needs gradio, which is not installed; run `pip install "dynamicrafter[ui]"`.')
    with importing():  # all of it now: later, an import would hold up everybody who waits for an answer
        import dynamicrafter.animator.animator  # noqa: F401
        from dynamicrafter.memory.devices import choose_device, choose_dtype
        from dynamicrafter.ui.catalogue import Catalogue
        from dynamicrafter.ui.engine import Engine
        from dynamicrafter.ui.server import address_of, build_app, open_socket, serve
        from dynamicrafter.ui.service import Service

        devices = [choose_device(name) for name in engine.device or (None,)]
    if len(set(devices)) < len(devices):
        raise InputError(f"device must not be given twice, got {', '.join(engine.device)}.")
    for device in devices:
        choose_dtype(engine.dtype, device)
    hush_loading_bars()
    opened = open_socket(settings)
    catalogue = Catalogue(start, downloads=not settings.no_downloads)
    service = Service(settings, catalogue, [Engine(str(device), engine.dtype) for device in devices])
    try:
        app = build_app(service, users)
        if not settings.is_local and not users:
            say(
                f"warning: anybody who reaches this machine can use the page; name users in --auth-file FILE or in "
                f"{AUTH_VARIABLE}."
            )
        say(f"The page is at {address_of(opened, settings)} (Ctrl-C ends it)")
        serve(app, opened)
    finally:
        service.close()
        opened.close()


def _start(flags: EngineFlags) -> dict[str, Any]:
    """Arguments of `Animator.from_pretrained` for the model to begin with; none where none is named.

    Raises:
        InputError: no such model or adapters, or flags that go with a model and none is named.
    """
    if flags.model is None:
        if flags.lora or flags.preset or flags.encoders:
            raise InputError("lora, preset and encoders go with a model; name it with --model.")
        return {}
    if not flags.model.startswith(SEEDED):
        hub.resolve(flags.model)
    start: dict[str, Any] = {"model": flags.model, "lora": parse_adapters(flags.lora)}
    if flags.preset is not None:
        start["preset"] = flags.preset
    if flags.encoders is not None:
        start["encoders"] = flags.encoders
    return start
