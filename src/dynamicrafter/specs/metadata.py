"""A clip's metadata, there and back. Files come from anywhere, so every value is checked for its type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dynamicrafter.errors import InputError
from dynamicrafter.modes import MODES, Mode
from dynamicrafter.specs.adapters import Adapter
from dynamicrafter.specs.clip import CheckedClip
from dynamicrafter.specs.options import AnimateOptions

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """What a clip was made by.

    Attributes:
        model, preset, model_hash: the weights: their name, what they descend from, and the files' fingerprint.
        loras: adapters that were on the model.
        device, dtype: kind of device, and number format.
        generator, torch: versions of this package and of PyTorch.
    """

    model: str
    preset: str
    model_hash: str
    loras: tuple[Adapter, ...]
    device: str
    dtype: str
    torch: str
    generator: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the form that metadata have."""
        return {
            "generator": self.generator,
            "model": {"name": self.model, "preset": self.preset, "hash": self.model_hash},
            "lora": [adapter.as_dict() for adapter in self.loras],
            "device": self.device,
            "dtype": self.dtype,
            "torch": self.torch,
        }


def clip_metadata(clip: CheckedClip, made_by: MadeBy, **more: Any) -> dict[str, Any]:
    """All that a clip was made from, as plain values; `read_clip_metadata` reads them back."""
    return {**made_by.as_dict(), **clip.subject(), "options": clip.options.as_dict(), **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPicture:
    """A picture that a clip was made of: where it was, and its pixels' hash."""

    path: str | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKeys:
    """Of a clip through key pictures: its prompts, whether it is closed, and the frames where the pictures stand."""

    prompts: tuple[str, ...]
    closed: bool
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClip:
    """What a clip's file says about its making, checked for type and nothing else."""

    clip: Path
    mode: Mode
    prompt: str
    pictures: tuple[StoredPicture, ...]
    keys: StoredKeys | None
    options: AnimateOptions
    item: str
    sample: int
    made_by: MadeBy
    fps: str
    crf: int | None

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.keys.prompts if self.keys else (self.prompt,)


def read_clip_metadata(metadata: dict[str, Any], *, clip: Path) -> StoredClip:
    """Check a clip's metadata for what repeating it needs.

    Args:
        metadata: as the file holds it.
        clip: the file, for messages and for pictures beside it.

    Raises:
        InputError: something is missing or of a wrong type.
    """
    values = _Fields(metadata, clip)
    output = _Fields(values.get("output", dict), clip)
    mode = values.get("mode", str)
    if mode not in MODES:
        raise InputError(f"{clip} says its mode is {mode!r}, which is none of {', '.join(MODES)}.")
    pictures = [_Fields(picture, clip) for picture in values.get("pictures", list)]
    kept = values.get("options", dict)
    try:
        options = AnimateOptions.from_dict(kept)
    except InputError as error:
        raise InputError(f"{clip} holds options that can't be repeated: {error}") from error
    return StoredClip(
        clip=clip,
        mode=mode,
        prompt=values.get("prompt", str),
        pictures=tuple(
            StoredPicture(path=picture.get("path", str, type(None)), sha256=picture.get("sha256", str))
            for picture in pictures
        ),
        keys=_keys(_Fields(values.get("keys", dict), clip), len(pictures)) if "keys" in values.values else None,
        options=options,
        item=values.get("item", str),
        sample=values.get("sample", int),
        made_by=_made_by(values, clip),
        fps=output.get("fps", str),
        crf=output.get("crf", int, type(None)),
    )


def _made_by(values: _Fields, clip: Path) -> MadeBy:
    model = _Fields(values.get("model", dict), clip)
    return MadeBy(
        model=model.get("name", str),
        preset=model.get("preset", str),
        model_hash=model.get("hash", str),
        loras=tuple(_adapter(_Fields(kept, clip)) for kept in values.get("lora", list)),
        device=values.get("device", str),
        dtype=values.get("dtype", str),
        generator=values.get("generator", str),
        torch=values.get("torch", str),
    )


def _keys(values: _Fields, num_pictures: int) -> StoredKeys:
    prompts, closed, frames = values.get("prompts", list), values.get("closed", bool), values.get("frames", list)
    fits = all(isinstance(prompt, str) for prompt in prompts) and all(type(frame) is int for frame in frames)
    in_order = fits and len(frames) == num_pictures and frames[:1] == [0] and frames == sorted(set(frames))
    gaps = num_pictures if closed else num_pictures - 1
    if not in_order or len(prompts) not in (1, gaps):
        raise InputError(
            f"{values.clip} can't be repeated: its prompts and frames don't fit its {num_pictures} pictures."
        )
    return StoredKeys(prompts=tuple(prompts), closed=closed, frames=tuple(frames))


def _adapter(values: _Fields) -> Adapter:
    path, scale = values.get("path", str), values.get("scale", int, float)
    try:
        return Adapter(path=Path(path), scale=float(scale), hash=values.get("hash", str))
    except (InputError, OverflowError):
        raise InputError(f"{values.clip} can't be repeated: it gives adapters the scale {scale}.") from None


class _Fields:
    """Values of a mapping that was read from a file, fetched by name and type."""

    def __init__(self, values: Any, clip: Path) -> None:
        self.clip = clip
        self.values = values if isinstance(values, dict) else {}

    def get(self, name: str, *kinds: type[T]) -> T:
        value = self.values.get(name)
        if name not in self.values or not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InputError(
                f"{self.clip} can't be repeated: its metadata has no usable {name!r}; it was changed, or not made here."
            )
        return value
