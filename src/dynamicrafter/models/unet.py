"""The denoiser: a 2-D UNet whose every unit is followed by one along time (arXiv:2310.12190, §3; arXiv:2310.19512).

text context ─┐            ┌─ image context, its own tokens for every frame
              ▼            ▼
[noisy latents, image latents] → conv → time → down ×4 → middle → up ×4 → conv → prediction
                             ▲
    embedding of the timestep + embedding of the motion number, the same for every frame
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, cat, is_grad_enabled, nn
from torch.nn import functional as F

from dynamicrafter.errors import InputError
from dynamicrafter.kernels.layout import fold_frames, unfold_frames
from dynamicrafter.models.adaptable import Adaptable
from dynamicrafter.models.attention import ContextKeysValues, GatedFeedForward, TemporalTransformer
from dynamicrafter.models.blocks import ResidualBlock, UNetBlock, Unit, Upsample
from dynamicrafter.models.deep_features import DeepFeatures
from dynamicrafter.models.windows import TimeWindows, Window, windows_on

Context = tuple[ContextKeysValues, ...]


@dataclass
class UNetOutput(BaseOutput):
    """The prediction, (b, out_channels, f, h, w), under the name that diffusers' networks give it."""

    sample: Tensor


class DynamiCrafterUNet(Adaptable, ModelMixin, ConfigMixin):
    """Predicts v, ε or x₀ (as its scheduler says) from noisy latents, image latents, text, image and motion.

    Args:
        in_channels: noisy and image latents together.
        out_channels: of the prediction.
        block_out_channels: width of each level, from full resolution down.
        layers_per_block: units in a level on the way down; one more on the way up.
        attention_levels: for each level, whether its units attend. The middle always does.
        attention_head_dim: channels of one head, everywhere.
        init_attention_heads: heads of the temporal transformer after the first convolution.
        cross_attention_dim: width of text and image context.
        norm_num_groups: of every GroupNorm.
        dropout: in residual blocks and temporal convolutions, while training.
        learned_image_scale: weight image attention by tanh(alpha) + 1 instead of 1.
        default_motion: the motion number when none is given.
        max_frames: the most frames that temporal attention was trained for.
        reads_image: whether cross-attention has keys and values for image tokens, of each frame or of the clip.
        reads_motion: whether the motion number is embedded; else it is ignored.
        temporal_convolutions: whether residual blocks end in them.
        relative_positions: distance of frames up to which temporal attention tells them apart; None where it doesn't.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("Unit", "TemporalTransformer")
    _repeated_blocks = ["Unit"]  # noqa: RUF012 diffusers declares it so
    # Down to what has a call of its own, at which a hook can bring its weights: units and what changes the scale.
    _group_offload_block_modules = (
        "conv_in", "init_temporal", "down", "middle", "middle_out", "up", "conv_out",
        *(str(level) for level in range(8)), "resize",
    )  # fmt: skip
    _skip_layerwise_casting_patterns = ("norm", "time_embedding", "motion_embedding", "conv_in", "conv_out")

    @register_to_config
    def __init__(
        self,
        in_channels: int = 8,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (True, True, True, False),
        attention_head_dim: int = 64,
        init_attention_heads: int = 8,
        cross_attention_dim: int = 1024,
        norm_num_groups: int = 32,
        dropout: float = 0.1,
        learned_image_scale: bool = False,
        default_motion: int = 24,
        max_frames: int = 16,
        reads_image: bool = True,
        reads_motion: bool = True,
        temporal_convolutions: bool = True,
        relative_positions: int | None = None,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        if len(attention_levels) != len(widths):
            raise InputError(
                f"attention_levels must have one entry per level ({len(widths)}), got {list(attention_levels)}."
            )
        base, embedding = widths[0], 4 * widths[0]
        self.sinusoid = Timesteps(base, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(base, embedding)
        self.motion_embedding = TimestepEmbedding(base, embedding) if reads_motion else None

        attention = {
            "head_dim": attention_head_dim,
            "context_width": cross_attention_dim,
            "groups": norm_num_groups,
            "learned_scale": learned_image_scale,
            "read_image": reads_image,
        }

        def residual(wide: int, out: int) -> ResidualBlock:
            return ResidualBlock(
                wide,
                out,
                embedding=embedding,
                groups=norm_num_groups,
                dropout=dropout,
                along_time=temporal_convolutions,
            )

        def unit(wide: int, out: int, *, attends: bool) -> Unit:
            looks = attention if attends else None
            return Unit(residual(wide, out), channels=out, attention=looks, farthest=relative_positions)

        self.conv_in = nn.Conv2d(in_channels, base, 3, padding=1)
        self.init_temporal = TemporalTransformer(
            base,
            num_heads=init_attention_heads,
            head_dim=attention_head_dim,
            groups=norm_num_groups,
            farthest=relative_positions,
        )
        skips = [base]
        width = base
        self.down = nn.ModuleList()
        for level, (out, attends) in enumerate(zip(widths, attention_levels, strict=True)):
            units = [unit(width if i == 0 else out, out, attends=attends) for i in range(layers_per_block)]
            width = out
            skips += [width] * layers_per_block
            last = level == len(widths) - 1
            shrink = None if last else nn.Conv2d(width, width, 3, stride=2, padding=1)
            skips += [] if last else [width]
            self.down.append(UNetBlock(units, shrink))

        self.middle = unit(width, width, attends=True)
        self.middle_out = residual(width, width)

        self.up = nn.ModuleList()
        for level, (out, attends) in reversed(list(enumerate(zip(widths, attention_levels, strict=True)))):
            units = []
            for _ in range(layers_per_block + 1):
                units.append(unit(width + skips.pop(), out, attends=attends))
                width = out
            self.up.append(UNetBlock(units, Upsample(width) if level > 0 else None))

        self.norm_out = nn.GroupNorm(norm_num_groups, base, eps=1e-5)
        self.conv_out = nn.Conv2d(base, out_channels, 3, padding=1)
        self.gradient_checkpointing = False

    def compile_repeated_blocks(self, *args: Any, **options: Any) -> None:
        """Compile unit by unit, as diffusers does, with room for a graph of each: PyTorch keeps 8 and then gives up."""
        limits: Any = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, 2 * len(list(self._units())))
        super().compile_repeated_blocks(*args, **options)

    @property
    def takes_image_latents(self) -> bool:
        """Whether the picture's latents stand beside the noisy ones."""
        return self.config["in_channels"] > self.config["out_channels"]

    def set_part_bytes(self, num_bytes: int | None) -> None:
        """Let feed-forward layers widen their tokens in parts of so many bytes; None for what suits the device."""
        for module in self.modules():
            if isinstance(module, GatedFeedForward):
                module.part_bytes = num_bytes

    @apply_forward_hook
    def project_context(self, text_context: Tensor, image_context: Tensor | None = None) -> Context:
        """Every cross-attention's keys and values, which stay the same over a whole sampling run.

        Args:
            text_context: (b, n, c), or (b·f, n, c) where each frame has a text of its own.
            image_context: (b, f, m, c), m tokens for each frame, or (b, 1, m, c), the same for all; None where the
                network reads no picture.

        Returns:
            One entry for each unit with attention, in the order of execution; `forward` takes it as `context`.
        """
        frames = text_context[:, :0] if image_context is None else image_context.flatten(0, 1)
        return tuple(unit.project_context(text_context, frames) for unit in self._units() if unit.spatial is not None)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        text_context: Tensor | None = None,
        image_context: Tensor | None = None,
        motion: Tensor | float | None = None,
        *,
        context: Context | None = None,
        windows: TimeWindows | None = None,
        memory: DeepFeatures | None = None,
        control: Sequence[Tensor] | None = None,
        return_dict: bool | None = None,
    ) -> Tensor | UNetOutput | tuple[Tensor]:
        """Predict from latents at one noise level.

        Args:
            sample: (b, in_channels, f, h, w); f from 1 to `max_frames`, or more with `windows`; h and w divisible by 2
                per downsampling.
            timestep: (b,), or one for all videos, 0 … 999.
            text_context: (b, n, cross_attention_dim).
            image_context: (b, f, m, cross_attention_dim), or (b, 1, m, cross_attention_dim) for all frames alike; None
                where the network reads no picture.
            motion: (b,), or one for all videos, in the checkpoint's unit; None for the default.
            context: the answer of `project_context`, instead of the two contexts.
            windows: what temporal attention sees at once of a clip that is longer; shorter ones it sees as a whole.
                All else along time, convolutions and norms, sees the clip as one.
            memory: of an earlier call of the same run, whose deep features stand in where little has changed.
            control: added to each skip, in the order in which they are made, and to the middle's output; not with a
                memory. (b·f, c, h′, w′) each.
            return_dict: True for an output with `.sample`, False for a tuple, as in diffusers; left out, the tensor.

        Returns:
            (b, out_channels, f, h, w).

        Raises:
            InputError: too many frames at once, contexts that don't match the sample, or latents that can't be halved.
        """
        num_frames = sample.shape[2]
        at_once = num_frames if windows is None else min(num_frames, windows.size)
        self._check(sample, text_context, image_context, context, at_once)
        timestep = _for_each("timestep", timestep, sample)
        motion = _for_each("motion", self.config["default_motion"] if motion is None else motion, sample)
        if context is None:
            assert text_context is not None
            context = self.project_context(text_context, image_context)
        parts = None
        if windows is not None and at_once < num_frames:
            parts = windows_on(windows, num_frames, sample.device, sample.dtype)
        embedding = F.silu(self._embed(timestep, motion, sample))
        surface = self.init_temporal(self.conv_in(fold_frames(sample)), num_frames, parts)
        compute = partial(self._deep, num_frames=num_frames, parts=parts, control=control)
        if memory is None:
            hidden = compute(surface, embedding, context)
        else:
            assert control is None
            hidden = memory.recall(surface, sample.shape[0], compute, embedding, context)
        surface = surface if control is None else surface + control[0]
        last = iter(context[-1:])
        hidden = self._run(self._last_unit, cat([hidden, surface], dim=1), embedding, last, num_frames, parts)
        answer = unfold_frames(self.conv_out(F.silu(self.norm_out(hidden))), num_frames)
        if return_dict is None:
            return answer
        return UNetOutput(sample=answer) if return_dict else (answer,)

    @property
    def _last_unit(self) -> Unit:
        """The unit that joins what came from the depth with what never left the surface."""
        return _blocks(self.up)[-1].each_unit()[-1]

    def _deep(
        self,
        surface: Tensor,
        embedding: Tensor,
        context: Context,
        num_frames: int,
        parts: Sequence[Window] | None,
        control: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """All units but the last, which joins the answer with `surface`; (b·f, c, h, w)."""
        contexts = iter(context)
        hidden = surface
        skips = [hidden]
        for block in _blocks(self.down):
            for unit in block.each_unit():
                hidden = self._run(unit, hidden, embedding, contexts, num_frames, parts)
                skips.append(hidden)
            if block.resize is not None:
                hidden = block.resize(hidden)
                skips.append(hidden)

        hidden = self._run(self.middle, hidden, embedding, contexts, num_frames, parts)
        hidden = self.middle_out(hidden, embedding, num_frames)
        if control is not None:
            hidden = hidden + control[-1]
            skips = [skip + added for skip, added in zip(skips, control[:-1], strict=True)]

        last = self._last_unit
        for block in _blocks(self.up):
            for unit in (each for each in block.each_unit() if each is not last):
                hidden = self._run(unit, cat([hidden, skips.pop()], dim=1), embedding, contexts, num_frames, parts)
            if block.resize is not None:
                hidden = block.resize(hidden)
        return hidden

    def _units(self) -> Iterator[Unit]:
        """Units in the order of execution."""
        for block in _blocks(self.down):
            yield from block.each_unit()
        yield self.middle
        for block in _blocks(self.up):
            yield from block.each_unit()

    def _run(
        self,
        unit: Unit,
        hidden: Tensor,
        embedding: Tensor,
        contexts: Iterator[ContextKeysValues],
        num_frames: int,
        windows: Sequence[Window] | None,
    ) -> Tensor:
        context = next(contexts) if unit.spatial is not None else None
        if self.gradient_checkpointing and is_grad_enabled():
            checkpoint: Any = self._gradient_checkpointing_func
            return checkpoint(unit, hidden, embedding, context, num_frames, windows)
        return unit(hidden, embedding, context, num_frames, windows)

    def _embed(self, timestep: Tensor, motion: Tensor, sample: Tensor) -> Tensor:
        """Sum of the embeddings of timestep and motion number, (b, 4·base)."""
        time = self.time_embedding(self.sinusoid(timestep).to(sample.dtype))
        if self.motion_embedding is None:
            return time
        return time + self.motion_embedding(self.sinusoid(motion).to(sample.dtype))

    def _check(
        self, sample: Tensor, text: Tensor | None, image: Tensor | None, context: Context | None, at_once: int
    ) -> None:
        num_frames, most = sample.shape[2], self.config["max_frames"]
        if not 1 <= at_once <= most:
            name = "num_frames" if at_once == num_frames else "window"
            raise InputError(f"{name} must be between 1 and {most}, got {at_once}; try {most}.")
        halvings = 2 ** (len(self.config["block_out_channels"]) - 1)
        if sample.shape[3] % halvings or sample.shape[4] % halvings:
            raise InputError(
                f"latent height and width must be multiples of {halvings}, got {tuple(sample.shape[3:])}; "
                f"pad or crop the picture."
            )
        reads = self.config["reads_image"]
        if (text is None or (image is None) == reads) == (context is None):
            raise InputError(
                f"the UNet takes text_context {'and' if reads else 'without'} image_context, or context in their stead."
            )
        if image is not None and tuple(image.shape[:2]) not in {(sample.shape[0], many) for many in (1, num_frames)}:
            raise InputError(
                f"image_context must be (batch, frames, tokens, width) with batch and frames "
                f"{(sample.shape[0], num_frames)} like the sample, got {tuple(image.shape)}."
            )


def _for_each(name: str, number: Tensor | float, sample: Tensor) -> Tensor:
    """One number for each video, (b,), of one for all or of as many."""
    numbers = torch.as_tensor(number, device=sample.device).reshape(-1)
    if numbers.shape[0] not in (1, sample.shape[0]):
        raise InputError(f"{name} must be one number or {sample.shape[0]}, as many as videos, got {numbers.shape[0]}.")
    return numbers.expand(sample.shape[0])


def _blocks(levels: nn.ModuleList) -> list[UNetBlock]:
    """The list's entries, with the type that PyTorch's containers don't keep."""
    return cast("list[UNetBlock]", list(levels))
