"""How much memory a training takes, counted from shapes alone, and what would make it fit.

Weights, gradients, optimiser and average are counted to the byte. Activations are those of one micro-batch's forward
and backward pass on the meta device, where every allocation is on the books; a GPU's allocator takes some more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynamicrafter.architectures import FULL, TEXT_LENGTH, TINY, Architecture
from dynamicrafter.checkpoints.networks import build_empty, components_of
from dynamicrafter.errors import InputError
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.memory.counting import LiveMemory
from dynamicrafter.memory.devices import named_device
from dynamicrafter.presets import USUAL_PRESET, Preset, get_preset
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.training.config import TrainConfig
from dynamicrafter.training.optimizers import is_matrix
from dynamicrafter.training.sources import FROZEN
from dynamicrafter.training.trainee import TrainingNetworks, build_trainee, resting_dtype, trained_parameters

GB = 1e9
_HEADROOM = 0.92  # share of a device's memory that a run may plan with; the rest is the driver's and the allocator's
_BLOCK = 256  # elements that share a scale in 8-bit optimiser states
_LEAST_8BIT = 4096  # elements; smaller parameters keep 32-bit states


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on each process's device.

    Attributes:
        trained, resting: weights that train, and the rest of the networks under training.
        frozen: autoencoder and towers.
        gradients, optimizer, average: of what trains.
        copies: what autocast keeps of float32 weights in bfloat16 during a pass.
        activations: of one micro-batch; an estimate.
    """

    trained: int
    resting: int
    frozen: int
    gradients: int
    optimizer: int
    average: int
    copies: int
    activations: int

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__dataclass_fields__)


def estimate(config: TrainConfig, *, architecture: Architecture | None = None, world: int = 1) -> MemoryEstimate:
    """Count a training's memory; reads no weights and takes some seconds.

    Args:
        architecture: of the model; None for the published one, or the small one where the settings name it.
        world: processes, among which FSDP2 divides what trains.

    Raises:
        InputError: the settings name no preset.
    """
    preset = _preset(config)
    tiny = config.model == f"{SEEDED}tiny"
    architecture = architecture or (TINY if tiny else FULL)
    parts = components_of(preset)
    networks: dict[str, Any] = {name: build_empty(name, architecture, preset).to("meta") for name in parts}
    trainee = _trainee(networks, preset, config)
    parameters = trained_parameters(trainee)
    shares = world if config.sharding == "fsdp2" else 1
    trained = _bytes(parameters)
    under_training = _bytes(dict(trainee.named_parameters()))
    resting = resting_dtype(config.precision).itemsize
    kept = [] if config.cache is not None else [networks[n] for n in FROZEN if networks[n] not in trainee.children()]
    casts = config.precision == "bfloat16"
    return MemoryEstimate(
        trained=trained // shares,
        resting=(under_training - trained) // shares,
        frozen=sum(parameter.numel() for network in kept for parameter in network.parameters()) * resting,
        gradients=trained // shares,
        optimizer=optimizer_bytes(parameters, config) // shares,
        average=(0 if config.ema is None else trained) // shares,
        copies=_cast_bytes(trainee) if casts else 0,
        activations=_activations(trainee, networks, config),
    )


