"""`convert`: a checkpoint file into a folder in diffusers' layout, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from dynamicrafter.cli.commands import Switch
from dynamicrafter.cli.console import hide_loading_bars, importing, say, silence_libraries


@dataclass(frozen=True, kw_only=True)
class ConvertCommand:
    """Turn a checkpoint file into a folder in diffusers' layout, or either into a file with the published names.

    From folder to folder, change the number format.

    Every tensor comes back with the same bits, those that nothing reads too; only --dtype changes them.
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE", help_behavior_hint="")]
    """A checkpoint file, a folder, or any other name of a model."""
    target: Annotated[Positional[Path], arg(metavar="TARGET", help_behavior_hint="")]
    """A file, where it ends in .safetensors or .ckpt, else a folder. Nothing is replaced."""
    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Which preset a file descends from, where the file can't tell."""
    dtype: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: as it is)")] = None
    """Number format of the weights: float32, bfloat16 or float16."""
    encoders: Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")] = None
    """File or folder with CLIP's encoders, for what the source lacks."""
    download: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Fetch what is not on this machine."""


def run(command: ConvertCommand) -> None:
    """Convert, and print the target's path once it is complete.

    Raises:
        InputError: see `pipeline.convert.convert`; an unknown dtype.
    """
    silence_libraries()
    with importing():
        from dynamicrafter.memory.devices import choose_device, choose_dtype
        from dynamicrafter.pipeline.convert import convert

    hide_loading_bars(keep_downloads=True)
    say(f"Converting {command.source}…")
    print(
        convert(
            command.source,
            command.target,
            preset=command.preset,
            dtype=None if command.dtype is None else choose_dtype(command.dtype, choose_device("cpu")),
            encoders=command.encoders,
            download=command.download,
        )
    )
