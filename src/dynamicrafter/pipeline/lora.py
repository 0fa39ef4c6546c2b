"""Files of low-rank adapters (arXiv:2106.09685), as several tools write them, and as diffusers does.

Every tool keeps two matrices for a layer and a number alpha; a layer's weight W becomes W + alpha / rank · up · down.

    diffusers, this package   unet.LAYER.lora_A.weight, …lora_B.weight    alpha in the file's header
    PEFT                      base_model.model.LAYER.lora_A.weight, …     alpha in adapter_config.json beside it
    kohya-ss                  lora_unet_LAYER.lora_down.weight, …lora_up.weight, ….alpha; LAYER with "_" for "."

and mixtures of these. Kinds of adapters that PyTorch would have to compute otherwise are refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dynamicrafter.checkpoints.sniff import printable
from dynamicrafter.errors import CheckpointError
from dynamicrafter.pipeline.trained_motion import as_json, motion_counts

WEIGHTS = "pytorch_lora_weights.safetensors"
UNET = "unet"
_MOTIONS = "motion_numbers"
_PEFT_WEIGHTS, _PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_FLAT = "lora_unet_"  # kohya's prefix, after which "_" stands for "."
_PREFIXES = re.compile(rf"^(?:{UNET}\.|base_model\.model\.)+")
_DOWN = re.compile(r"\.(?:lora_A|lora_down|lora\.down)(?:\.default)?\.weight$")
_UP = re.compile(r"\.(?:lora_B|lora_up|lora\.up)(?:\.default)?\.weight$")
_ALPHA = ".alpha"
_OTHER_KINDS = {  # by a part of a tensor's name
    "lora_magnitude_vector": "DoRA",
    "dora_scale": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "lora_mid": "LoCon with a core of its own",
    ".diff": "whole differences of weights",
    "lora_B.bias": "adapters with biases",
    "lora_up.bias": "adapters with biases",
}
_OTHER_NETWORKS = {"text_encoder": "text encoder", "lora_te": "text encoder", "image_encoder": "image encoder"}


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to one layer's weight: alpha / rank · up · down.

    down: (rank, in) or (rank, in, h, w). up: (out, rank) or (out, rank, 1, 1).
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """Adapters as they were read, before a network is known.

    Attributes:
        name: how messages call the source.
        layers: by the layer's name in the file; after kohya's prefix still with "_" for ".".
    """

    name: str
    layers: dict[str, LowRank]


def read_adapters(source: str | Path | Mapping[str, Tensor], weight_name: str | None = None) -> AdapterFile:
    """Read adapters of any tool.

    Args:
        source: a `.safetensors` file, a folder that holds one, or tensors by name.
        weight_name: of the file in a folder.

    Raises:
        CheckpointError: the source isn't there, can't be read, or holds something else or another kind of adapter.
    """
    if isinstance(source, Mapping):
        return _assemble(source, {}, "the given adapter")
    path = lora_file(Path(source).expanduser(), weight_name)
    if not path.is_file():
        raise CheckpointError(f"{path} is not there; name a .safetensors file of adapters.")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        beside = path.with_name(_PEFT_SETTINGS)
        if header is None and path.name == _PEFT_WEIGHTS and beside.is_file():
            header = beside.read_text(encoding="utf-8")
        settings = {} if header is None else json.loads(header)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read as adapters ({printable(str(error))}).") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} describes its adapters by something else than a JSON object.")
    return _assemble(tensors, {key.removeprefix(f"{UNET}."): value for key, value in settings.items()}, str(path))


def fit_adapters(adapters: AdapterFile, unet: nn.Module) -> dict[str, LowRank]:
    """Adapters by the UNet's own names of its layers, in its shapes.

    Raises:
        CheckpointError: layers that aren't there, shapes that don't fit, or values that are no numbers.
    """
    shapes = {
        key.removesuffix(".base_layer"): _weight_shape(module)
        for key, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in key
    }
    flat = {_FLAT + name.replace(".", "_"): name for name in shapes}
    fitted = {}
    for given, layer in adapters.layers.items():
        name = flat.get(given, given)
        if name not in shapes:
            raise CheckpointError(f"{adapters.name} adapts {printable(given)}, which this UNet lacks.")
        wide = shapes[name]
        down, up = (_as_linear(each) if len(wide) == 2 else each for each in (layer.down, layer.up))
        if down.shape[1:] != wide[1:] or up.shape != (wide[0], layer.rank, *(1 for _ in wide[2:])):
            raise CheckpointError(
                f"{adapters.name} adapts {name} with {tuple(down.shape)} and {tuple(up.shape)}, where rank "
                f"{layer.rank} and a weight of {wide} are expected; it was made for another model."
            )
        fitted[name] = replace(layer, down=down, up=up)
    if not all(bool(each.isfinite().all()) for layer in fitted.values() for each in (layer.down, layer.up)):
        raise CheckpointError(f"{adapters.name} holds values that are no numbers; it is damaged.")
    return fitted


def as_peft(layers: Mapping[str, LowRank]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by PEFT's names, and the arguments of its `LoraConfig`."""
    tensors = {}
    for name, layer in layers.items():
        tensors |= {f"{name}.lora_A.weight": layer.down, f"{name}.lora_B.weight": layer.up}
    ranks, alphas = ({f"^{name}": getattr(each, kind) for name, each in layers.items()} for kind in ("rank", "alpha"))
    rank, alpha = (Counter(numbers.values()).most_common(1)[0][0] for numbers in (ranks, alphas))
    return tensors, {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(layers),
        "rank_pattern": {name: number for name, number in ranks.items() if number != rank},
        "alpha_pattern": {name: number for name, number in alphas.items() if number != alpha},
    }


