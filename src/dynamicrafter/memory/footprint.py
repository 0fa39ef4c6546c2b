"""What the parts of a run take in memory, in closed form from shapes alone, so that asking costs no time.

The constants are counts of live tensors on the meta device (`counting.count_call`), and tests hold them against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import dtype_for
from dynamicrafter.memory.blocks import blocks_bytes
from dynamicrafter.memory.int8 import quantized_bytes, widest_weight_bytes
from dynamicrafter.memory.tiles import Autoencoder, pixels_of_a_latent, tile_pixels
from dynamicrafter.models.unet import DynamiCrafterUNet

# Activations of one UNet call at their peak: so many elements per base channel and latent element of the video, and the
# parts in which the feed-forward widens its tokens. `counting.count_call` finds 16 (one row) to 17 (several) at the
# published widths, for short clips and for long ones in windows, and in every dtype. Nothing grows faster than the
# video, as fused attention keeps no matrix of pairs. PyTorch's own record on a CPU is the same to the byte.
PEAK_PER_ELEMENT = 17
PARTS_BYTES = 48 * 2**20
# Where no fused kernel spares the scores of attention (Apple's GPU): bytes of a part of them, and
SCORES_BYTES = 512 * 2**20
_COPIES_OF_SCORES = 2.5  # float32 scores, as much of their softmax, and half as much of its cast
# The same for the published autoencoder, per pixel and base channel, and for CLIP's towers, per token and channel.
ENCODING_PER_PIXEL = 5.1
DECODING_PER_PIXEL = 7.6
CONDITIONING_PER_TOKEN = 14
# The bundled model's autoencoder has no width that all its parts share; per pixel.
PATCHES_PER_PIXEL = 120

_ROUNDING = 3  # times the decoded video in float32, while it is turned into whole numbers
_SCALING_BYTES = 16 * 2**20  # for a picture that is blurred and scaled for CLIP, in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the parts of a run take, in bytes: all that a plan is made of.

    Attributes:
        weights: of each network.
        weights_int8: of the UNet in 8 bits, with the largest weight widened.
        blocks, blocks_int8: of the UNet's weights on the device at once when its blocks come one by one.
        encoding, conditioning, decoding: activations at their peak.
        encoding_tiled, decoding_tiled: the same in tiles; no less where the autoencoder knows none.
        denoising, denoising_together: of one pass, and of all passes of a step as one batch.
        scores: of attention, beside the activations, where no fused kernel spares them.
        decode_chunk_size: frames decoded at a time.
        fixed: networks that can't leave, as their weights are no file's.
    """

    weights: Mapping[Component, int]
    weights_int8: int
    blocks: int
    blocks_int8: int
    encoding: int
    encoding_tiled: int
    conditioning: int
    denoising: int
    denoising_together: int
    decoding: int
    decoding_tiled: int
    scores: int = 0
    decode_chunk_size: int = 1
    fixed: frozenset[Component] = frozenset()


