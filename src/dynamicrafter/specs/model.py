"""Which model makes a clip, and on what, as every face asks for it. Importable without torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynamicrafter import hub
from dynamicrafter.errors import InputError
from dynamicrafter.modes import ANIMATE, Mode
from dynamicrafter.presets import BUNDLED, Preset
from dynamicrafter.specs.adapters import Adapter, LoraLike, parse_adapters
from dynamicrafter.units import parse_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model and how it is to run; see `pipeline.describe` and `Animator.load`.

    Attributes:
        name: a preset, a folder, a file, a repository on the hub, or seeded:NAME; None for the best on this machine.
        preset: which released checkpoint a file descends from, where the file can't tell.
        encoders: file or folder with CLIP's encoders, for a file without.
        device: cpu, cuda, cuda:N or mps; None for the best there is.
        dtype: float32, bfloat16 or float16; None for what suits the device.
        lora: adapters to put on it.
        memory: the most that a run may take, such as 8GB; None for all that the device has.
        download: fetch what is not on this machine.
    """

    name: str | None = None
    preset: str | None = None
    encoders: str | None = None
    device: str | None = None
    dtype: str | None = None
    lora: tuple[Adapter, ...] = ()
    memory: str | None = None
    download: bool = False

    def __post_init__(self) -> None:
        if self.memory is not None:
            parse_memory(self.memory)
        for name in ("name", "encoders"):  # paths are welcome
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, str(value))
        object.__setattr__(self, "lora", parse_adapters(self.lora))

    def chosen(self, modes: Collection[Mode] = (ANIMATE,)) -> ModelSpec:
        """The same with a name: where none is given, that of the best model on this machine for all of some modes.

        Raises:
            InputError: the modes call for different ones.
        """
        if self.name is not None:
            return self
        names = sorted({str(hub.best_local(mode).preset) for mode in modes})
        if len(names) > 1:
            raise InputError(f"model must be named, as the modes call for {' and '.join(names)}; --model.")
        return replace(self, name=names[0])

    def from_anywhere(self) -> ModelSpec:
        """The same with whole paths, for a worker that runs in another folder."""
        local = None if self.name is None or self.name.startswith(hub.SEEDED) else hub.resolve(self.name).path
        return replace(
            self,
            name=str(local.resolve()) if local is not None and local == Path(str(self.name)) else self.name,
            encoders=None if self.encoders is None else str(Path(self.encoders).resolve()),
            lora=tuple(replace(adapter, path=adapter.path.resolve()) for adapter in self.lora),
        )


def model_spec(model: str | Path | ModelSpec | None = None, **settings: Any) -> ModelSpec:
    """A spec from a name and loose settings, `lora` as one file or several."""
    if isinstance(model, ModelSpec):
        return replace(model, **settings)
    lora: LoraLike | Collection[LoraLike] = settings.pop("lora", ())
    return ModelSpec(name=None if model is None else str(model), lora=parse_adapters(lora), **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What can be told of a model without reading its weights.

    Attributes:
        spec: with its name, and its adapters' hashes filled in.
        preset: with the frame size that the model is run at.
        path: None for weights that are drawn from their names.
        hash: fingerprint of its files, and what `Animator.model_hash` will be; empty for seeded weights.
        encoders_hash: likewise of encoders that were named.
    """

    spec: ModelSpec
    preset: Preset
    path: Path | None
    hash: str = ""
    encoders_hash: str | None = None

    @property
    def name(self) -> str:
        return str(self.spec.name)

    @property
    def words(self) -> str:
        """The name, and where the model lies, as a line of progress says it."""
        where = "the small model of the package" if self.preset.name == BUNDLED.name else self.path
        return f"{self.name} ({where})" if where else self.name

    def identity(self) -> dict[str, Any]:
        """What tells the model, as it is set up, from others; plain values."""
        spec = self.spec
        return {
            "model": self.hash or self.name,
            "preset": spec.preset,
            "encoders": self.encoders_hash,
            "lora": [f"{adapter.hash}:{adapter.scale!r}" for adapter in spec.lora],
            "dtype": spec.dtype,
            "memory": spec.memory,  # what makes a model fit may round otherwise
        }
