"""Weights that can be read again from where they came, and so may be dropped while nobody needs them.

The place is remembered with each network, and holds for it alone: another network that takes its place in a pipeline
has none, and one that was changed since it was read keeps its weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.errors import InputError
from dynamicrafter.memory.changes import TensorSnapshot, is_plain

logger = logging.getLogger(__name__)

ReadNetwork = Callable[[], nn.Module]
Reload = Callable[[Component], nn.Module]  # the same for any network of a pipeline

_ATTRIBUTE = "_weight_source"


class WeightSource:
    """Where a network's weights can be read again.

    Args:
        read: makes an equal network anew, filled.
    """

    def __init__(self, read: ReadNetwork) -> None:
        self.read = read
        self._snapshot: TensorSnapshot | None = None
        self._dtypes: dict[str, torch.dtype] = {}  # in which the weights were read first

    def note(self, network: nn.Module) -> None:
        """Take a network's weights of this moment for those that would be read."""
        tensors = base_weights(network)
        self._snapshot = TensorSnapshot(tensors) if all(map(is_plain, tensors.values())) else None
        self._dtypes = self._dtypes or {name: tensor.dtype for name, tensor in tensors.items()}

    def looks_right(self, network: nn.Module) -> bool:
        """Whether nothing tells that the network was changed since; reads no values."""
        return self._snapshot is not None and self._snapshot.looks_like(base_weights(network))

    def is_right(self, network: nn.Module) -> bool:
        """Whether the network's weights are those that would be read."""
        return self._snapshot is not None and self._snapshot.still_holds(base_weights(network))

    def is_as_read(self, network: nn.Module) -> bool:
        """Whether the network's weights are those that would be read, in the number formats that they are read in."""
        dtypes = {name: tensor.dtype for name, tensor in base_weights(network).items()}
        return dtypes == self._dtypes and self.is_right(network)

    def forget(self) -> None:
        """Never read again: the network is another one now."""
        self._snapshot = None

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightSource:
        return WeightSource(self.read)

    def __reduce__(self) -> tuple[Any, ...]:
        return WeightSource, (self.read,)


def remember_source(network: nn.Module, read: ReadNetwork) -> None:
    """Remember where a network's weights can be read again.

    Args:
        network: as it was read, or unloaded.
        read: see `WeightSource`.
    """
    source = WeightSource(read)
    setattr(_plain(network), _ATTRIBUTE, source)
    if not is_unloaded(network):
        source.note(network)


def source_of(network: nn.Module) -> WeightSource | None:
    return getattr(_plain(network), _ATTRIBUTE, None)


def is_unloaded(network: nn.Module) -> bool:
    """Whether a network's weights were dropped, or never read."""
    return not is_hooked(network) and any(parameter.is_meta for parameter in network.parameters())


def is_hooked(network: nn.Module) -> bool:
    """Whether Accelerate moves a network's weights, of which some may wait on the meta device."""
    return hasattr(network, "_hf_hook")


def can_unload(network: nn.Module) -> bool:
    """Whether a network's weights may be dropped, as far as can be told without reading them."""
    source = source_of(network)
    if is_unloaded(network):
        return True
    if source is None or is_hooked(network):
        return False
    return not getattr(network, "peft_config", None) and source.looks_right(network)


def unload(network: nn.Module) -> bool:
    """Drop a network's weights if they can be read again as they are.

    Returns:
        Whether they are gone.
    """
    if is_unloaded(network):
        return True
    source = source_of(network)
    if source is None or not can_unload(network):
        return False
    if not source.is_right(network):
        logger.warning("A %s was changed since it was read, and stays in memory.", type(network).__name__)
        source.forget()
        return False
    network.load_state_dict({key: tensor.to("meta") for key, tensor in network.state_dict().items()}, assign=True)
    return True


def load(network: nn.Module, *, finish: Callable[[nn.Module], None] | None = None) -> None:
    """Read the weights of a network that is unloaded, in the number formats that it has now.

    Args:
        finish: what is to be done to weights that were just read.

    Raises:
        InputError: nobody knows from where.
    """
    if not is_unloaded(network):
        return
    source = source_of(network)
    if source is None:
        raise InputError(
            f"the {type(network).__name__} must have weights, and is on the meta device; load it before it is used."
        )
    read = source.read().state_dict()
    missing = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_meta}
    state = {name: read[_base_name(name)].to(tensor.dtype) for name, tensor in missing.items()}
    network.load_state_dict(state, strict=False, assign=True)
    if finish is not None:
        finish(network)
    source.note(network)


def base_weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's tensors by the names that they have without adapters, which are left out."""
    tensors = network.state_dict(keep_vars=True)
    return {_base_name(name): tensor for name, tensor in tensors.items() if ".lora_" not in name}


def _base_name(name: str) -> str:
    return name.replace(".base_layer", "").removeprefix("_orig_mod.")


def _plain(network: nn.Module) -> nn.Module:
    """The network that `torch.compile` wrapped."""
    return getattr(network, "_orig_mod", network)
