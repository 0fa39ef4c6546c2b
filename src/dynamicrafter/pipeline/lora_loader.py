"""diffusers' calls for low-rank adapters on a pipeline; what is in a file of them is `lora.py`'s matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from diffusers.loaders.lora_base import LoraBaseMixin
from safetensors.torch import save_file
from torch import Tensor, nn

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors, replacing_file
from dynamicrafter.memory.offload import Networks, Offloader
from dynamicrafter.pipeline.lora import UNET, WEIGHTS, as_peft, fit_adapters, lora_header, read_adapters

P = ParamSpec("P")
R = TypeVar("R")


def _within(context: str) -> Callable[[Callable[Concatenate[Any, P], R]], Callable[Concatenate[Any, P], R]]:
    """Run a pipeline's method within one of its contexts."""

    def decorate(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
        @wraps(method)
        def run(self: Any, *args: P.args, **options: P.kwargs) -> R:
            with getattr(self, context)():
                return method(self, *args, **options)

        return run

    return decorate


_on_plain_unet, _on_exact_unet = _within("_plain_unet"), _within("_exact_unet")


class DynamiCrafterLoraLoader(LoraBaseMixin):
    """diffusers' calls for adapters on a pipeline, for files on this machine."""

    _lora_loadable_modules = [UNET]  # noqa: RUF012 diffusers declares it so
    unet_name = UNET
    offloader: Offloader
    networks: Networks

    @_on_exact_unet
    # pyrefly: ignore [bad-override]
    def load_lora_weights(
        self,
        source: str | Path | Mapping[str, Tensor],
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        hotswap: bool = False,
        low_cpu_mem_usage: bool = True,
    ) -> None:
        """Put adapters on the UNet, and switch them on; `set_adapters` weighs several.

        Args:
            source: a `.safetensors` file as diffusers, PEFT, kohya-ss or `train` write it, a folder that holds one, or
                tensors by name.
            adapter_name: how other calls name them; None for a name that is free.
            weight_name: of the file in a folder.
            hotswap: put them into the place of those that have this name, so that a compiled UNet stays compiled.
            low_cpu_mem_usage: spare the making of random adapters that are then replaced.

        Raises:
            InputError: peft is not installed, the name is taken, or with `hotswap` isn't.
            CheckpointError: the source can't be read, or doesn't fit this UNet.
        """
        try:
            import peft  # noqa: F401
        except ImportError:
            raise InputError('LoRA needs peft; run pip install "dynamicrafter[train]".') from None
        unet: Any = self.unet  # pyrefly: ignore[missing-attribute]
        if (adapter_name in getattr(unet, "peft_config", {})) != hotswap:
            remedy = "must name adapters that are loaded, to be swapped for" if hotswap else "is taken; choose another"
            raise InputError(f"adapter_name {adapter_name} {remedy}.")
        tensors, settings = as_peft(fit_adapters(read_adapters(source, weight_name), unet))
        unet.load_lora_adapter(
            tensors,
            prefix=None,
            adapter_name=adapter_name,
            metadata=settings,
            hotswap=hotswap,
            low_cpu_mem_usage=low_cpu_mem_usage,
            _pipeline=self,
        )

    @classmethod
    # pyrefly: ignore [bad-override]
    def save_lora_weights(
        cls,
        save_directory: str | Path,
        unet_lora_layers: Mapping[str, Tensor] | nn.Module | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        save_function: Callable[[dict[str, Tensor], str], None] | None = None,
        safe_serialization: bool = True,
        unet_lora_adapter_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write adapters as diffusers does.

        Args:
            save_directory: a folder, made where there is none.
            unet_lora_layers: as PEFT's `get_peft_model_state_dict(pipe.unet)` or `lora_state` gives them.
            is_main_process: False writes nothing, for the other processes of a training run.
            weight_name: of the file; None for diffusers' own.
            save_function: writes (tensors, path) in safetensors' stead.
            unet_lora_adapter_metadata: of the file's header, such as `pipe.unet.peft_config[name].to_dict()`. Without
                it, the file doesn't tell alpha, and is read as if alpha were the rank.

        Raises:
            InputError: no adapters, or pickles are asked for.
            OutputError: the file can't be written.
        """
        if not safe_serialization:
            raise InputError("safe_serialization must be True, as adapters are written and read as safetensors only.")
        if unet_lora_layers is None:
            raise InputError(
                "unet_lora_layers must hold adapters, got None; take peft.get_peft_model_state_dict(pipe.unet)."
            )
        if not is_main_process:
            return
        layers = unet_lora_layers.state_dict() if isinstance(unet_lora_layers, nn.Module) else unet_lora_layers
        tensors = {
            f"{UNET}.{name.removeprefix(f'{UNET}.')}": tensor.detach().contiguous() for name, tensor in layers.items()
        }
        file = Path(save_directory) / (weight_name or WEIGHTS)
        with one_line_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing_file(file) as aside:
                if save_function is not None:
                    save_function(tensors, str(aside))
                else:
                    save_file(tensors, aside, metadata=lora_header(unet_lora_adapter_metadata))

    @_on_exact_unet
    def fuse_lora(self, components: list[str] | None = None, *args: Any, **options: Any) -> None:
        """Add the adapters that are on to the weights, as diffusers does; None for all components that have some."""
        super().fuse_lora(components or [UNET], *args, **options)

    @_on_exact_unet
    def unfuse_lora(self, components: list[str] | None = None, **options: Any) -> None:
        """Take fused adapters out of the weights again; the same up to rounding."""
        super().unfuse_lora(components or [UNET], **options)

    @contextmanager
    def _plain_unet(self) -> Iterator[None]:
        """Have the UNet itself in the place of what `torch.compile` made of it.

        diffusers asks components for their class, and does nothing, without a word, where it is the compiler's.
        """
        given: Any = self.unet  # pyrefly: ignore[missing-attribute]
        self.__dict__[UNET] = getattr(given, "_orig_mod", given)
        try:
            yield
        finally:
            self.__dict__[UNET] = given

    @contextmanager
    def _exact_unet(self) -> Iterator[None]:
        """Have it with its weights read and as exact as they are, whatever a memory plan does to them otherwise."""
        offloader, plan, device = self.offloader, self.offloader.plan, self.offloader.device
        if device is not None:
            offloader.apply_plan(self.networks, None, device)
        offloader.onload(self.networks, UNET)
        try:
            with self._plain_unet():
                yield
        finally:
            if device is not None:
                offloader.apply_plan(self.networks, plan, device)


for _name in (
    "unload_lora_weights",
    "set_adapters",
    "delete_adapters",
    "disable_lora",
    "enable_lora",
    "get_active_adapters",
    "get_list_adapters",
    "set_lora_device",
):
    setattr(DynamiCrafterLoraLoader, _name, _on_plain_unet(getattr(LoraBaseMixin, _name)))
