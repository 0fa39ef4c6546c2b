"""A network that low-rank adapters (arXiv:2106.09685) can be put on, and that is saved as weights without them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from typing import Any

from accelerate import init_empty_weights
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from dynamicrafter.errors import InputError


class Adaptable(PeftAdapterMixin):
    """Comes before diffusers' `ModelMixin` among a network's bases."""

    @wraps(ModelMixin.save_pretrained)  # whose arguments diffusers' pipelines look up before they pass them on
    def save_pretrained(self, save_directory: Any, *args: Any, **options: Any) -> None:
        """Write settings and weights as diffusers does; adapters that were fused are in the weights.

        Raises:
            InputError: adapters are on that were not fused.
        """
        self.check_savable()
        parent: Any = super()
        if any(_adapted(self)):
            self._without_adapters().save_pretrained(save_directory, *args, **options)
        else:
            parent.save_pretrained(save_directory, *args, **options)

    def check_savable(self) -> None:
        """Raises InputError where adapters are on that were not fused, which a file of weights would leave out."""
        if any(not (layer.merged or layer.disable_adapters) for layer in _adapted(self)):
            names = ", ".join(getattr(self, "peft_config", {}))
            raise InputError(
                f"the UNet can't be saved with adapters on ({names}), as its file holds weights alone; fuse_lora() "
                f"first to have them in the weights, or unload_lora_weights() and save them by save_lora_weights()."
            )

    def _without_adapters(self) -> Any:
        """A network of the same weights in the same memory, without the adapters' layers."""
        network: Any = self
        with init_empty_weights(include_buffers=False):
            bare = type(network).from_config(network.config)
        state = {
            key.replace(".base_layer.", "."): tensor
            for key, tensor in network.state_dict().items()
            if ".lora_" not in key
        }
        bare.load_state_dict(state, assign=True)
        return bare


def _adapted(network: Any) -> Iterator[Any]:
    """The layers that PEFT has put adapters on."""
    modules: Iterator[nn.Module] = network.modules()
    return (module for module in modules if hasattr(module, "base_layer") and hasattr(module, "merged"))
