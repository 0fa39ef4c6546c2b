"""An endless stream of clips whose motion is known, made as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from dynamicrafter.data.stream import Sample
from dynamicrafter.data.synthetic.motions import BETWEEN_PICTURES, Course, Kind, displacements, move, source_size
from dynamicrafter.data.synthetic.pictures import training_picture
from dynamicrafter.data.synthetic.wordings import caption
from dynamicrafter.randomness import stream_seed

SLOWEST, FASTEST = 24.0, 8.0  # frames per second
PATCH = 8  # pixels, of the bundled autoencoder


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticClips:
    """A `ClipStream` of pictures in known motion.

    Args:
        shares: of each kind of motion among clips; need not add up to 1.
        size: pixels along each side.
        num_frames: of a clip.
        seed: another seed, other clips.
        returning: share of clips that end where they began, as loops do; told from both ends, for the caption alone
            does not say that they turn back.
        bare: share of captions that name the motion and nothing else.
        variations: neighbouring positions that show one picture at one speed, each moved differently. What they have in
            common cancels out of a batch's gradient, and what the caption decides is left.
        motion_numbers: lowest and highest frames per second; the lowest moves most.
        photos: a folder of photos to show beside the sample photos.
    """

    shares: Mapping[Kind, float]
    size: int = 128
    num_frames: int = 16
    seed: int = 0
    returning: float = 0.0
    bare: float = 0.4
    variations: int = 1
    motion_numbers: tuple[float, float] = (FASTEST, SLOWEST)
    photos: Path | None = None

    def __len__(self) -> int:
        return 10_000  # an endless stream has no length; this many make a pass for reports and schedules

    def draw(self, position: int) -> Sample:
        """The clip at a position. See `ClipStream`."""
        return self.known(position)[0]

    def known(self, position: int) -> tuple[Sample, Kind]:
        """The clip at a position, and its motion."""
        cv2.setNumThreads(1)  # its own threads would fight with PyTorch's over the same cores
        group, place = divmod(position, self.variations)
        rng = np.random.default_rng(stream_seed(self.seed, item="synthetic", sample=group))
        kind = _picked(rng, self.shares, self.variations)[place]
        motion = float(np.exp(rng.uniform(*np.log(self.motion_numbers))))
        course: Course = "there and back" if rng.random() < self.returning else "onward"
        source = source_size(self.size)
        frames = move(
            training_picture(rng, source, self.photos),
            kind,
            size=self.size,
            num_frames=self.num_frames,
            motion=motion,
            course=course,
            other=training_picture(rng, source, self.photos) if kind == BETWEEN_PICTURES else None,
        )
        looks = displacements(
            kind, size=self.size, patch=PATCH, num_frames=self.num_frames, motion=motion, course=course
        )
        words = np.random.default_rng(stream_seed(self.seed, item="wording", sample=position))
        sample = Sample(
            pixels=torch.from_numpy(frames).permute(3, 0, 1, 2),
            caption=caption(words, kind, bare=self.bare),
            motion=motion,
            key=f"synthetic {self.seed}/{position} ({kind})",
            between_ends=kind == BETWEEN_PICTURES or course == "there and back",
            looks=torch.from_numpy(looks),
        )
        return sample, kind


def _picked(rng: np.random.Generator, shares: Mapping[Kind, float], count: int) -> list[Kind]:
    """Kinds by their shares, all different while there are enough."""
    kinds: Sequence[Kind] = tuple(shares)
    weights = np.array([shares[kind] for kind in kinds], dtype=np.float64)
    order = rng.choice(len(kinds), size=count, p=weights / weights.sum(), replace=count > len(kinds))
    return [kinds[place] for place in order]
