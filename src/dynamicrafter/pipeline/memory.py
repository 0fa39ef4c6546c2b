"""Whether the passes of a guided step fit into memory side by side."""

from __future__ import annotations

import psutil
import torch

from dynamicrafter.models.unet import DynamiCrafterUNet

# Activations of one UNet call at their peak: so many elements per base channel and latent element of the video, and the
# parts in which the feed-forward widens its tokens. `accounting.count_call` finds 17 (one row) to 18 (several) at the
# published widths, from 256×256 to 1024×1024 pixels, for 1 to 16 frames and in every dtype; a test holds it. Nothing
# grows faster than the video, as fused attention keeps no matrix of pairs. PyTorch's own record on a CPU is the same to
# the byte; a process grows by up to 0.9 GB more there (measured at 320×512), which glibc keeps in the gaps of its heap.
PEAK_PER_ELEMENT = 18
PARTS_BYTES = 48 * 2**20
SHARE = 0.6  # of the device's memory; the rest is for the other networks, the allocator and other programs


def activation_bytes(unet: DynamiCrafterUNet, *, batch: int, num_frames: int, height: int, width: int) -> int:
    """Peak of one call's activations; for the published widths, as no narrower UNet comes near a machine's memory.

    Args:
        height, width: of the latents.
    """
    elements = batch * num_frames * height * width * unet.config["block_out_channels"][0]
    return PEAK_PER_ELEMENT * elements * unet.dtype.itemsize + PARTS_BYTES


def device_bytes(device: torch.device) -> int:
    """Total memory of a device. The total, not what is free, so that the same run is planned alike every time."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def passes_fit_together(
    unet: DynamiCrafterUNet, device: torch.device, *, batch: int, num_frames: int, height: int, width: int
) -> bool:
    """Whether one call on `batch` rows, all passes of all videos, fits beside the UNet's weights."""
    memory = device_bytes(device)
    return fits_together(unet, memory, batch=batch, num_frames=num_frames, height=height, width=width)


def fits_together(
    unet: DynamiCrafterUNet, memory_bytes: int, *, batch: int, num_frames: int, height: int, width: int
) -> bool:
    """The same for a device with so much memory; `height` and `width` are of the latents."""
    weights = sum(parameter.nbytes for parameter in unet.parameters())
    needed = activation_bytes(unet, batch=batch, num_frames=num_frames, height=height, width=width)
    return weights + needed < SHARE * memory_bytes
