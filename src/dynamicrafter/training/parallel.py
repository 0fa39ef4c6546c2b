"""One process or many, through Accelerate: how they are set up, and what only they make different."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import filter_trackers
from accelerate.utils import FullyShardedDataParallelPlugin, GradientAccumulationPlugin, ProjectConfiguration
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dynamicrafter.errors import InputError
from dynamicrafter.training.config import TrainConfig
from dynamicrafter.training.trainee import trained_parameters

logger = logging.getLogger(__name__)

# Cross-attention's keys and values are asked for before their unit runs, so that units can't be sharded as wholes.
_FSDP = "ACCELERATE_USE_FSDP"
_OTHER_WAYS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_DYNAMO_BACKEND")
_SHARDED = ("ResidualBlock", "TemporalTransformer", "SelfAttention", "GatedFeedForward")


def build_accelerator(config: TrainConfig) -> Accelerator:
    """Accelerate as a run's settings and the launcher's environment ask for it.

    Raises:
        InputError: the tracker is unknown or not installed, Accelerate refuses the settings, or a launcher's variable
            asks for another way to train.
    """
    _refuse_other_ways(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda needs a GPU that PyTorch sees, and there is none; take auto or cpu.")
    if config.tracker is not None:
        _check_tracker(config.tracker, str(config.output))
    try:
        accelerator = Accelerator(
            mixed_precision="bf16" if config.precision == "bfloat16" else "no",
            # Not as a number, which a launcher's variable would override.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.accumulation),
            cpu=config.device == "cpu",
            log_with=config.tracker,
            project_config=ProjectConfiguration(project_dir=str(config.output), logging_dir=str(config.output)),
            fsdp_plugin=fsdp_plugin() if config.sharding == "fsdp2" else None,
        )
    except (ValueError, ImportError) as error:
        raise InputError(
            f"Accelerate must be able to train in {config.precision} on device {config.device} with sharding "
            f"{config.sharding}, and says: {str(error).splitlines()[0]}"
        ) from error
    if config.precision == "bfloat16" and emulates_bfloat16(accelerator.device):
        name = torch.cuda.get_device_name(accelerator.device)
        logger.warning("%s emulates bfloat16, which takes more time than float32; try --precision float32.", name)
    return accelerator


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether a GPU has no instructions for bfloat16, as those before NVIDIA's Ampere."""
    return device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)


def _check_tracker(tracker: str, folder: str) -> None:
    try:
        if filter_trackers([tracker], folder):
            return
        reason = "its package is not installed"
    except (ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
    raise InputError(
        f"tracker {tracker} can't be used ({reason}); install it with "
        f'pip install "dynamicrafter[train]", or take --tracker none.'
    )


def _refuse_other_ways(config: TrainConfig) -> None:
    """Refuse variables by which Accelerate would train otherwise than the settings say."""
    off = ("", "0", "false", "no")
    wrong = [name for name in _OTHER_WAYS if os.environ.get(name, "").lower() not in off]
    if config.sharding != "fsdp2" and os.environ.get(_FSDP, "").lower() not in off:
        wrong.append(_FSDP)
    if wrong:
        raise InputError(
            f"{wrong[0]} must not be set, got {os.environ[wrong[0]]!r}: a run trains as its own settings say (sharding "
            f"{config.sharding}); unset it, or launch with torchrun."
        )


def forget_processes() -> None:
    """Let the next run of this program be set up anew; Accelerate would hold it to this one's settings."""
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.pop(_FSDP, None)  # Accelerate's own note to itself
    GradientState._reset_state()


def fsdp_plugin() -> FullyShardedDataParallelPlugin:
    """FSDP2 over the parts that hold nearly all parameters; what is left is one group of its own."""
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=list(_SHARDED),
        reshard_after_forward=True,
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether parameters lie in pieces on several processes."""
    return getattr(accelerator.state, "fsdp_plugin", None) is not None


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU; every process must ask."""
    whole = {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}
    return {name: tensor.detach().cpu() for name, tensor in whole.items()}


def scattered(values: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors as `like` holds its own: on its device, and of sharded ones this process's piece."""
    placed = {}
    for name, value in values.items():
        own = like[name]
        value = value.to(own.device)
        placed[name] = distribute_tensor(value, own.device_mesh, own.placements) if isinstance(own, DTensor) else value
    return placed


def optimizer_state(accelerator: Accelerator, trainee: nn.Module, optimizer: Any) -> dict[str, Any]:
    """The optimiser's state, whole and on the CPU; every process must ask."""
    if is_sharded(accelerator):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return get_optimizer_state_dict(trainee, optimizer.optimizer, options=options)
    return optimizer.optimizer.state_dict()


def restore_optimizer(accelerator: Accelerator, trainee: nn.Module, optimizer: Any, state: Mapping[str, Any]) -> None:
    """Put back what `optimizer_state` gave."""
    if is_sharded(accelerator):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True)
        set_optimizer_state_dict(trainee, optimizer.optimizer, dict(state), options=options)
        return
    optimizer.optimizer.load_state_dict(dict(state))


def unwrapped(accelerator: Accelerator, model: Any) -> tuple[Any, dict[str, nn.Parameter]]:
    """The trainee under Accelerate's wrappers, and what trains of it as it lies now."""
    trainee = accelerator.unwrap_model(model, keep_fp32_wrapper=True)
    return trainee, trained_parameters(trainee)


def all_losses(accelerator: Accelerator, losses: Tensor, *, stop: bool) -> tuple[Tensor, bool]:
    """Every process's losses of a step in the order of positions, and whether any process was asked to stop.

    Args:
        losses: (accumulation, batch_size) of this process.
    """
    flagged = torch.cat([losses.detach().float().flatten(), losses.new_tensor([float(stop)])])
    rows = accelerator.gather(flagged[None])
    by_position = rows[:, :-1].unflatten(1, tuple(losses.shape)).transpose(0, 1).flatten()
    return by_position.cpu(), bool(rows[:, -1].any())
