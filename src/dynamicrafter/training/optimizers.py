"""Optimisers by name, and the running average of what they train."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dynamicrafter.errors import InputError
from dynamicrafter.training.config import OptimizerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator


# By which Muon tells embeddings, first and last layers from the matrices inside networks.
_TABLES = ("embeddings", "conv_in", "conv_out", "queries")


def build_optimizer(trainee: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimiser of what trains, whose groups remember their rate as "initial_lr".

    Raises:
        InputError: its package is not installed.
    """
    parameters = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
    common: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    match config.name:
        case "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, **common)
        case "adamw8bit":
            try:
                from bitsandbytes.optim import AdamW8bit  # pyrefly: ignore[missing-import]
            except ImportError:
                raise InputError(
                    "optimizer.name adamw8bit needs bitsandbytes; run pip install bitsandbytes, or take adamw."
                ) from None
            optimizer = AdamW8bit(parameters, **common)
        case "muon":
            from dynamicrafter.training.muon import Muon, muon_groups

            groups = muon_groups({"trainee": trainee}, tables=_TABLES)
            optimizer = Muon(groups, matrix_lr=config.matrix_lr, momentum=config.momentum, **common)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon makes a parameter's steps orthogonal."""
    return parameter.ndim >= 2 and not any(part in name for part in _TABLES)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its initial one times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


class Average:
    """An exponential running average of parameters, in float32.

    Args:
        parameters: by name; their values are where it starts.
        decay: how much of the average stays at each update. It rises from 0.1 to this, so that the start, which says
            least, is soon forgotten.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.values = {name: tensor.detach().float().clone() for name, tensor in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], *, step: int) -> None:
        """Take in the parameters after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach().float(), 1 - decay)

    @contextmanager
    def in_place_of(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the parameters hold the average meanwhile."""
        kept = {name: parameters[name].detach().clone() for name in self.values}
        copy_into(parameters, self.values)
        try:
            yield
        finally:
            copy_into(parameters, kept)


@torch.no_grad()
def copy_into(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Set parameters by name, keeping their memory, device and number format."""
    for name, value in values.items():
        parameters[name].copy_(value)
