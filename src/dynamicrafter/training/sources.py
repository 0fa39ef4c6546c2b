"""Where a run's model and clips come from: clips that frozen networks encode as they are read, or a cache of that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from dynamicrafter.data.dataset import open_dataset
from dynamicrafter.data.stream import ClipStream, Sample
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.training.batches import Share, micro_batches
from dynamicrafter.training.config import DataConfig, TrainConfig
from dynamicrafter.training.draws import draw_sample
from dynamicrafter.training.encoding import Encoded, NullEmbeddings, condition_frames, encode_clip, encode_nothing
from dynamicrafter.training.trainee import resting_dtype

FROZEN = ("vae", "text_encoder", "image_encoder")


class ClipSource(Protocol):
    """Encoded clips by step, and the pipeline that they are for."""

    pipeline: Any
    nothing: NullEmbeddings
    fingerprint: str | None  # of the clips, where they are files

    def batches(self, share: Share, *, first_step: int, last_step: int) -> Iterator[list[Encoded]]:
        """This process's micro-batches."""
        ...

    def first_clip(self) -> Sample | None:
        """A clip to validate on; None where there are no pixels."""
        ...

    def awake(self) -> contextlib.AbstractContextManager[None]:
        """While entered, all networks can be used."""
        ...

    def __enter__(self) -> ClipSource: ...

    def __exit__(self, *_: object) -> None: ...


def open_source(config: TrainConfig, device: torch.device, *, stream: ClipStream | None, pipeline: Any) -> ClipSource:
    """The source that a run's settings name, or one of the clips and the model given.

    Raises:
        InputError: no model, no clips, or a cache of others.
    """
    if config.cache is None and stream is None:
        config.data.check()  # before the long wait for the model
    pipeline = load_model(config) if pipeline is None else pipeline
    if config.cache is not None:
        from dynamicrafter.training.cache import CachedClips

        return CachedClips(config, pipeline, device)
    return LiveClips(config, pipeline, open_stream(config.data, pipeline) if stream is None else stream, device)


def load_model(config: TrainConfig) -> Any:
    """The pipeline that a run's settings name, on the CPU and in its own number format."""
    options: dict[str, Any] = {"preset": config.preset, "encoders": config.encoders}
    given = {name: value for name, value in options.items() if value is not None}
    return DynamiCrafterPipeline.from_pretrained(config.model, **given)


def open_stream(data: DataConfig, pipeline: Any) -> ClipStream:
    """The clips that a run's settings name, with motion numbers as the pipeline's preset counts them."""
    return open_dataset(data, motion_unit=pipeline.preset.motion.unit)


class LiveClips:
    """Clips, encoded by the pipeline's frozen networks as they are read."""

    def __init__(self, config: TrainConfig, pipeline: Any, stream: ClipStream, device: torch.device) -> None:
        self.config = config
        self.pipeline = pipeline
        self.stream = stream
        self.fingerprint: str | None = getattr(stream, "fingerprint", None)
        self._raw = config.trains == "everything_and_encoders"
        rest(pipeline, device, resting_dtype(config.precision), frozen=FROZEN[:1] if self._raw else FROZEN)
        if self._raw:
            pipeline.text_encoder.to(device)
            pipeline.image_encoder.to(device)
        self.nothing = encode_nothing(pipeline, raw=self._raw)

    def batches(self, share: Share, *, first_step: int, last_step: int) -> Iterator[list[Encoded]]:
        steps = {"first_step": first_step, "last_step": last_step}
        batches = micro_batches(self.stream, share, **steps, workers=self.config.workers)
        for number, samples in enumerate(batches):
            step, micro = divmod(number, share.accumulation)
            positions = share.positions(first_step + step, micro)
            yield [self._encode(position, sample) for position, sample in zip(positions, samples, strict=True)]

    def first_clip(self) -> Sample | None:
        return self.stream.draw(0)

    def awake(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def __enter__(self) -> LiveClips:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def _encode(self, position: int, sample: Sample) -> Encoded:
        draws = draw_sample(self.config, position)
        frames = condition_frames(draws, sample.pixels.shape[1], between_ends=sample.between_ends)
        return encode_clip(self.pipeline, sample, frames, raw=self._raw)


def rest(pipeline: Any, device: torch.device, dtype: torch.dtype, *, frozen: tuple[str, ...] = FROZEN) -> None:
    """Prepare networks that don't train; in memory as every clip lays them out, so that validation changes nothing."""
    for name in frozen:
        network = getattr(pipeline, name)
        network.requires_grad_(False)
        to: Any = torch.nn.Module.to  # diffusers' own warns of number formats that don't matter to the networks here
        to(network, device, dtype).eval()
        if name == "vae":
            to(network, memory_format=torch.channels_last)
