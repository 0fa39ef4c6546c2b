"""Which model makes a clip, and on what, as every face asks for it. Importable without torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from dynamicrafter import hub
from dynamicrafter.errors import InputError
from dynamicrafter.modes import ANIMATE, Mode
from dynamicrafter.presets import Preset, get_preset
from dynamicrafter.schema import Called, Group, Several, Unset, ValueKind, read_fields
from dynamicrafter.specs.adapters import NONE, Adapter, LoraLike, parse_adapters
from dynamicrafter.specs.hints import BUNDLED_MOTIONS
from dynamicrafter.units import FREE, parse_memory


class AdapterKind(ValueKind):
    """A file of adapters as FILE or FILE:SCALE."""

    rule = "a file of adapters"
    metavar = "FILE[:SCALE]"

    def convert(self, value: Any) -> Adapter | str:
        return value if value == NONE else parse_adapters([value])[0]


_ADAPTER, _RARE = AdapterKind(), Group("Rarely needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model, and how it is to run.

    Raises:
        InputError: a value breaks its rule; whether there is such a model is not looked at.
    """

    name: Annotated[str | None, Called("model"), Unset("the best on this machine")] = None
    """A preset (256, 512, 1024, interp), a folder, a file or a repository on the hub; or bundled, the small model of
    the package, which is the default where no preset's weights are."""
    preset: Annotated[str | None, Unset("by its keys"), _RARE] = None
    """Which preset a file descends from, where its keys don't tell."""
    encoders: Annotated[Path | None, Unset("the file's own"), _RARE] = None
    """File or folder with CLIP's encoders, for a pruned file without them."""
    lora: Annotated[tuple[Adapter, ...], Several((_ADAPTER,))] = ()
    """Adapters to put on the model, and how strongly they work (default: 1); may be given several times."""
    device: Annotated[str | None, Unset("the best there is")] = None
    """cpu, cuda, cuda:N or mps."""
    dtype: Annotated[str | None, Unset("what suits the device"), _RARE] = None
    """Number format: float32, bfloat16 or float16."""
    download: Annotated[bool, _RARE] = False
    """Fetch what is not on this machine."""
    memory: Annotated[str | None, Unset("all that the device has")] = None
    """The most that may be used, such as 8GB, or "free"; what doesn't fit is made to, and the command says how."""
    compile: Annotated[bool, _RARE] = False
    """Make one graph of the UNet with PyTorch's compiler; the first step at each size then takes minutes."""

    def __post_init__(self) -> None:
        if isinstance(self.name, Path):
            object.__setattr__(self, "name", str(self.name))
        read_fields(self)
        object.__setattr__(self, "lora", parse_adapters(self.lora))
        if self.memory not in (None, FREE):
            parse_memory(self.memory)
        if self.preset is not None:
            get_preset(self.preset)

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
            encoders=None if self.encoders is None else self.encoders.resolve(),
            lora=tuple(replace(adapter, path=adapter.path.resolve()) for adapter in self.lora),
        )


def model_spec(model: str | Path | ModelSpec | None = None, **settings: Any) -> ModelSpec:
    """A spec from a name and loose settings, `lora` as one file or several."""
    if isinstance(model, ModelSpec):
        return replace(model, **settings)
    lora: LoraLike | Iterable[LoraLike] = settings.pop("lora", ())
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
    def motions(self) -> tuple[str, ...]:
        """The motions that it was taught; none for a model that takes any prompt, or was taught others since."""
        return BUNDLED_MOTIONS if self.path == hub.BUNDLED_FOLDER and not self.spec.lora else ()

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
