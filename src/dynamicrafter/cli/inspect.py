"""`inspect`: what a model's weights are, and what a clip made with them costs on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from dynamicrafter.architectures import FULL
from dynamicrafter.cli.commands import Switch
from dynamicrafter.cli.console import importing, one_line, silence_libraries
from dynamicrafter.cli.inspect_adapters import adapters_as_json, adapters_at, describe_adapters
from dynamicrafter.cli.plan import describe
from dynamicrafter.errors import CheckpointError, InputError, ModelNotFoundError
from dynamicrafter.presets import NUM_FRAMES, USUAL_PRESET, WINDOW_STRIDE, Preset, get_preset
from dynamicrafter.schema import FrameSize

if TYPE_CHECKING:
    from dynamicrafter.checkpoints.inspection import Inspection
    from dynamicrafter.memory.counting import RunEstimate

_SHOWN = 6  # keys of a misfit on one line
_LAYOUTS = {
    "lightning": "a Lightning checkpoint",
    "deepspeed": "a DeepSpeed checkpoint",
    "flat": "a flat state dict",
    "safetensors": "a safetensors file",
}
_PREDICTIONS = {"epsilon": "noise (ε)", "v_prediction": "velocity (v)", "sample": "the clean clip (x₀)"}
_PHASES = ("encode_flops", "denoise_flops", "decode_flops")
_TERA = 1e12  # below so much arithmetic, it reads better in thousandths


@dataclass(frozen=True, kw_only=True)
class InspectCommand:
    """Say what a model's weights are, what they lack, and what a clip costs in arithmetic and memory."""

    model: Annotated[Positional[str], arg(metavar="MODEL", help_behavior_hint="")]
    """A checkpoint file, a folder, a preset (256, 512, 1024, interp), or seeded:512 and the like."""
    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Which preset a file descends from, where the file can't tell."""
    size: Annotated[tuple[int, int] | None, FrameSize()] = None
    """Frame width and height in pixels, such as 1024x576."""
    frames: int = NUM_FRAMES
    """Length in frames."""
    steps: int | None = None
    """Denoising steps."""
    device: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: the best there is)")] = None
    """cpu, cuda, cuda:N or mps."""
    dtype: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: what suits the device)")] = None
    """Number format of a run: float32, bfloat16 or float16."""
    memory: Annotated[str | None, arg(metavar="SIZE", help_behavior_hint="(default: all that the device has)")] = None
    """The most that a run may use, such as 8GB."""
    json: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Print one JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """What was found under the model's name; `inspection` is None for a preset that is not on this machine."""

    where: str
    inspection: Inspection | None
    candidates: tuple[str, ...]
    folder: Path | None = None  # of networks of a size of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A clip's settings, and what it costs."""

    preset: Preset
    size: tuple[int, int]
    frames: int
    steps: int
    passes: int
    device: str
    dtype: str
    estimate: RunEstimate
    granted: str
    advice: str


def run(command: InspectCommand) -> None:
    """Print the report on stdout.

    Raises:
        InputError: no such model, not DynamiCrafter, or an option that breaks its rule.
    """
    silence_libraries()
    with importing():
        import dynamicrafter.pipeline  # noqa: F401
    adapters = adapters_at(command.model)
    if adapters is not None:
        print(json.dumps(adapters_as_json(adapters)) if command.json else "\n".join(describe_adapters(adapters)))
        return
    weights = _look(command)
    preset = _choose(command.preset, weights)
    made = _reckon(command, preset, weights)
    if command.json:
        print(json.dumps(_as_json(weights, made), indent=2))
    else:
        print("\n".join([*_describe_weights(command.model, weights, made), "", *_describe_run(made)]))


def _look(command: InspectCommand) -> _Weights:
    from dynamicrafter import hub
    from dynamicrafter.checkpoints.files import open_tensors
    from dynamicrafter.checkpoints.inspection import inspect_source
    from dynamicrafter.pipeline.loading import SEEDED, seeded_source

    name = command.model
    if name.startswith(SEEDED):
        source, _, preset = seeded_source(name)
        return _Weights(
            where="drawn from their names", inspection=inspect_source(source, name=name), candidates=(preset.name,)
        )
    try:
        model = hub.resolve(name)
    except ModelNotFoundError as missing:
        try:
            preset = get_preset(name)
        except InputError:
            raise missing from None
        return _Weights(where="not on this machine", inspection=None, candidates=(preset.name,))
    if model.kind == "folder":
        return _look_into_folder(model.path)
    with open_tensors(model.path) as file:
        found = inspect_source(file, name=str(model.path))
    candidates = (model.preset,) if model.preset in found.presets else found.presets
    return _Weights(where=f"{model.path}, {_LAYOUTS[file.layout]}", inspection=found, candidates=candidates)


