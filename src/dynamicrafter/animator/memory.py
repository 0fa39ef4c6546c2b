"""From a clip's options to what its memory depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamicrafter.animator.options import AnimateOptions
from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.guidance import plan_passes
from dynamicrafter.memory.advice import ClipNeeds


def clip_needs(networks: Mapping[Component, Any], options: AnimateOptions, **settings: Any) -> ClipNeeds:
    """What the memory of a clip with complete options depends on.

    Args:
        networks: the five, filled or empty.
        options: as `AnimateOptions.resolved` makes them.
        settings: further fields of `ClipNeeds`.
    """
    assert isinstance(options.size, tuple)
    height, width = options.size
    return ClipNeeds(
        networks=networks,
        height=height,
        width=width,
        num_frames=options.frames,
        passes=num_passes(options),
        **settings,
    )


def num_passes(options: AnimateOptions) -> int:
    """Passes of a guided step with complete options."""
    assert options.guidance is not None
    assert options.guidance_rescale is not None
    return len(plan_passes(options.guidance, options.image_guidance, rescale=options.guidance_rescale).passes)