def lora_state(unet: Any) -> dict[str, Tensor]:
    """The adapters on a UNet that has one set of them, by diffusers' names."""
    from peft import get_peft_model_state_dict

    adapter = next(iter(unet.peft_config))
    state = get_peft_model_state_dict(unet, adapter_name=adapter)
    return {f"{UNET}.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def write_lora(
    path: Path, tensors: Mapping[str, Tensor], *, rank: int, alpha: float, motions: Mapping[int, int] | None = None
) -> None:
    """Write adapters of one rank and alpha, as `lora_state` gives them, as a file that diffusers reads too.

    Args:
        motions: how often each motion number was trained under; see `trained_motions`.
    """
    modules = sorted({_DOWN.sub("", _UP.sub("", name)).removeprefix(f"{UNET}.") for name in tensors})
    described = {"r": rank, "lora_alpha": alpha, "target_modules": modules}
    header = lora_header(described) | ({_MOTIONS: as_json(motions)} if motions else {})
    save_file(dict(tensors), path, metadata=header)


def trained_motions(file: Path) -> Counter[int]:
    """How often the adapters in a file were trained under each motion number; empty where it doesn't say."""
    try:
        with safe_open(file, framework="pt") as opened:
            return motion_counts((opened.metadata() or {}).get(_MOTIONS))
    except (OSError, ValueError, SafetensorError):  # what reads the weights says what is wrong with it
        return Counter()


