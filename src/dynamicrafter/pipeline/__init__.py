"""The recipe: encode the picture and the prompt, denoise latents, decode frames; no files, no prints."""

from __future__ import annotations

from dynamicrafter.pipeline.pipeline import DynamiCrafterPipeline, DynamiCrafterPipelineOutput

__all__ = ["DynamiCrafterPipeline", "DynamiCrafterPipelineOutput"]
