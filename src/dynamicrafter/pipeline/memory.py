"""Whether the passes of a guided step fit into memory side by side."""

from __future__ import annotations

import psutil
import torch

from dynamicrafter.models.unet import DynamiCrafterUNet

# Live activations of one UNet call at their peak, in elements per base channel and latent element of the video:
# measured with CUDA's and the CPU's allocators at the published size (benchmarks/unet.py).
PEAK_PER_ELEMENT = 30
SHARE = 0.6  # of the device's memory; the rest is for the other networks, the allocator and other programs


def activation_bytes(unet: DynamiCrafterUNet, *, batch: int, num_frames: int, height: int, width: int) -> int:
    """Estimated peak of one call's activations.

    Args:
        height, width: of the latents.
    """
    elements = batch * num_frames * height * width * unet.config.block_out_channels[0]
    return PEAK_PER_ELEMENT * elements * torch.finfo(unet.dtype).bits // 8


def device_bytes(device: torch.device) -> int:
    """Total memory of a device. The total, not what is free, so that the same run is planned alike every time."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def passes_fit_together(
    unet: DynamiCrafterUNet, device: torch.device, *, batch: int, num_frames: int, height: int, width: int
) -> bool:
    """Whether one call on `batch` rows, all passes of all videos, fits beside the UNet's weights."""
    weights = sum(parameter.nbytes for parameter in unet.parameters())
    needed = activation_bytes(unet, batch=batch, num_frames=num_frames, height=height, width=width)
    return weights + needed < SHARE * device_bytes(device)