def lora_header(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """The header of a file of adapters, with PEFT's settings of them where they are known."""
    if settings is None:
        return {"format": "pt"}
    described = {f"{UNET}.{key}": value for key, value in settings.items()}
    text = json.dumps(described, indent=2, sort_keys=True, default=sorted)  # PEFT keeps sets
    return {"format": "pt", LORA_ADAPTER_METADATA_KEY: text}


def lora_file(source: str | Path, weight_name: str | None = None) -> Path:
    """The file of adapters that a path means: itself, or the one of a folder that diffusers or PEFT wrote."""
    path = Path(source)
    if not path.is_dir():
        return path
    names = (WEIGHTS, _PEFT_WEIGHTS) if weight_name is None else (weight_name,)
    return next((file for name in names if (file := path / name).is_file()), path / names[0])


def check_lora_file(source: str | Path) -> None:
    """Check what can be checked of adapters without the model that they are for.

    Raises:
        CheckpointError: the file is not there, can't be read, or holds something else.
    """
    read_adapters(source)


def _assemble(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], name: str) -> AdapterFile:
    """Bring together what belongs to one layer."""
    _check_kind(tensors, settings, name)
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, Any] = {}
    for key, tensor in tensors.items():
        bare = _PREFIXES.sub("", key)
        if (layer := _DOWN.sub("", bare)) != bare and tensor.ndim in (2, 4):
            downs[layer] = tensor
        elif (layer := _UP.sub("", bare)) != bare and tensor.ndim in (2, 4):
            ups[layer] = tensor
        elif bare.endswith(_ALPHA) and tensor.numel() == 1:
            alphas[bare.removesuffix(_ALPHA)] = tensor.item()
        else:
            raise _strange(key, name)
    if not downs:
        raise _strange("nothing", name)
    halves = (downs.keys() ^ ups.keys()) | (alphas.keys() - downs.keys())
    if halves:
        raise CheckpointError(f"{name} adapts {printable(min(halves))}, of which the file holds half.")
    of_all = _Alphas(settings, name)
    layers = {
        layer: LowRank(down, ups[layer], of_all.of(layer, rank=len(down), own=alphas.get(layer)))
        for layer, down in downs.items()
    }
    return AdapterFile(name, layers)


class _Alphas:
    """Each layer's alpha by a file's settings, with which PEFT's differently scaled ranks are reckoned in."""

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        self._name = name
        self._all = settings.get("lora_alpha")
        self._stabilized = bool(settings.get("use_rslora"))
        patterns = settings.get("alpha_pattern") or {}
        if not isinstance(patterns, dict) or any(set(key) & set("*+?[](){}|\\$") for key in patterns):
            raise CheckpointError(f"{name} sets alpha_pattern by regular expressions; write out the layers' names.")
        self._patterns = {key.removeprefix("^"): value for key, value in patterns.items()}

    def of(self, layer: str, *, rank: int, own: float | None) -> float:
        """Alpha of a layer: the file's own, or by its settings, or the rank, which scales by 1."""
        alpha = own
        if alpha is None:
            ends = (key for key in self._patterns if layer == key or layer.endswith(f".{key}"))
            alpha = self._patterns.get(next(ends, ""), self._all)
        if alpha is None:
            return rank
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise CheckpointError(f"{self._name} sets lora_alpha to {printable(repr(alpha))}, which is no number.")
        return alpha * math.sqrt(rank) if self._stabilized else alpha  # arXiv:2312.03732


def _check_kind(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], name: str) -> None:
    kinds = (kind for key in tensors for part, kind in _OTHER_KINDS.items() if part in key)
    kind = "DoRA" if settings.get("use_dora") else next(kinds, None)
    if kind is None and settings.get("peft_type", "LORA") != "LORA":
        kind = printable(str(settings["peft_type"]))
    if kind is not None:
        raise CheckpointError(f"{name} holds {kind}, and only plain LoRA is read; train or export it as that.")
    for key in tensors:
        other = next((kind for prefix, kind in _OTHER_NETWORKS.items() if key.startswith(prefix)), None)
        if other is not None:
            raise CheckpointError(
                f"{name} adapts the {other} too ({printable(key)}), and only the UNet takes adapters here; "
                f"remove those tensors to use the rest."
            )


def _strange(key: str, name: str) -> CheckpointError:
    return CheckpointError(f"{name} holds {printable(key)}, where adapters of a DynamiCrafter UNet are expected.")


def _weight_shape(layer: nn.Linear | nn.Conv2d) -> tuple[int, ...]:
    """The shape of a layer's weight, which its tensor no longer has where it is kept in 4 bits."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels, *layer.kernel_size


def _as_linear(matrix: Tensor) -> Tensor:
    """A matrix of a 1×1 convolution, as other code has it for some of the UNet's linear layers."""
    return matrix.flatten(1) if matrix.ndim == 4 and matrix.shape[2:] == (1, 1) else matrix