def _look_into_folder(path: Path) -> _Weights:
    from dynamicrafter.checkpoints.inspection import inspect_source
    from dynamicrafter.checkpoints.published import open_folder, published_architecture
    from dynamicrafter.pipeline.folders import inspect_folder

    where = f"{path}, folder in diffusers' layout"
    if published_architecture(path) is None:
        found = inspect_folder(path)
        return _Weights(where=where, inspection=found, candidates=found.presets, folder=path)
    with open_folder(path) as folder:
        found = inspect_source(folder, name=str(path))
    return _Weights(where=where, inspection=found, candidates=(folder.preset.name,))


def _choose(asked: str | None, weights: _Weights) -> Preset:
    """The preset to reckon with: the user's, else the first that it may be, else the most common."""
    from dynamicrafter.pipeline.folders import read_preset

    names = weights.candidates
    if asked is None and weights.folder is not None:
        return read_preset(weights.folder)
    if asked is None:
        return get_preset((names or (USUAL_PRESET,))[0])
    preset = get_preset(asked)
    if names and preset.name not in names:
        raise CheckpointError(f"preset {preset.name} does not fit: the weights say {' or '.join(names)}; leave it out.")
    return preset


def _reckon(command: InspectCommand, preset: Preset, weights: _Weights) -> _Run:
    from dynamicrafter.animator.memory import clip_needs
    from dynamicrafter.checkpoints.networks import build_empty, components_of
    from dynamicrafter.memory.advice import advise
    from dynamicrafter.memory.counting import estimate_run
    from dynamicrafter.memory.devices import budget_bytes, choose_dtype, named_device
    from dynamicrafter.pipeline.folders import empty_networks
    from dynamicrafter.pipeline.long_clips import plan_windows
    from dynamicrafter.specs.options import AnimateOptions

    architecture = (weights.inspection.architecture if weights.inspection else None) or FULL
    if weights.folder is None:
        networks = {name: build_empty(name, architecture, preset).to("meta") for name in components_of(preset)}
    else:
        networks = empty_networks(weights.folder)
    usual = architecture.size if weights.folder is None else None
    asked = AnimateOptions(steps=command.steps, frames=command.frames, size=command.size or usual)
    options = asked.resolved(preset)
    device = named_device(command.device)
    dtype = choose_dtype(command.dtype, device)
    height, width = options.size
    steps = options.steps
    budget = budget_bytes(command.memory, device)
    needs = clip_needs(networks, options, device=device, budget=budget, dtype=dtype)
    unet: Any = networks["unet"]
    windows = plan_windows(
        options.frames, window=NUM_FRAMES, stride=WINDOW_STRIDE, max_frames=unet.config["max_frames"]
    )
    estimate = estimate_run(
        networks,
        height=height,
        width=width,
        num_frames=options.frames,
        steps=steps,
        passes=needs.passes,
        dtype=dtype,
        memory_bytes=budget,
        windows=windows,
        device=device.type,
    )
    return _Run(
        preset=preset,
        size=(height, width),
        frames=options.frames,
        steps=steps,
        passes=needs.passes,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        estimate=estimate,
        granted="this machine" if command.memory is None else "--memory",
        advice="" if estimate.memory.fits else advise(needs),
    )


def _describe_weights(model: str, weights: _Weights, made: _Run) -> Iterator[str]:
    yield f"{one_line(model)}: {one_line(weights.where)}"
    found = weights.inspection
    if found is None:
        yield f'  "dynamicrafter download {weights.candidates[0]}" fetches it'
        return
    yield f"  preset       {_preset_line(weights)}"
    yield f"  dtype        {', '.join(found.dtypes) or 'none'}, {found.num_bytes / 1e9:.2f} GB"
    yield from _describe_own(found, made) if found.architecture is None else _describe_published(found)


