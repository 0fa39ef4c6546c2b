"""Which files of low-rank adapters a clip is made with, and how strongly each works. Importable without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dynamicrafter.errors import InputError

MOST = 10.0  # of a scale; far beyond what any adapter bears
NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One file of adapters.

    Attributes:
        path: as it was named.
        scale: −10 to 10; 0 switches it off, 1 is what it was trained for.
        hash: fingerprint of the file; empty where it was not read yet.
    """

    path: Path
    scale: float = 1.0
    hash: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and abs(self.scale) <= MOST):
            raise InputError(f"lora's scale must be between -{MOST:g} and {MOST:g}, got {self.scale}; try 1.")

    def __str__(self) -> str:
        return f"{self.path}:{self.scale!r}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as metadata keeps them."""
        return asdict(self) | {"path": str(self.path)}


LoraLike = str | Path | Adapter


def parse_adapters(given: LoraLike | Iterable[LoraLike]) -> tuple[Adapter, ...]:
    """Read FILE or FILE:SCALE, one or several; "none" leaves out those before it.

    Raises:
        InputError: a file is not there, or a scale is no number or out of its range.
    """
    listed: Sequence[LoraLike] = [given] if isinstance(given, LoraLike) else list(given)
    kept = len(listed) - listed[::-1].index(NONE) if NONE in listed else 0
    return tuple(map(_parse, listed[kept:]))


def _parse(given: LoraLike) -> Adapter:
    if isinstance(given, str):
        adapter = _from_text(given)
    else:
        adapter = given if isinstance(given, Adapter) else Adapter(path=given)
    if not is_there(adapter.path):
        raise InputError(f"lora {adapter.path} is not there; name a .safetensors file of adapters.")
    return adapter


def _from_text(text: str) -> Adapter:
    if not text:  # as a path it would be the current folder
        raise InputError("lora must not be empty; name a .safetensors file of adapters.")
    path, colon, scale = text.rpartition(":")
    if not colon or is_there(Path(text)):  # a name may hold colons of its own
        return Adapter(path=Path(text))
    try:
        number = float(scale)
    except ValueError:
        if not is_there(Path(path)):
            return Adapter(path=Path(text))
        raise InputError(f"lora's scale must be a number, got {scale!r}; write FILE:SCALE, as in {path}:0.8.") from None
    return Adapter(path=Path(path), scale=number)


def is_there(path: Path) -> bool:
    """Whether a path leads to a file or a folder; one that can't be a name leads nowhere."""
    try:
        return path.is_file() or path.is_dir()
    except (OSError, ValueError):  # a name too long, or one with a NUL
        return False
