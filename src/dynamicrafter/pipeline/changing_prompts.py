"""Prompts that change on the way through a long clip (FreeNoise's motion injection, arXiv:2310.15169, §3.4).

Each frame reads a text context of its own: that of the prompt it lies in, or between two prompts a mean of both. At the
first and the last steps, the layers on the way down and in the middle, which lay out the picture, read the last prompt
on every frame instead, so that the scene stays one; the layers on the way up read each frame's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.models.blocks import UNetBlock
from dynamicrafter.models.unet import Context, DynamiCrafterUNet
from dynamicrafter.pipeline.passes import PassContexts

HELD = 3 / 8  # of a clip with two prompts, that each holds before and after the way from one to the other


@dataclass(frozen=True, slots=True)
class Injection:
    """At which steps the last prompt lays out every frame: those before `until`, and those after `after`.

    The published numbers are for 50 steps, and are kept as shares of any number.
    """

    until: int = 5
    after: int = 15

    @classmethod
    def for_steps(cls, num_steps: int) -> Injection:
        """The published shares of a run of so many steps."""
        return cls(round(5 * num_steps / 50), round(15 * num_steps / 50))

    def at(self, step: int) -> bool:
        """Whether the step, from 0, is one of them."""
        return step < self.until or step > self.after


def text_by_frame(texts: Tensor, starts: Sequence[int], num_frames: int) -> Tensor:
    """The text context of each frame.

    Args:
        texts: one context for each prompt, (p, n, c).
        starts: the first frame of each prompt, ascending from 0; from there on, up to the next one's way, it holds.
            The way to a prompt takes as many frames before its start as it can, at most a quarter of the clip.
        num_frames: of the clip.

    Returns:
        (f, n, c).

    Raises:
        InputError: starts that don't ascend from 0 within the clip, one for each prompt.
    """
    check_starts(starts, count=len(texts), num_frames=num_frames)
    frames = texts[0].expand(num_frames, -1, -1).clone()
    way = max(1, num_frames - 2 * int(HELD * num_frames))
    for index, start in enumerate(starts[1:], 1):
        frames[start:] = texts[index]
        begin = max(starts[index - 1], start - way + 1)
        shares = torch.linspace(0, 1, start - begin + 1, device=texts.device, dtype=texts.dtype)[:, None, None]
        frames[begin : start + 1] = texts[index - 1] + shares * (texts[index] - texts[index - 1])
    return frames


def published_starts(num_frames: int) -> tuple[int, int]:
    """Where the two prompts of a clip begin where nothing else is said: as published."""
    held = int(HELD * num_frames)
    return 0, num_frames - held - 1


def prompts_and_starts(prompt: str, changes: Mapping[int, str], *, num_frames: int) -> tuple[list[str], list[int]]:
    """The prompts of a clip in their order, and the frame from which each holds.

    Args:
        prompt: of the beginning.
        changes: by frame, what holds from there on.

    Raises:
        InputError: frames that are not within the clip, or changes of nothing.
    """
    starts = sorted(changes)
    if not starts or not 0 < starts[0] <= starts[-1] < num_frames:
        raise InputError(
            f"prompt_changes must name frames from 1 to {num_frames - 1}, got {', '.join(map(str, starts)) or 'none'}."
        )
    return [prompt, *(changes[start] for start in starts)], [0, *starts]


def check_starts(starts: Sequence[int], *, count: int, num_frames: int) -> None:
    """Raises InputError where starts don't ascend from 0 within the clip, one for each of `count` prompts."""
    ascends = all(one < other for one, other in pairwise(starts))
    if len(starts) != count or starts[0] != 0 or not ascends or starts[-1] >= num_frames:
        raise InputError(
            f"prompt frames must ascend from 0, one for each of the {count} prompts, below {num_frames}, "
            f"got {', '.join(map(str, starts))}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class InjectingContexts:
    """The passes' keys and values at the steps that inject, and which these are."""

    contexts: PassContexts
    rule: Injection

    @classmethod
    def of(
        cls, unet: DynamiCrafterUNet, plain: PassContexts, last_text: Tensor, image: Tensor | None, *, num_steps: int
    ) -> InjectingContexts:
        """From the plain contexts, one for each pass, and the text of the last prompt, (b, n, c)."""
        last = unet.project_context(last_text, image)
        groups = tuple(
            injected(unet, context, last) if name == "conditional" else context
            for name, context in zip(plain.names, plain.groups, strict=True)
        )
        return cls(replace(plain, groups=groups), Injection.for_steps(num_steps))


def injected(unet: DynamiCrafterUNet, plain: Context, last: Context) -> Context:
    """Keys and values of a step that injects: down and middle of `last`, up of `plain`."""
    down = (unit for stage in unet.down for unit in cast("UNetBlock", stage).each_unit())
    deepest = sum(unit.spatial is not None for unit in down) + 1
    return (*last[:deepest], *plain[deepest:])
