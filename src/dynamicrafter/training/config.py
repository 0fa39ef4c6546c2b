"""What a training run is, as frozen typed values; importable without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dynamicrafter.data.config import DataConfig
from dynamicrafter.errors import InputError
from dynamicrafter.presets import NUM_TRAIN_TIMESTEPS, USUAL_PRESET
from dynamicrafter.randomness import MAX_SEED

Trains = Literal["all", "spatial", "temporal", "projector", "lora", "everything_and_encoders"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """Which noise level, conditions and picture a sample gets."""

    drop: float = 0.05  # probability that text alone, text with image, or image alone is dropped; each 5 % as published
    condition: Literal["random", "first"] = "random"  # the frame that the clip is animated from
    ends: float = 0.0  # share of samples that get first and last frame instead, as for interpolation
    high_noise: float = 0.0  # share of timesteps drawn from `high_noise_from` … 999 only; the rest from all
    high_noise_from: int = 985
    given_frames: float = 1.0  # how much a frame whose picture is given counts, beside 1 for any other
    frame_means: float = 0.0  # weight of the error of each frame's mean colour, beside 1 for that of its pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """How gradients become steps."""

    name: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    eps: float = 1e-8
    matrix_lr: float = 0.01  # of Muon's orthogonal steps, here and below; lr is for the rest
    momentum: float = 0.95
    clip_norm: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run, as a factor of `optimizer.lr`."""

    warmup: int = 0  # steps of a linear rise
    decay: Literal["constant", "cosine", "linear"] = "constant"
    decay_from: float = 0.0  # share of the run after which the decay begins
    floor: float = 0.0  # factor at the end of the decay


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (arXiv:2106.09685) on the UNet's transformers."""

    rank: int = 16
    alpha: float = 16.0
    layers: Literal["spatial", "temporal", "both"] = "both"
    parts: Literal["attention", "feed_forward", "both"] = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """A clip made every so often, by the same pipeline as anyone's."""

    every: int = 0  # steps; 0 for never
    image: Path | None = None  # None for the first frame of the data's first clip, and its caption
    last_image: Path | None = None
    prompt: str = ""
    motion: int | None = None  # None: the data's clip's own, or the preset's; None below: the preset's
    steps: int | None = None
    guidance: float | None = None
    sheet: bool = True  # after the last step, a contact sheet of the clip before and after training


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of a curriculum, measured in clips. What follows `variations` is read by data that is made."""

    clips: int
    lr_factor: float = 1.0
    high_noise: float | None = None  # None, here and below: the objective's
    ends: float | None = None
    variations: int = 1  # neighbouring clips of one picture; they get one timestep and one noise
    motions: tuple[tuple[str, float], ...] = ()  # kinds and their shares
    size: int | None = None  # pixels, of both sides; None for the model's
    window: int | None = None  # latents along the sides of the part that is trained on; None for all
    returning: float = 0.0  # share of clips that end where they began, and are given both ends
    bare: float = 0.4  # share of captions that name the motion alone
    motion_numbers: tuple[float, float] = (8.0, 24.0)  # lowest and highest


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. A step takes `batch_size` × `accumulation` clips on each process."""

    model: str = USUAL_PRESET  # as for `animate`: preset, folder, file, repository, seeded:tiny
    preset: str | None = None
    encoders: Path | None = None
    output: Path = Path("training")
    data: DataConfig = field(default_factory=DataConfig)
    photos: Path | None = None  # a folder whose pictures made clips show, beside the sample photos
    cache: Path | None = None  # a folder of `data cache`, instead of data
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    stages: tuple[Stage, ...] = ()  # in order; the last one lasts
    trains: Trains = "all"
    lora: LoraConfig = field(default_factory=LoraConfig)
    steps: int = 100_000
    minutes: float | None = None  # how long to train, instead of how many steps; each time the run goes on
    batch_size: int = 2
    accumulation: int = 2
    ema: float | None = None  # how much of the average stays at each step, such as 0.999
    precision: Precision = "bfloat16"
    gradient_checkpointing: bool = True
    sharding: Literal["none", "fsdp2"] = "none"  # over the processes of a launch
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    workers: int = 4  # processes that read clips; 0 for none of their own
    checkpoint_every: int = 500  # steps
    checkpoint_minutes: float | None = None  # and at least so often
    checkpoint_part: int | None = None  # MB of a checkpoint's largest file, for where larger ones don't travel
    keep: int = 3  # checkpoints
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    tracker: str | None = "tensorboard"  # any of Accelerate's, by name


