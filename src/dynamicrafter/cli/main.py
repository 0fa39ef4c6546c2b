"""The command's entry point: finds the sub-command, and turns whatever happens into one line and an exit code.

0 done, 1 the machine was not up to it (memory, disk), 2 an error of the user's, 3 some jobs of a list failed, 130
stopped by Ctrl-C (143 and 129 by the system or a closed terminal), 141 nobody reads the output. Anything else is a
fault of the package and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from dynamicrafter import __version__
from dynamicrafter.cli.console import say, shown_warnings, silence_libraries
from dynamicrafter.errors import InputError, MachineError

# Each ends the command in an orderly way, which leaves nothing half-written; not every system has all.
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_BY_SIGNAL = 128  # and the signal's number: the exit code of what a signal ended
_GRACE = 2.0  # seconds after a signal in which another one, as a closing terminal sends, doesn't break the clearing up
_PIPE_CLOSED = 128 + 13  # as after SIGPIPE

_MEMORY = (
    "out of memory; try --memory 8GB or less, a smaller --size, fewer --frames or --dtype bfloat16, or close other "
    "programs that use the same memory."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SubCommand:
    """Where a sub-command's arguments and its work are found, once it is asked for."""

    summary: str
    arguments: str  # module:dataclass
    work: str  # module:function of one argument, which may return an exit code


# A name of two words is a command within a group, which is its first.
_COMMANDS = {
    "animate": _SubCommand(
        summary="make a video of a picture and a prompt",
        arguments="dynamicrafter.cli.commands:AnimateCommand",
        work="dynamicrafter.cli.make:run",
    ),
    "interpolate": _SubCommand(
        summary="fill the time between two pictures",
        arguments="dynamicrafter.cli.commands:InterpolateCommand",
        work="dynamicrafter.cli.make:run",
    ),
    "loop": _SubCommand(
        summary="make a video whose end runs into its beginning",
        arguments="dynamicrafter.cli.commands:LoopCommand",
        work="dynamicrafter.cli.make:run",
    ),
    "text": _SubCommand(
        summary="make a video of a prompt alone",
        arguments="dynamicrafter.cli.commands:TextCommand",
        work="dynamicrafter.cli.make:run",
    ),
    "story": _SubCommand(
        summary="make a film of shots and transitions that a file lists",
        arguments="dynamicrafter.cli.story:StoryCommand",
        work="dynamicrafter.cli.story:run",
    ),
    "batch": _SubCommand(
        summary="make the videos of a whole list, on as many workers as there are",
        arguments="dynamicrafter.cli.batch:BatchCommand",
        work="dynamicrafter.cli.batch:run",
    ),
    "ui": _SubCommand(
        summary="serve a web page that makes clips",
        arguments="dynamicrafter.cli.ui:UiCommand",
        work="dynamicrafter.cli.ui:run",
    ),
    "download": _SubCommand(
        summary="fetch a model's weights from the Hugging Face hub",
        arguments="dynamicrafter.cli.commands:DownloadCommand",
        work="dynamicrafter.cli.models:download",
    ),
    "models": _SubCommand(
        summary="list the models on this machine",
        arguments="dynamicrafter.cli.commands:ModelsCommand",
        work="dynamicrafter.cli.models:show",
    ),
    "convert": _SubCommand(
        summary="turn weights from one layout into another",
        arguments="dynamicrafter.cli.convert:ConvertCommand",
        work="dynamicrafter.cli.convert:run",
    ),
    "train": _SubCommand(
        summary="train a model on clips of one's own",
        arguments="dynamicrafter.cli.train:TrainCommand",
        work="dynamicrafter.cli.train:run",
    ),
    "inspect": _SubCommand(
        summary="say what a file of weights holds",
        arguments="dynamicrafter.cli.inspect:InspectCommand",
        work="dynamicrafter.cli.inspect:run",
    ),
    "bench": _SubCommand(
        summary="measure how fast this machine is, without weights",
        arguments="dynamicrafter.cli.bench:BenchCommand",
        work="dynamicrafter.cli.bench:run",
    ),
    "evaluate": _SubCommand(
        summary="measure clips against their prompts and pictures, or a model by its clips",
        arguments="dynamicrafter.cli.evaluate:EvaluateCommand",
        work="dynamicrafter.cli.evaluate:run",
    ),
    "data check": _SubCommand(
        summary="say what a list or folder of clips holds, and what training would skip",
        arguments="dynamicrafter.cli.data:CheckCommand",
        work="dynamicrafter.cli.data:check",
    ),
    "data cache": _SubCommand(
        summary="keep what the encoders say of clips, to train without them",
        arguments="dynamicrafter.cli.data_cache:CacheCommand",
        work="dynamicrafter.cli.data_cache:run",
    ),
    "data annotate": _SubCommand(
        summary="add columns that tell the motion to a list of clips",
        arguments="dynamicrafter.cli.data_annotate:AnnotateCommand",
        work="dynamicrafter.cli.data_annotate:run",
    ),
}

