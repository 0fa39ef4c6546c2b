"""From a clip's options to what its memory depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.guidance import plan_passes
from dynamicrafter.memory.advice import ClipNeeds
from dynamicrafter.specs.options import ResolvedOptions


def clip_needs(networks: Mapping[Component, Any], options: ResolvedOptions, **settings: Any) -> ClipNeeds:
    """What the memory of a clip with complete options depends on.

    Args:
        networks: the five, filled or empty.
        options: as `AnimateOptions.resolved` makes them.
        settings: further fields of `ClipNeeds`.
    """
    height, width = options.size
    return ClipNeeds(
        networks=networks,
        height=height,
        width=width,
        num_frames=options.frames,
        passes=num_passes(options),
        **settings,
    )


def num_passes(options: ResolvedOptions) -> int:
    """Passes of a guided step with complete options."""
    return len(plan_passes(options.guidance, options.separate_image_guidance, rescale=options.guidance_rescale).passes)
