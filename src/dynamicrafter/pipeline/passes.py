"""The passes of a guided step through the UNet: what each is conditioned on, and how they are sent through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicrafter.models.attention import ContextKeysValues
from dynamicrafter.models.deep_features import DeepFeatures
from dynamicrafter.models.unet import Context, DynamiCrafterUNet
from dynamicrafter.models.windows import TimeWindows


@dataclass(slots=True)
class PassContexts:
    """Keys and values for the passes of every step.

    `groups` holds them in the order of `names`: one joint entry, all passes of all videos in one batch, or one entry
    for each pass. `windows` is what the UNet sees at once of a long clip.
    """

    names: tuple[str, ...]
    groups: tuple[Context, ...]
    windows: TimeWindows | None = None

    def separate(self) -> PassContexts:
        """The same passes, to be sent one after the other."""
        if len(self.groups) == len(self.names):
            return self
        (joint,) = self.groups
        parts = [[tensor.chunk(len(self.names)) for tensor in layer] for layer in joint]
        groups = tuple(
            tuple(ContextKeysValues(*(tensor[index] for tensor in layer)) for layer in parts)
            for index in range(len(self.names))
        )
        return PassContexts(self.names, groups, self.windows)

    def only(self, names: tuple[str, ...]) -> PassContexts:
        """Some of the passes; in one batch where these are all that there are."""
        if names == self.names:
            return self
        groups = self.separate().groups
        return PassContexts(names, tuple(groups[self.names.index(name)] for name in names), self.windows)


class RunMemory:
    """Deep features of each pass of a run, kept from step to step; none where the tolerance is 0.

    Args:
        tolerance: see `DeepFeatures`.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self._passes: dict[str, DeepFeatures] = {}

    def of(self, name: str) -> DeepFeatures | None:
        """What one pass keeps."""
        if self.tolerance == 0:
            return None
        return self._passes.setdefault(name, DeepFeatures(tolerance=self.tolerance))


def project_passes(
    unet: DynamiCrafterUNet,
    sources: Mapping[str, tuple[Tensor, Tensor | None]],
    *,
    together: bool,
    windows: TimeWindows | None = None,
) -> PassContexts:
    """Project text and image context of each pass once for the whole run.

    Args:
        sources: for each pass text context (b, n, c) and image context (b, f, m, c), if the model reads pictures.
        together: send all passes through the UNet as one batch.
    """
    names = tuple(sources)
    texts, images = zip(*sources.values(), strict=True)
    if together:
        image = None if images[0] is None else torch.cat(images)
        return PassContexts(names, (unet.project_context(torch.cat(texts), image),), windows)
    return PassContexts(names, tuple(unet.project_context(*pair) for pair in sources.values()), windows)


def run_passes(
    unet: DynamiCrafterUNet,
    sample: Tensor,
    timestep: int,
    motion: Tensor,
    contexts: PassContexts,
    memory: RunMemory | None = None,
    control: Callable[[str], list[Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Send one step's passes through the UNet.

    Args:
        sample: (b, 8, f, h, w), noisy and image latents, or (b, 4, f, h, w), noisy ones alone.
        motion: (b,).
        memory: of the run's earlier steps; the passes must then be separate.
        control: what each pass adds to the UNet's features; the passes must then be separate.

    Returns:
        The prediction of each pass, (b, 4, f, h, w).
    """
    times = len(contexts.names) // len(contexts.groups)
    rows = sample.repeat(times, 1, 1, 1, 1)
    timesteps = torch.full((rows.shape[0],), timestep, device=sample.device)
    kept = [None if memory is None else memory.of(name) for name in contexts.names][: len(contexts.groups)]
    added = [None if control is None else control(name) for name in contexts.names][: len(contexts.groups)]
    outputs: Sequence[Tensor] = [
        unet(
            rows,
            timesteps,
            motion=motion.repeat(times),
            context=context,
            windows=contexts.windows,
            memory=features,
            control=controls,
        )
        for context, features, controls in zip(contexts.groups, kept, added, strict=True)
    ]
    return dict(zip(contexts.names, torch.cat(list(outputs)).chunk(len(contexts.names)), strict=True))
