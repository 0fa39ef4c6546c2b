"""What the memory measures that change numbers change: the weights in 8 bits, and the autoencoder in tiles.

    python benchmarks/measures.py examples/rocket.jpg                 # the bundled model, in 8 bits and in float8
    python benchmarks/measures.py examples/rocket.jpg --tiles 512x320  # the published autoencoder, seeded weights

Differences to the exact result are PSNRs over all pixels, in dB of the exact result's range.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dynamicrafter import Animator
from dynamicrafter.architectures import FULL
from dynamicrafter.checkpoints.load import load_network
from dynamicrafter.checkpoints.seeded import SeededTensors
from dynamicrafter.cli.parsing import parse_size
from dynamicrafter.memory.int8 import quantize
from dynamicrafter.pipeline.autoencoder import decode_frames, encode_pictures
from dynamicrafter.pipeline.inputs import as_pixels
from dynamicrafter.presets import get_preset

PROMPTS = ("the camera pans left", "the camera pans up", "the scene stands still")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--tiles", type=parse_size, metavar="WxH", help="measure tiles at this size instead")
    options = parser.parse_args()
    if options.tiles:
        measure_tiles(options.picture, options.tiles)
    else:
        measure_eight_bits(options.model, options.picture)


def measure_eight_bits(model: str, picture: Path) -> None:
    """Clips of three prompts with the UNet's weights exact, as whole numbers, and as diffusers' layerwise float8."""
    exact, whole, float8 = (Animator.from_pretrained(model, device="cpu") for _ in range(3))
    quantize(whole.pipeline.unet)
    float8.pipeline.unet.enable_layerwise_casting(torch.float8_e4m3fn, float8.pipeline.unet.dtype)
    want, rounded, cast = (clips(animator, picture) for animator in (exact, whole, float8))
    print(f"8 bits, a scale for each channel: {psnr(rounded, want):.1f} dB")
    print(f"float8 (e4m3), layer by layer:    {psnr(cast, want):.1f} dB")
    print(f"for comparison, another seed:     {psnr(clips(exact, picture, seed=7), want):.1f} dB")


def clips(animator: Animator, picture: Path, *, seed: int = 123) -> np.ndarray:
    animator.pipeline.set_progress_bar_config(disable=True)
    return np.stack([animator.animate(picture, prompt, seed=seed).frames for prompt in PROMPTS]) / 255


@torch.no_grad()
def measure_tiles(picture: Path, size: tuple[int, int]) -> None:
    """A picture through the published autoencoder with seeded weights, whole and in tiles."""
    preset = get_preset("512")
    vae = load_network(SeededTensors(FULL, preset), "vae", FULL, preset, dtype=torch.float32)
    pixels = as_pixels(Image.open(picture), height=size[0], width=size[1], fit="cover")
    latents, in_tiles = (encode_pictures(vae, pixels, None, tiled=tiled) for tiled in (False, True))
    print(f"encoding in tiles: {psnr(in_tiles.numpy(), latents.numpy()):.1f} dB")
    video, tiled = (decode_frames(vae, latents[:, :, None], chunk_size=1, tiled=tiled) for tiled in (False, True))
    print(f"decoding in tiles: {psnr(tiled.numpy(), video.numpy()):.1f} dB")
    vae.enable_tiling()
    theirs = decode_frames(vae, latents[:, :, None], chunk_size=1)
    side = vae.tile_sample_min_size
    print(f"decoding in diffusers' tiles of {side} pixels: {psnr(theirs.numpy(), video.numpy()):.1f} dB")


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    """In dB of the second's range."""
    error = np.square(one.astype(np.float64) - two).mean()
    return float(10 * np.log10((two.max() - two.min()) ** 2 / error))


if __name__ == "__main__":
    main()
