"""Frames that are held to pictures while the others are made.

Where a frame's clean latents z are known, the network is not asked about them: at every step its answer for that frame
is replaced by what a perfect network would say, and the scheduler carries the frame on with the others. The frame is
then z, noised to each level in turn, whichever sampler walks the levels, with fresh noise or without, and whatever a
sampler remembers of earlier steps is true of it.

What the network gets wrong about a known frame, blur and a drift of colours above all, it gets wrong about the frames
beside it too, and a perfect frame would stand out from them. So they are given the known frame's correction as well,
less with every frame between, and less the noisier the level: there the correction is most of a picture, which would
stop what moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler
from dynamicrafter.schedulers.prediction import prediction_target

REACH = 8  # frames over which a correction fades; see docs/benchmarks.md


@dataclass(frozen=True, slots=True, eq=False)
class PinnedFrames:
    """Clean latents of some frames.

    Attributes:
        frames: their places in the clip.
        clean: (b, 4, k, h, w), float32, one for each place.
    """

    frames: tuple[int, ...]
    clean: Tensor

    @classmethod
    def at_ends(cls, first: Tensor, last: Tensor | None, num_frames: int) -> PinnedFrames:
        """The first frame held to the latents (b, 4, h, w) of its picture, and the last where it has one."""
        if last is None:
            return cls((0,), first[:, :, None])
        return cls((0, num_frames - 1), torch.stack([first, last], dim=2))

    def begin(self, noise: Tensor, scheduler: DynamiCrafterScheduler) -> Tensor:
        """The noise (b, 4, f, h, w) that a run starts from, with the clean latents in it as at its first level."""
        level = scheduler.level(int(scheduler.timesteps[0]))
        return self._placed(noise, level.alpha * (level.scale * self.clean) + level.sigma * self._of(noise))

    def answer(self, output: Tensor, latents: Tensor, timestep: int, scheduler: DynamiCrafterScheduler) -> Tensor:
        """The network's answer to latents (b, 4, f, h, w) of a timestep, perfect where the clean ones are known.

        Answers of every kind are linear in the clean latents that they stand for, and so is a correction.
        """
        level = scheduler.level(timestep)
        output = output.to(latents.dtype)
        noise = (self._of(latents) - level.alpha * (level.scale * self.clean)) / level.sigma
        perfect = prediction_target(self.clean, noise, level, prediction=scheduler.config["prediction_type"])
        shares = level.alpha**2 * self._fading(output)
        corrected = output + torch.einsum("bckhw,kf->bcfhw", perfect - self._of(output), shares)
        return self._placed(corrected, perfect)

    def end(self, latents: Tensor, scheduler: DynamiCrafterScheduler) -> Tensor:
        """A run's latents (b, 4, f, h, w), the known ones exactly clean.

        The last step leaves latents at the latent scale of its timestep, 0.986 for preset 512 in 50 steps; the others
        are brought to 1, where the known ones are, lest the contrast change between them.
        """
        return self._placed(latents / scheduler.final_scale, self.clean)

    def _of(self, video: Tensor) -> Tensor:
        return video[:, :, list(self.frames)]

    def _placed(self, video: Tensor, values: Tensor) -> Tensor:
        placed = video.clone()
        placed[:, :, list(self.frames)] = values
        return placed

    def _fading(self, like: Tensor) -> Tensor:
        """(k, f): each known frame's share in the correction of every frame; none of it reaches another known one."""
        num_frames = like.shape[2]
        reach = min(REACH, max(num_frames - 1, 1))
        places = torch.arange(num_frames, device=like.device, dtype=like.dtype)
        distances = (places[None] - places[list(self.frames), None]).abs()
        return (1 - distances / reach).clamp(min=0)