_HELP = """\
usage: dynamicrafter COMMAND [OPTIONS] …

A still image and a sentence become a video (DynamiCrafter, arXiv:2310.12190).

commands:
{commands}

  dynamicrafter COMMAND --help   explains a command and its options
  dynamicrafter --version        shows the version

examples:
  dynamicrafter animate photo.jpg "the camera pans left"   (with the small model of the package)
  dynamicrafter download 512
  dynamicrafter animate photo.jpg "a boat on a stormy sea" -o boat.mp4
"""

_GROUP_HELP = """\
usage: dynamicrafter {name} COMMAND [OPTIONS] …

commands:
{commands}

  dynamicrafter {name} COMMAND --help   explains a command and its options
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: what follows the command's name; None for this process's arguments.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if words is None else words)
    _replace_closed_streams()
    with shown_warnings(), _interruptible() as interrupted:
        try:
            _accept_any_character()
            code = _dispatch(words)
            sys.stdout.flush()
            return code
        except BaseException as error:
            if interrupted or isinstance(error, KeyboardInterrupt):
                # A library caught in its import may have turned the interrupt into an error of its own.
                said = str(error) if isinstance(error, KeyboardInterrupt) else ""
                say(said or "stopped; nothing was written")
                return _BY_SIGNAL + (interrupted[0] if interrupted else signal.SIGINT)
            if isinstance(error, BrokenPipeError):  # whoever read stdout has read enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return _PIPE_CLOSED
            failure = _explain(error)
            if failure is None:
                raise
            line, code = failure
            say(f"error: {line}")
            return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_HELP.format(commands=_listed()), end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"dynamicrafter {__version__}")
        return 0
    # Imported late, so that an interrupt meets the handler above and `--version` doesn't wait.
    from dynamicrafter.cli.commands import MakeCommand
    from dynamicrafter.cli.parsing import parse

    if words[1:] in ([], ["-h"], ["--help"]) and _group(words[0]):
        print(_GROUP_HELP.format(name=words[0], commands=_listed(words[0])), end="")
        return 0
    name, rest = _split(words)
    command = _COMMANDS[name]
    prog = f"dynamicrafter {name}"
    silence_libraries()
    try:
        arguments = parse(_find(command.arguments), rest, prog=prog)
    except SystemExit:  # after showing help
        return 0
    if isinstance(arguments, MakeCommand) and arguments.output.like is not None:
        from dynamicrafter.cli.like import repeated

        arguments = parse(type(arguments), rest, prog=prog, default=repeated(arguments))
    return _find(command.work)(arguments) or 0


def _split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the command that the words ask for, and what follows it.

    Raises:
        UsageError: there is no such command.
    """
    from dynamicrafter.cli.parsing import UsageError, suggest

    group = _group(words[0])
    size = 2 if group else 1
    name = " ".join(words[:size])
    if name in _COMMANDS:
        return name, list(words[size:])
    word = words[size - 1]
    kind = "option" if word.startswith("-") else "command"
    known = group or list(dict.fromkeys(name.partition(" ")[0] for name in _COMMANDS))
    options = ["--help"] if group else ["--help", "--version"]
    advice = suggest(word, [*known, *options]) or f" commands are {', '.join(known)}."
    raise UsageError(f"unknown {kind} {name};{advice}")


def _group(name: str) -> list[str]:
    """The commands within a group; none where it is no group."""
    return [full.partition(" ")[2] for full in _COMMANDS if full.startswith(f"{name} ")]


def _listed(group: str = "") -> str:
    """A line for each command, or for each of a group."""
    names = [name for name in _COMMANDS if not group or name.startswith(f"{group} ")]
    return "\n".join(f"  {name:<14} {_COMMANDS[name].summary}" for name in names)


def _replace_closed_streams() -> None:
    """Let what the caller closed lead nowhere; the next file opened would take its number and whatever is written."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere > number and not _is_open(number):
                os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(nowhere, "w" if number else "r", encoding="utf-8"))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _accept_any_character() -> None:
    """Let stdout take a path that is no valid text, and replace what its encoding lacks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")


def _find(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(module), name)


def _explain(error: BaseException) -> tuple[str, int] | None:
    """One line and an exit code for what isn't a fault of the package."""
    cause = error.__cause__ if isinstance(error, InputError) else error
    disk_full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, InputError):
        return str(error), 1 if disk_full else 2
    if isinstance(error, MachineError):
        return str(error), 1
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return _MEMORY, 1
    if isinstance(error, OSError) and disk_full:
        where = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{where}; free some space, or write elsewhere.", 1
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether it is one of PyTorch's, which only CUDA gives a class of its own."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in words)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Remember which signals came to stop the command, whatever becomes of their KeyboardInterrupt.

    Yields:
        The numbers of the signals that came.
    """
    came: list[int] = []
    last = -_GRACE

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        came.append(number)
        before, last = last, time.monotonic()
        if last - before >= _GRACE:
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    heeded = [number for number in _STOPPING if ours and signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, note) for number in heeded}
    try:
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