def check(config: TrainConfig) -> None:
    """Hold every setting against its range.

    Raises:
        InputError: one breaks its rule, or two exclude each other.
    """
    whole = {
        "steps": config.steps,
        "batch_size": config.batch_size,
        "accumulation": config.accumulation,
        "checkpoint_every": config.checkpoint_every,
        "keep": config.keep,
        "lora.rank": config.lora.rank,
        **{f"stages[{index}].clips": stage.clips for index, stage in enumerate(config.stages)},
        **{f"stages[{index}].variations": stage.variations for index, stage in enumerate(config.stages)},
        **{f"stages[{index}].window": stage.window or 1 for index, stage in enumerate(config.stages)},
    }
    for name, value in whole.items():
        _require(value >= 1, name, "at least 1", value)
    for name, value in (
        ("workers", config.workers),
        ("schedule.warmup", config.schedule.warmup),
        ("validation.every", config.validation.every),
    ):
        _require(value >= 0, name, "at least 0", value)
    _require(0 <= config.seed <= MAX_SEED, "seed", f"between 0 and {MAX_SEED}", config.seed)
    for name, value in (
        ("minutes", config.minutes),
        ("checkpoint_minutes", config.checkpoint_minutes),
        ("checkpoint_part", config.checkpoint_part),
    ):
        _require(value is None or _positive(value), name, "above 0", value)
    _check_objective(config.objective)
    _check_optimizer(config.optimizer)
    for name, share in (
        ("schedule.decay_from", config.schedule.decay_from),
        ("schedule.floor", config.schedule.floor),
        *_stage_shares(config),
    ):
        _require(0 <= share <= 1, name, "between 0 and 1", share)
    for index, stage in enumerate(config.stages):
        low, high = stage.motion_numbers
        _require(0 < low <= high, f"stages[{index}].motion_numbers", "a lowest and a highest above 0", (low, high))
    _require(config.ema is None or 0 < config.ema < 1, "ema", "above 0 and below 1", config.ema)
    _require(_positive(config.lora.alpha), "lora.alpha", "above 0", config.lora.alpha)
    if config.cache is not None and config.trains == "everything_and_encoders":
        raise InputError("cache holds what frozen encoders answered; train without it, or not the encoders.")
    if config.cache is not None and config.validation.every > 0 and config.validation.image is None:
        raise InputError("validation.image is missing, and a cache holds no pictures; name one, or set every to 0.")
    if config.sharding == "fsdp2" and config.optimizer.name == "muon":
        raise InputError("sharding fsdp2 cuts up the matrices that muon needs whole; take adamw, or leave it at none.")
    if config.sharding == "fsdp2" and config.trains == "lora":
        raise InputError("sharding fsdp2 is for full fine-tuning; LoRA fits each GPU whole: leave sharding at none.")


def _stage_shares(config: TrainConfig) -> list[tuple[str, float]]:
    names = ("high_noise", "ends", "returning", "bare")
    shares = ((f"stages[{i}].{name}", getattr(s, name)) for i, s in enumerate(config.stages) for name in names)
    return [(name, share) for name, share in shares if share is not None]


def _check_objective(objective: ObjectiveConfig) -> None:
    _require(0 <= objective.drop <= 1 / 3, "objective.drop", "between 0 and 1/3", objective.drop)
    _require(0 <= objective.ends <= 1, "objective.ends", "between 0 and 1", objective.ends)
    _require(0 <= objective.high_noise <= 1, "objective.high_noise", "between 0 and 1", objective.high_noise)
    last = NUM_TRAIN_TIMESTEPS - 1
    start = objective.high_noise_from
    _require(0 <= start <= last, "objective.high_noise_from", f"between 0 and {last}", start)
    _require(_positive(objective.given_frames), "objective.given_frames", "above 0", objective.given_frames)
    means = objective.frame_means
    _require(math.isfinite(means) and means >= 0, "objective.frame_means", "at least 0", means)


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    for name in ("lr", "matrix_lr", "eps", "clip_norm"):
        _require(_positive(getattr(optimizer, name)), f"optimizer.{name}", "above 0", getattr(optimizer, name))
    decay = optimizer.weight_decay
    _require(math.isfinite(decay) and decay >= 0, "optimizer.weight_decay", "at least 0", decay)
    for name, value in (*(("betas", beta) for beta in optimizer.betas), ("momentum", optimizer.momentum)):
        _require(0 <= value < 1, f"optimizer.{name}", "at least 0 and below 1", value)


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise InputError(f"{name} must be {rule}, got {value}.")


def stage_of(config: TrainConfig, position: int) -> Stage | None:
    """The stage that the clip at a position belongs to; None without stages."""
    return config.stages[stage_start(config.stages, position)[0]] if config.stages else None


def stage_start(stages: Sequence[Stage], position: int) -> tuple[int, int]:
    """Number of the stage that the clip at a position belongs to, and the position at which it began."""
    start = 0
    for number, stage in enumerate(stages):
        if position < start + stage.clips or number == len(stages) - 1:
            return number, start
        start += stage.clips
    raise ValueError("no stages")


def lr_factor(config: TrainConfig, step: int, *, position: int, spent: float | None = None) -> float:
    """What the learning rate is multiplied by.

    Args:
        step: 0 for the first.
        position: of the step's first clip; decides the stage.
        spent: share of the run's minutes that have passed; None for a run that is measured in steps.
    """
    schedule, stage = config.schedule, stage_of(config, position)
    factor = 1.0 if stage is None else stage.lr_factor
    if step < schedule.warmup:
        return factor * (step + 1) / schedule.warmup
    if spent is None:
        start = max(schedule.warmup, schedule.decay_from * config.steps)
        done = (step - start) / max(1.0, config.steps - start)
    else:
        done = min(1.0, (spent - schedule.decay_from) / max(1e-9, 1 - schedule.decay_from))
    if schedule.decay == "constant" or done < 0:
        return factor
    left = 1 - done if schedule.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    return factor * (schedule.floor + (1 - schedule.floor) * left)
