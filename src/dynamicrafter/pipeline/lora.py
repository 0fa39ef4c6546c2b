"""Low-rank adapters (arXiv:2106.09685) in diffusers' layout: read into a pipeline's UNet, and written from it.

A file holds `unet.<module>.lora_A.weight` (rank, in) and `…lora_B.weight` (out, rank), and rank and alpha in the entry
of its header that diffusers writes too.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LoraBaseMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dynamicrafter.checkpoints.sniff import printable
from dynamicrafter.errors import CheckpointError, InputError
from dynamicrafter.pipeline.trained_motion import as_json, motion_counts

WEIGHTS = "pytorch_lora_weights.safetensors"
_UNET = "unet"
_MOTIONS = "motion_numbers"
_PARTS = (".lora_A.weight", ".lora_B.weight")


class DynamiCrafterLoraLoader(LoraBaseMixin):
    """diffusers' calls for adapters on a pipeline, for files on this machine."""

    _lora_loadable_modules = [_UNET]  # noqa: RUF012 diffusers declares it so
    unet_name = _UNET

    # pyrefly: ignore [bad-override]
    def load_lora_weights(
        self, source: str | Path | Mapping[str, Tensor], adapter_name: str | None = None, *, weight_name: str = WEIGHTS
    ) -> None:
        """Put adapters on the UNet, and switch them on; `set_adapters` weighs several.

        Args:
            source: a `.safetensors` file, a folder that holds one, or tensors by name.
            adapter_name: how other calls name them; None for a name that is free.
            weight_name: of the file in a folder.

        Raises:
            InputError: peft is not installed, or the name is taken.
            CheckpointError: the source can't be read, or doesn't fit this UNet.
        """
        try:
            import peft  # noqa: F401
        except ImportError:
            raise InputError('LoRA needs peft; run pip install "dynamicrafter[train]".') from None
        unet: Any = self.unet  # pyrefly: ignore[missing-attribute]
        if adapter_name in getattr(unet, "peft_config", {}):
            raise InputError(f"adapter_name {adapter_name} is taken; choose another.")
        tensors, settings, name = _read(source, weight_name)
        modules, rank = _check(tensors, unet, name=name)
        alpha = settings.get(f"{_UNET}.lora_alpha", rank)
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise CheckpointError(f"{name} sets lora_alpha to {printable(repr(alpha))}, which is no number.")
        described = {"r": rank, "lora_alpha": alpha, "target_modules": modules}
        unet.load_lora_adapter(
            tensors,
            prefix=_UNET,
            adapter_name=adapter_name,
            metadata={f"{_UNET}.{key}": value for key, value in described.items()},
            _pipeline=self,
            low_cpu_mem_usage=True,
        )

    @classmethod
    # pyrefly: ignore [bad-override]
    def save_lora_weights(
        cls, save_directory: str | Path, unet_lora_layers: Mapping[str, Tensor], *, rank: int, alpha: float
    ) -> None:
        """Write adapters, as `lora_state` gives them, under diffusers' name of the file."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_lora(folder / WEIGHTS, unet_lora_layers, rank=rank, alpha=alpha)


def lora_state(unet: Any) -> dict[str, Tensor]:
    """The adapters on a UNet that has one set of them, by diffusers' names."""
    from peft import get_peft_model_state_dict

    adapter = next(iter(unet.peft_config))
    state = get_peft_model_state_dict(unet, adapter_name=adapter)
    return {f"{_UNET}.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def write_lora(
    path: Path, tensors: Mapping[str, Tensor], *, rank: int, alpha: float, motions: Mapping[int, int] | None = None
) -> None:
    """Write adapters as a file that diffusers reads too.

    Args:
        motions: how often each motion number was trained under; see `trained_motions`.
    """
    modules = sorted({_module(name) for name in tensors})
    described = {"r": rank, "lora_alpha": alpha, "target_modules": modules}
    text = json.dumps({f"{_UNET}.{key}": value for key, value in described.items()}, indent=2, sort_keys=True)
    header = {"format": "pt", LORA_ADAPTER_METADATA_KEY: text}
    save_file(dict(tensors), path, metadata=header | ({_MOTIONS: as_json(motions)} if motions else {}))


def trained_motions(file: Path) -> Counter[int]:
    """How often the adapters in a file were trained under each motion number; empty where it doesn't say."""
    try:
        with safe_open(file, framework="pt") as opened:
            return motion_counts((opened.metadata() or {}).get(_MOTIONS))
    except (OSError, ValueError, SafetensorError):  # what reads the weights says what is wrong with it
        return Counter()


def lora_file(source: str | Path, weight_name: str = WEIGHTS) -> Path:
    """The file of adapters that a path means: itself, or the one of a folder."""
    path = Path(source)
    return path / weight_name if path.is_dir() else path


def check_lora_file(source: str | Path) -> None:
    """Check what can be checked of adapters without the model that they are for.

    Raises:
        CheckpointError: the file is not there, can't be read, or holds something else.
    """
    tensors, _, name = _read(source, WEIGHTS)
    _check_names(tensors, name=name)


def _read(source: str | Path | Mapping[str, Tensor], weight_name: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, settings from the header, and how to call the source."""
    if isinstance(source, Mapping):
        return dict(source), {}, "the given adapter"
    path = lora_file(Path(source).expanduser(), weight_name)
    if not path.is_file():
        raise CheckpointError(f"{path} is not there; name a .safetensors file of adapters.")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY)
            settings = {} if header is None else json.loads(header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read as adapters ({printable(str(error))}).") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} describes its adapters by something else than a JSON object.")
    return tensors, settings, str(path)


def _check(tensors: Mapping[str, Tensor], unet: nn.Module, *, name: str) -> tuple[list[str], int]:
    """Hold adapters against the UNet: which modules they are for, and their rank.

    Raises:
        CheckpointError: strange names, modules that aren't there, shapes that don't fit, or several ranks.
    """
    _check_names(tensors, name=name)
    shapes: dict[str, tuple[int, ...]] = {}
    for key, module in unet.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            shapes[key.removesuffix(".base_layer")] = tuple(weight.shape)
    modules = sorted({_module(key) for key in tensors})
    rank = next((tensor.shape[0] for key, tensor in tensors.items() if key.endswith(_PARTS[0])), 0)
    for module in modules:
        down, up = (tensors.get(f"{_UNET}.{module}{part}") for part in _PARTS)
        if module not in shapes or down is None or up is None:
            raise CheckpointError(
                f"{name} adapts {printable(module)}, which this UNet lacks or the file holds half of."
            )
        wide = shapes[module]
        if down.shape != (rank, wide[1]) or up.shape != (wide[0], rank):
            raise CheckpointError(
                f"{name} adapts {module} with {tuple(down.shape)} and {tuple(up.shape)}, where rank {rank} and a "
                f"weight of {wide} are expected; it was made for another model."
            )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError(f"{name} holds values that are no numbers; it is damaged.")
    return modules, rank


def _check_names(tensors: Mapping[str, Tensor], *, name: str) -> None:
    strange = [key for key in tensors if not key.startswith(f"{_UNET}.") or not key.endswith(_PARTS)]
    if strange or not tensors:
        first = printable(strange[0]) if strange else "nothing"
        raise CheckpointError(f"{name} holds {first}, where adapters of a DynamiCrafter UNet are expected.")


def _module(key: str) -> str:
    """The UNet's module that a tensor of an adapter belongs to."""
    return key.removeprefix(f"{_UNET}.").removesuffix(_PARTS[0]).removesuffix(_PARTS[1])
