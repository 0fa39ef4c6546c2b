"""The recipe: encode the picture and the prompt, denoise latents, decode frames. Nothing here prints.

pipeline.py    the call, and the constructors
steps.py       what the call does, a public method for each step
inputs.py      arguments, checked; outputs.py, frames as asked for
passes.py      guidance passes through the UNet
autoencoder.py pixels to latents and back
loading.py     from a name to networks; convert.py, from a layout to another
"""

from __future__ import annotations

from dynamicrafter.pipeline.pipeline import DynamiCrafterPipeline, DynamiCrafterPipelineOutput

__all__ = ["DynamiCrafterPipeline", "DynamiCrafterPipelineOutput"]