def _describe_own(found: Inspection, made: _Run) -> Iterator[str]:
    """Networks of a size of their own, all of whose tensors fit, or they would have been refused."""
    preset = made.preset
    yield f"  answers      {_PREDICTIONS[preset.prediction]}"
    yield (
        f"  made for     {preset.width}x{preset.height} in {preset.steps} steps, motion {preset.motion.low} to "
        f"{preset.motion.high} ({preset.motion.unit})" + ", interpolation and loops too" * preset.interpolates
    )
    yield "  networks     parameters         size"
    for part in found.parts:
        yield f"    {part.component:<16} {part.parameters / 1e6:6,.2f} M {part.num_bytes / 1e6:9,.1f} MB"
    read = sum(part.parameters for part in found.parts)
    yield f"    {'together':<16} {read / 1e6:6,.2f} M {found.num_bytes / 1e6:9,.1f} MB"
    yield "  every tensor that the networks need is there, in its shape"


def _describe_published(found: Inspection) -> Iterator[str]:
    yield "  networks     parameters   in tensors beside them that nothing reads"
    for part in found.parts:
        beside = f"{part.unread / 1e6:12,.1f} M" if part.unread else ""
        yield f"    {part.component:<16} {part.parameters / 1e6:8,.1f} M {beside}".rstrip()
    read = sum(part.parameters for part in found.parts)
    yield f"    {'together':<16} {read / 1e6:8,.1f} M {sum(part.unread for part in found.parts) / 1e6:12,.1f} M"
    yield f"  noise schedule's tables: {found.schedule_tables}, which are computed, not read"
    if found.missing_encoders:
        yield f"  lacks        {' and '.join(found.missing_encoders)}, which --encoders or --download supplies"
    for kind in ("missing", "unexpected", "misshapen"):
        keys = getattr(found.misfit, kind)
        if keys:
            more = f" and {len(keys) - _SHOWN} more" * (len(keys) > _SHOWN)
            yield f"  {kind:<12} {len(keys)}: {one_line(', '.join(keys[:_SHOWN]))}{more}"
    if not found.misfit:
        yield "  every tensor that the networks need is there, in its shape" + ", encoders apart" * bool(
            found.missing_encoders
        )


def _preset_line(weights: _Weights) -> str:
    names = weights.candidates
    if len(names) == 1:
        return names[0]
    if not names:
        return "unknown: its latent rescale is no released checkpoint's"
    return f"{' or '.join(names)}, whose files are alike in every key; --preset says which"


def _describe_run(made: _Run) -> Iterator[str]:
    cost, (height, width) = made.estimate, made.size
    yield (
        f"A clip of {made.frames} frames at {width}x{height} (preset {made.preset.name}, {made.steps} steps of "
        f"{made.passes} {'pass' if made.passes == 1 else 'passes'}) in {made.dtype} on {made.device}"
    )
    prefix, unit = ("T", 1e12) if cost.flops >= _TERA else ("G", 1e9)
    yield (
        f"  arithmetic   {cost.flops / unit:,.1f} {prefix}FLOP: encoding {cost.encode_flops / unit:,.2f}, denoising "
        + (
            f"{cost.denoise_flops / unit:,.1f} ({cost.unet_flops / unit:,.2f} a pass), decoding "
            f"{cost.decode_flops / unit:,.2f}"
        )
    )
    yield from describe(cost.memory, granted=made.granted, advice=made.advice)


def _name_of(found: Inspection) -> str | None:
    return None if found.architecture is None else found.architecture.name


def _as_json(weights: _Weights, made: _Run) -> dict[str, Any]:
    found, cost = weights.inspection, made.estimate
    described = None if found is None else asdict(found) | {"architecture": _name_of(found)}
    arithmetic = {name: getattr(cost, name) for name in ("flops", "unet_flops", *_PHASES)}
    run = {name: getattr(made, name) for name in ("size", "frames", "steps", "passes", "device", "dtype")}
    return {
        "where": weights.where,
        "presets": list(weights.candidates),
        "weights": described,
        "run": run
        | {
            "preset": made.preset.name,
            "estimate": arithmetic | {"memory": cost.memory.as_dict(), "advice": made.advice or None},
        },
    }
