"""What may make a step other than usual: convolutions that look further, contexts that change, drawings that guide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from dynamicrafter.errors import InputError
from dynamicrafter.models.dilation import dilated
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.pipeline.changing_prompts import InjectingContexts, prompts_and_starts, text_by_frame
from dynamicrafter.pipeline.larger import Dilation, plan_dilation
from dynamicrafter.pipeline.passes import PassContexts, RunMemory, run_passes
from dynamicrafter.pipeline.sketches import SketchGuide
from dynamicrafter.presets import preset_from_dict

if TYPE_CHECKING:
    from dynamicrafter.pipeline.steps import PipelineSteps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variations:
    """How the steps of a run differ from the usual ones; with none of these, they don't.

    Attributes:
        dilation: how much further convolutions look at which steps, for pictures larger than in training.
        injecting: other contexts at some steps, where prompts change on the way; the passes must be separate.
        sketch: drawings that guide the frames; the passes must be separate.
    """

    dilation: Dilation | None = None
    injecting: InjectingContexts | None = None
    sketch: SketchGuide | None = None

    @property
    def separate(self) -> bool:
        """Whether passes must go through the UNet one after the other."""
        return self.injecting is not None or self.sketch is not None

    def check(self, *, cache: float) -> None:
        """Raises InputError where deep features of one step would be taken for those of a step that differs."""
        if cache > 0 and (self.separate or self.dilation is not None):
            raise InputError(
                f"cache must be 0 with sketches, prompts that change or frames that much larger, got {cache}."
            )

    def run_step(
        self,
        unet: DynamiCrafterUNet,
        sample: Tensor,
        timestep: int,
        motion: Tensor,
        contexts: PassContexts,
        names: tuple[str, ...],
        memory: RunMemory,
        *,
        step: int,
        latents: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The answers of a step's passes, and of the damped unconditional one where there is one.

        Args:
            sample, timestep, motion, memory: as in `run_passes`.
            contexts: of all passes; `names` are those of this step.
            step: its number, from 0.
            latents: the noisy ones of the sample.
        """
        if self.injecting is not None and self.injecting.rule.at(step):
            contexts = self.injecting.contexts
        control = None if self.sketch is None else partial(self.sketch.control, latents=latents, timestep=timestep)

        def answers(some: tuple[str, ...]) -> dict[str, Tensor]:
            return run_passes(unet, sample, timestep, motion, contexts.only(some), memory, control)

        if self.dilation is None:
            return answers(names), None
        with dilated(unet, self.dilation.at(step)):
            outputs = answers(names)
        damped = self.dilation.damped_at(step)
        if not damped or "unconditional" not in names:
            return outputs, None
        with dilated(unet, damped):
            return outputs, answers(("unconditional",))["unconditional"]


USUAL = Variations()


@dataclass(frozen=True, slots=True, eq=False)
class ChangingText:
    """Text context of prompts that change on the way: by frame, (b·f, n, c), and of the last one, (b, n, c)."""

    by_frame: Tensor
    last: Tensor


def changing_text(
    pipeline: PipelineSteps, prompt: object, changes: Mapping[int, str], *, num_frames: int, num_videos: int
) -> ChangingText:
    """Encode a prompt and what comes after it.

    Raises:
        InputError: several prompts to begin with, or frames that are not within the clip.
    """
    if not isinstance(prompt, str):
        raise InputError("prompt must be one sentence where prompts change on the way.")
    prompts, starts = prompts_and_starts(prompt, changes, num_frames=num_frames)
    texts = pipeline.encode_prompt(prompts)
    frames = text_by_frame(texts, starts, num_frames)
    return ChangingText(frames.repeat(num_videos, 1, 1), texts[-1:].expand(num_videos, -1, -1))


def injecting_contexts(
    pipeline: PipelineSteps, plain: PassContexts, text: ChangingText, image: Tensor | None
) -> InjectingContexts:
    """The contexts of the steps that inject, beside the plain ones."""
    unet = pipeline.unet
    return InjectingContexts.of(
        unet,
        plain,
        text.last.to(unet.dtype),
        None if image is None else image.to(unet.dtype),
        num_steps=len(pipeline.scheduler.timesteps),
    )


def dilation_for(pipeline: PipelineSteps, *, size: tuple[int, int]) -> Dilation | None:
    """How much further a pipeline's UNet must look for frames of a (height, width)."""
    preset = preset_from_dict(pipeline.config["preset"])
    steps = len(pipeline.scheduler.timesteps)
    return plan_dilation(pipeline.unet, trained=(preset.height, preset.width), size=size, num_steps=steps)


def sketch_guide(
    pipeline: PipelineSteps, sketches: Tensor, texts: Mapping[str, Tensor], *, scale: float
) -> SketchGuide:
    """Drawings (1, 1, f, h, w) for all videos of a run, with the text of each pass.

    Raises:
        InputError: the pipeline has no sketch encoder, or the scale is out of range.
    """
    encoder = getattr(pipeline, "sketch_encoder", None)
    if encoder is None:
        raise InputError(
            "sketches need pipeline.sketch_encoder, and there is none; load_sketch_encoder reads sketch_encoder.ckpt "
            "of Doubiiu/ToonCrafter."
        )
    text = texts["conditional"]
    kind = pipeline.unet.dtype
    encoder.to(text.device, kind)
    rows = sketches.expand(len(text), -1, -1, -1, -1).to(text.device, kind)
    return SketchGuide(encoder, rows, {name: each.to(kind) for name, each in texts.items()}, scale)
