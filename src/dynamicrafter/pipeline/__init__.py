"""The recipe: encode the picture and the prompt, denoise latents, decode frames. Nothing here prints.

pipeline.py    the call, and the constructors
steps.py       what the call does, a public method for each step
inputs.py      arguments, checked; outputs.py, frames as asked for
passes.py      guidance passes through the UNet
memory.py      what a run takes, and what makes it fit; residency.py (with groups.py, eight_bits.py, …) does it
autoencoder.py pixels to latents and back; tiles.py, piece by piece
loading.py     from a name to networks; convert.py, from a layout to another
"""

from __future__ import annotations

from dynamicrafter.pipeline.pipeline import DynamiCrafterPipeline, DynamiCrafterPipelineOutput

__all__ = ["DynamiCrafterPipeline", "DynamiCrafterPipelineOutput"]