def measure_footprint(
    networks: Mapping[Component, Any],
    *,
    height: int,
    width: int,
    num_frames: int,
    passes: int,
    videos: int = 1,
    decode_chunk_size: int = 1,
    dtype: torch.dtype | None = None,
    fixed: frozenset[Component] = frozenset(),
) -> Footprint:
    """What a run's parts take, from shapes alone.

    Args:
        networks: all that the model has, filled or empty.
        height, width: pixels, multiples of 64.
        num_frames: that go through the UNet at once.
        passes: of a guided step, 1 to 3.
        videos: made as one batch.
        decode_chunk_size: frames decoded at a time.
        dtype: of the networks, as if they were cast to it; None for the one that they have.
        fixed: networks that can't leave.
    """
    unet, vae = networks["unet"], networks["vae"]
    sizes = {name: _itemsize(name, networks[name], dtype) for name in networks}
    of_unet = sizes["unet"]
    factor = pixels_of_a_latent(vae)
    latent = {"num_frames": num_frames, "height": height // factor, "width": width // factor, "itemsize": of_unet}
    contexts = _context_bytes(networks, rows=videos * passes, num_frames=num_frames, itemsize=of_unet)
    pixels, tile = height * width, min(height, tile_pixels(vae)) * min(width, tile_pixels(vae))
    picture = 3 * pixels * torch.float32.itemsize
    encoding, decoding = _per_pixel(vae, sizes["vae"])
    video, chunk = videos * num_frames * picture, min(decode_chunk_size, videos * num_frames)
    widest = widest_weight_bytes(unet, of_unet)
    return Footprint(
        weights={name: weight_bytes(networks[name], sizes[name]) for name in networks},
        weights_int8=quantized_bytes(unet, of_unet) + widest,
        blocks=blocks_bytes(unet, lambda part: weight_bytes(part, of_unet)),
        blocks_int8=blocks_bytes(unet, lambda part: quantized_bytes(part, of_unet)) + widest,
        encoding=int(videos * (encoding * pixels + 2 * picture)),
        encoding_tiled=int(encoding * tile + videos * 3 * picture),
        conditioning=_conditioning_bytes(networks, rows=videos, itemsize=sizes["text_encoder"]) + contexts,
        denoising=contexts + activation_bytes(unet, batch=videos, **latent),
        denoising_together=contexts + activation_bytes(unet, batch=videos * passes, **latent),
        decoding=int(max(chunk * decoding * pixels + video, _ROUNDING * video)),
        decoding_tiled=int(max(chunk * (decoding * tile + 3 * picture) + video, _ROUNDING * video)),
        scores=_score_bytes(unet, rows=videos * num_frames, tokens=latent["height"] * latent["width"]),
        decode_chunk_size=decode_chunk_size,
        fixed=fixed,
    )


def weight_bytes(network: nn.Module, itemsize: int) -> int:
    """Bytes of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters()) * itemsize


def activation_bytes(
    unet: DynamiCrafterUNet, *, batch: int, num_frames: int, height: int, width: int, itemsize: int
) -> int:
    """Peak of one call's activations; for the published widths, as no narrower UNet comes near a machine's memory.

    Args:
        height, width: of the latents.
        itemsize: bytes of a number.
    """
    elements = batch * num_frames * height * width * unet.config["block_out_channels"][0]
    return PEAK_PER_ELEMENT * elements * itemsize + PARTS_BYTES


def _score_bytes(unet: DynamiCrafterUNet, *, rows: int, tokens: int) -> int:
    """Scores of the largest attention, or of a part of them, in float32, with their softmax and its cast.

    Args:
        rows: frames of all videos in one pass.
        tokens: of a frame.
    """
    heads = unet.config["block_out_channels"][0] // unet.config["attention_head_dim"]
    scores = rows * heads * tokens**2 * torch.float32.itemsize
    return int(_COPIES_OF_SCORES * min(scores, SCORES_BYTES))


def _itemsize(name: Component, network: nn.Module, dtype: torch.dtype | None) -> int:
    """Bytes of a number in a network at work; an autoencoder in float16 works in float32."""
    kinds = (parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    own = next(kinds, torch.float32)
    works_in = dtype_for(name, dtype or own)
    assert works_in is not None
    return works_in.itemsize


def _per_pixel(vae: Autoencoder, itemsize: int) -> tuple[float, float]:
    """Bytes of activations for each pixel of a picture that is encoded, and of one that is decoded."""
    widths = vae.config.get("block_out_channels")
    if widths is None:
        return PATCHES_PER_PIXEL * itemsize, PATCHES_PER_PIXEL * itemsize
    return ENCODING_PER_PIXEL * widths[0] * itemsize, DECODING_PER_PIXEL * widths[0] * itemsize


def _conditioning_bytes(networks: Mapping[Component, Any], *, rows: int, itemsize: int) -> int:
    text = networks["text_encoder"].config
    elements = text.max_position_embeddings * text.hidden_size
    scaling = 0
    if "image_encoder" in networks:
        image = networks["image_encoder"].config
        tokens = (image.image_size // image.patch_size) ** 2 + 1
        elements, scaling = max(elements, tokens * image.hidden_size), _SCALING_BYTES
    return rows * (CONDITIONING_PER_TOKEN * elements * itemsize + scaling)


def image_context_shape(networks: Mapping[Component, Any], num_frames: int) -> tuple[int, int, int] | None:
    """Frames, tokens of each, and width of the context that a model makes of a clip's picture; None where it has none.

    Where frames share their tokens, that counts as one frame.
    """
    if "image_projector" not in networks:
        return None
    config = networks["image_projector"].config
    return 1 if config["num_frames"] == 1 else num_frames, config["num_queries"], config["output_width"]


def _context_bytes(networks: Mapping[Component, Any], *, rows: int, num_frames: int, itemsize: int) -> int:
    """Keys and values of text and picture, which stay over the run."""
    layers = (module for name, module in networks["unet"].named_modules() if name.endswith("to_v_text"))
    widths = sum(layer.out_features for layer in layers)
    tokens = networks["text_encoder"].config.max_position_embeddings
    of_image = image_context_shape(networks, num_frames)
    tokens += 0 if of_image is None else of_image[0] * of_image[1]
    return 2 * rows * tokens * widths * itemsize