def optimizer_bytes(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> int:
    """Bytes of the optimiser's state once it has taken a step, step counters apart."""
    sizes = [parameter.numel() for parameter in parameters.values()]
    match config.optimizer.name:
        case "adamw8bit":
            small = sum(size for size in sizes if size < _LEAST_8BIT)
            large = sum(sizes) - small
            return 8 * small + 2 * large + 2 * 4 * large // _BLOCK
        case "muon":
            matrices = sum(p.numel() for name, p in parameters.items() if is_matrix(name, p))
            return 4 * matrices + 8 * (sum(sizes) - matrices)
        case _:
            return 8 * sum(sizes)


def table(found: MemoryEstimate, config: TrainConfig, limit: int) -> str:
    """The estimate as people read it, and what to switch on where it exceeds so many bytes."""
    names = {
        "trained": "weights that train",
        "resting": "other weights of these networks",
        "frozen": "frozen networks",
        "gradients": "gradients",
        "optimizer": f"optimiser ({config.optimizer.name})",
        "average": "running average",
        "copies": "bfloat16 copies of weights",
        "activations": f"activations ({config.batch_size} × {config.data.num_frames} frames), about",
    }
    lines = [f"{label:<48}{getattr(found, name) / GB:>8.2f} GB" for name, label in names.items()]
    lines.append(f"{'in all, about':<48}{found.total / GB:>8.2f} GB")
    lines.append(f"{'to fit':<48}{limit / GB:>8.2f} GB")
    lines += ["", *advice(found, config, limit)]
    return "\n".join(lines)


def advice(found: MemoryEstimate, config: TrainConfig, limit: int) -> list[str]:
    """One line where it fits; else what to switch on, one after the other, until it does."""
    usable = _HEADROOM * limit
    if found.total <= usable:
        return ["It fits."]
    lines = ["It doesn't fit. Switch on, in this order:"]
    for words, changed in _remedies(config):
        smaller = estimate(changed)
        if smaller.total >= found.total:
            continue
        found, config = smaller, changed
        lines.append(f"  {words:<44}{smaller.total / GB:>8.2f} GB in all")
        if found.total <= usable:
            return lines
    return [*lines, "and it still doesn't: take a smaller data.size, or several GPUs with --sharding fsdp2."]


def _remedies(config: TrainConfig) -> list[tuple[str, TrainConfig]]:
    """Each on top of those before, the least harmful first."""
    steps: list[tuple[str, dict[str, Any]]] = [
        ("--precision bfloat16", {"precision": "bfloat16"}),
        ("--set gradient_checkpointing=true", {"gradient_checkpointing": True}),
    ]
    if config.batch_size > 1:
        more = config.batch_size * config.accumulation
        steps.append((f"--batch-size 1 --accumulation {more}", {"batch_size": 1, "accumulation": more}))
    if config.trains != "everything_and_encoders":
        steps.append(("--cache FOLDER (after `data cache`)", {"cache": config.output}))
    steps.append(("--set ema=null", {"ema": None}))
    steps.append(("--optimizer adamw8bit", {"optimizer": replace(config.optimizer, name="adamw8bit")}))
    if config.trains != "lora":
        steps.append(("--trains lora", {"trains": "lora", "sharding": "none"}))
    remedies = []
    for words, change in steps:
        before, config = config, replace(config, **change)
        if config != before:
            remedies.append((words, config))
    return remedies


def training_device(config: TrainConfig) -> torch.device:
    """The device that a training with these settings takes, in a process of a launch the one that is this process's."""
    device = named_device("cpu" if config.device == "cpu" else None)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device


def _preset(config: TrainConfig) -> Preset:
    name = config.preset or config.model.removeprefix(SEEDED)
    try:
        return get_preset(USUAL_PRESET if name == TINY.name else name)
    except InputError:
        raise InputError(
            f"--dry-run knows the sizes of presets, not of {config.model}; name the preset it descends from with "
            f"--set preset=512."
        ) from None


def _trainee(networks: Mapping[str, Any], preset: Preset, config: TrainConfig) -> TrainingNetworks:
    pipeline = SimpleNamespace(**networks, scheduler=DynamiCrafterScheduler.from_preset(preset))
    return build_trainee(pipeline, config, own=False)


def _bytes(parameters: Mapping[str, nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())


def _cast_bytes(trainee: TrainingNetworks) -> int:
    """Autocast keeps a cast of each float32 weight of a product that needs a gradient, as long as a pass takes."""
    weights = (m.weight for m in trainee.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return sum(2 * weight.numel() for weight in weights if weight.requires_grad and weight.dtype == torch.float32)


def _activations(trainee: TrainingNetworks, networks: Mapping[str, Any], config: TrainConfig) -> int:
    """Most memory that a forward and a backward pass hold at once, beyond weights and their gradients.

    Changes the trainee: autocast doesn't reach the meta device, so that all is cast to what most of it computes in.
    """
    trainee.to(resting_dtype(config.precision))
    batch = _batch(trainee, networks, config)
    for parameter in trained_parameters(trainee).values():
        parameter.grad = torch.empty_like(parameter)
    with LiveMemory() as memory, _fused_attention():
        _predict(trainee, **batch).float().square().mean().backward()
    return memory.peak


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Let attention be a fused kernel's, for which the meta device would choose the one written out in full.

    PyTorch's modes, which would do this without touching the module, are off while checkpointing computes again.
    """
    kept = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = kept


def _predict(trainee: TrainingNetworks, *, clip: Tensor, timesteps: Tensor, text: Tensor, image: Tensor) -> Tensor:
    """The networks' part of the objective; noising needs values, which the meta device has none of."""
    if trainee.text_encoder is not None:
        text = trainee.text_encoder(text).last_hidden_state
    if trainee.image_encoder is not None:
        image = trainee.image_encoder(pixel_values=image).last_hidden_state
    context = trainee.image_projector(image, clip.shape[2])
    return trainee.unet(torch.cat([clip, clip], dim=1), timesteps, text, context)


def _batch(trainee: TrainingNetworks, networks: Mapping[str, Any], config: TrainConfig) -> dict[str, Tensor]:
    """Arguments of `_predict`."""
    count, (height, width) = config.batch_size, config.data.size
    factor = 2 ** (len(networks["vae"].config["block_out_channels"]) - 1)
    unet, dtype = trainee.unet.config, trainee.unet.dtype
    tower = networks["image_encoder"].config
    tokens = (tower.image_size // tower.patch_size) ** 2 + 1
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "clip": ((count, unet["out_channels"], config.data.num_frames, height // factor, width // factor), dtype),
        "timesteps": ((count,), torch.int64),
        "text": ((count, TEXT_LENGTH, unet["cross_attention_dim"]), dtype),
        "image": ((count, tokens, tower.hidden_size), dtype),
    }
    if trainee.text_encoder is not None:
        shapes["text"] = ((count, TEXT_LENGTH), torch.int64)
        shapes["image"] = ((count, 3, tower.image_size, tower.image_size), dtype)
    return {name: torch.empty(shape, dtype=kind, device="meta") for name, (shape, kind) in shapes.items()}
