"""The networks under training as one module, and which of their parameters train."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from dynamicrafter.errors import InputError
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.randomness import generator_for
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.training.config import LoraConfig, ObjectiveConfig, Precision, TrainConfig, Trains
from dynamicrafter.training.objective import denoising_loss
from dynamicrafter.training.still_clip import keep_carrying

_TEMPORAL = re.compile(r"unet\.(.*\.)?(temporal|init_temporal)\.")
_ATTENTION = {
    "spatial": r"(self_attention|cross_attention)\.to_\w+",
    "temporal": r"attention[12]\.to_\w+",
}
_FEED_FORWARD = r"feed_forward\.proj_(in|out)"
_TRANSFORMERS = {"spatial": r".*\.spatial", "temporal": r"(.*(units\.\d+|middle)\.temporal|init_temporal)"}


class TrainingNetworks(nn.Module):
    """UNet and projector, and encoders where those train too: conditions and noise in, losses out.

    One module, so that one wrapper synchronises or shards all that trains.
    """

    def __init__(
        self,
        unet: DynamiCrafterUNet,
        image_projector: ImageProjector,
        scheduler: DynamiCrafterScheduler,
        *,
        text_encoder: Any = None,
        image_encoder: Any = None,
        objective: ObjectiveConfig | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective or ObjectiveConfig()
        self.unet = unet
        self.image_projector = image_projector
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.scheduler = scheduler

    def forward(
        self,
        *,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        image_latents: Tensor,
        text: Tensor,
        image: Tensor,
        motion: Tensor,
        given: Tensor,
    ) -> Tensor:
        """Losses of a batch, (b,), float32.

        Args:
            latents, noise, timesteps, image_latents, motion: as in `denoising_loss`.
            text: context (b, n, c), or tokens (b, n), int64, where the text encoder trains.
            image: the image encoder's tokens (b, n, c), or its input (b, 3, h, w), where it trains.
            given: (b, f), whether a frame's picture is among the conditions.
        """
        if self.text_encoder is not None:
            text = self.text_encoder(text).last_hidden_state
        if self.image_encoder is not None:
            image = self.image_encoder(pixel_values=image).last_hidden_state
        weight = self.objective.given_frames
        return denoising_loss(
            self.unet,
            self.scheduler,
            latents,
            noise=noise,
            timesteps=timesteps,
            image_latents=image_latents,
            text_context=text,
            image_context=self.image_projector(image, latents.shape[2]),
            motion=motion,
            frame_weights=None if weight == 1 else torch.where(given, weight, 1.0),
            frame_mean_weight=self.objective.frame_means,
        )


def build_trainee(pipeline: Any, config: TrainConfig, *, own: bool = True) -> TrainingNetworks:
    """Take over a pipeline's networks for training: dtypes, what trains, adapters, checkpointing.

    What trains is float32, whatever the precision that it computes in; the rest of the UNet stands in the precision
    itself where only adapters train.

    Args:
        own: copy what trains, which may be mapped from a file otherwise; False on the meta device.
    """
    encoders = config.trains == "everything_and_encoders"
    trainee = TrainingNetworks(
        pipeline.unet,
        pipeline.image_projector,
        pipeline.scheduler,
        text_encoder=pipeline.text_encoder if encoders else None,
        image_encoder=pipeline.image_encoder if encoders else None,
        objective=config.objective,
    )
    trainee.requires_grad_(False)
    _set_dtype(trainee, resting_dtype(config.precision) if config.trains == "lora" else torch.float32, own=own)
    if config.trains == "lora":
        add_lora(trainee.unet, config.lora, seed=config.seed)
    else:
        for name, parameter in trainee.named_parameters():
            parameter.requires_grad_(trains(name, config.trains))
        if isinstance(pipeline.vae, PatchAutoencoder) and pipeline.vae.carries:
            keep_carrying(trainee.unet)
    if not trainee.unet.conv_in.weight.requires_grad:
        trainee.unet.conv_in.register_forward_hook(_ask_for_gradient)
    if config.gradient_checkpointing:
        trainee.unet.enable_gradient_checkpointing()
    to: Any = nn.Module.to  # whose annotations know no memory format
    to(trainee.unet, memory_format=torch.channels_last)  # as every clip does it, so that validation changes nothing
    return trainee.train()


def resting_dtype(precision: Precision) -> torch.dtype:
    """The number format of networks that don't train."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def trains(name: str, what: Trains) -> bool:
    """Whether the trainee's parameter `name` trains; adapters apart."""
    match what:
        case "projector":
            return name.startswith("image_projector.")
        case "temporal":
            return _TEMPORAL.match(name) is not None
        case "spatial":
            return name.startswith("unet.") and _TEMPORAL.match(name) is None
        case "lora":
            return False
        case _:
            return not _unread(name)


def _unread(name: str) -> bool:
    """Parameters of CLIP's towers that no answer of theirs depends on, which would wait for a gradient for ever."""
    return name.startswith("image_encoder.") and "post_layernorm" in name


def add_lora(unet: DynamiCrafterUNet, lora: LoraConfig, *, seed: int) -> None:
    """Put trainable float32 adapters, which change nothing at first, on the UNet's transformers.

    Args:
        seed: the run's; the adapters are drawn from it and their names, so that all processes and runs draw the same.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig as PeftConfig
    except ImportError:
        raise InputError('LoRA needs peft; run pip install "dynamicrafter[train]".') from None
    unet.add_adapter(PeftConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora_targets(lora)))  # pyrefly: ignore[bad-argument-type]
    for name, parameter in unet.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            if "lora_A" in name and not parameter.is_meta:
                # peft draws from the global generator, which is not the run's.
                drawn = torch.empty(parameter.shape)
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator_for(seed, item=f"adapter {name}"))
                parameter.data.copy_(drawn)


def lora_targets(lora: LoraConfig) -> str:
    """A regular expression of the UNet's modules that get adapters."""
    kinds = ("spatial", "temporal") if lora.layers == "both" else (lora.layers,)
    wholes = []
    for kind in kinds:
        parts = {"attention": [_ATTENTION[kind]], "feed_forward": [_FEED_FORWARD]}
        chosen = parts.get(lora.parts) or [_ATTENTION[kind], _FEED_FORWARD]
        wholes += [rf"{_TRANSFORMERS[kind]}\.{part}" for part in chosen]
    return "|".join(f"({whole})" for whole in wholes)


def trained_parameters(trainee: nn.Module) -> dict[str, nn.Parameter]:
    """What trains, by name and in a fixed order."""
    return {name: parameter for name, parameter in trainee.named_parameters() if parameter.requires_grad}


def _ask_for_gradient(_module: nn.Module, _inputs: object, output: Tensor) -> None:
    """Let the first norm's input need a gradient: on a CPU, where its weights do and it doesn't, PyTorch crashes.

    A GroupNorm's backward pass over channels-last memory writes the input's gradient unasked (2.13).
    """
    if torch.is_grad_enabled():
        output.requires_grad_()


def _set_dtype(trainee: TrainingNetworks, dtype: torch.dtype, *, own: bool) -> None:
    """Cast all parameters; each gets memory of its own, as a file's may only be mapped."""
    for parameter in trainee.parameters():
        parameter.data = parameter.data.to(dtype, copy=own)
