"""Whose weights are these? Size and preset from the keys and shapes of a file, or what it is instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dynamicrafter.architectures import ARCHITECTURES, LATENT_CHANNELS, Architecture
from dynamicrafter.checkpoints.keys import PREFIXES
from dynamicrafter.errors import CheckpointError
from dynamicrafter.presets import PRESETS, NetworkName, Preset, PresetName, get_preset

if TYPE_CHECKING:
    from dynamicrafter.checkpoints.networks import TensorSource

_UNET = PREFIXES["unet"]
_FIRST_CONVOLUTION = f"{_UNET}input_blocks.0.0.weight"
_WITH_PICTURE = 2 * LATENT_CHANNELS  # channels that the UNet takes where the picture's latents stand beside the noise
_ROUNDING = 0.02  # of a base scale in half precision, and far less than lies between two presets'

# Tell-tale keys of other models in circulation, most specific first.
_STRANGERS = (
    (r"lora_|\.lora_[AB]\.|\.lora_(?:down|up)\.", "LoRA weights, which go on top of a model"),
    (r"motion_modules\.", "an AnimateDiff motion module"),
    (r"conditioner\.embedders\.", "a Stable Diffusion XL or SVD checkpoint"),
    (r"cond_stage_model\.transformer\.text_model\.", "a Stable Diffusion 1.x checkpoint"),
    (r"model\.diffusion_model\..*temopral_conv\.", "a VideoCrafter or DynamiCrafter relative of another layout"),
    (r"model\.diffusion_model\.", "a Stable Diffusion 2.x checkpoint or the like"),
    (r"(?:down|up)_blocks\.\d+\.", "one network in diffusers' layout (name the folder with model_index.json instead)"),
    (
        r"(?:down|up)\.\d+\.units\.",
        "the UNet of a DynamiCrafter folder (name the folder with model_index.json instead)",
    ),
    (r"(?:visual\.|text_model\.|vision_model\.|transformer\.resblocks\.)", "a CLIP model (pass it as the encoders)"),
    (r"(?:first_stage_model\.)?(?:en|de)coder\.(?:conv_in|down|mid|up)", "an autoencoder alone"),
    (r"optimizer|exp_avg", "an optimiser's state"),
)


def looks_like(keys: Iterable[str]) -> str:
    """Say in a few words what a set of key names seems to belong to."""
    names = list(keys)
    if _FIRST_CONVOLUTION in names and any(key.startswith(PREFIXES["image_projector"]) for key in names):
        return "a DynamiCrafter checkpoint that was changed"
    for pattern, description in _STRANGERS:
        if any(re.match(pattern, key) or re.search(rf"\.{pattern}", key) for key in names):
            return description
    return f"no kind of model known here (first key: {names[0]!r})" if names else "an empty file"


def tell_architecture(source: TensorSource, *, name: str) -> Architecture:
    """The size of the networks in a file, from the width of the UNet's first convolution.

    Args:
        source: published names and shapes.
        name: how messages call the source.

    Raises:
        CheckpointError: no such convolution, or a width that no known architecture has.
    """
    if _FIRST_CONVOLUTION not in source:
        raise CheckpointError(
            f"{name} is not a DynamiCrafter checkpoint: it has no {_FIRST_CONVOLUTION}; "
            f"it looks like {looks_like(source.keys())}."
        )
    shape = tuple(source.info(_FIRST_CONVOLUTION).shape)
    architecture = architecture_of_width(shape[0])
    if architecture is None or shape[2:] != (3, 3) or tell_network(source) is None:
        known = ", ".join(str(a.base_channels) for a in ARCHITECTURES)
        raise CheckpointError(
            f"{name} has a first convolution of shape {shape}, DynamiCrafter's takes {_WITH_PICTURE} channels and "
            f"VideoCrafter's {LATENT_CHANNELS} to one of {known}; it looks like {looks_like(source.keys())}."
        )
    return architecture


def tell_network(source: TensorSource) -> NetworkName | None:
    """Which member of the family a file's keys and shapes are of; None for another model's."""
    keys = list(source.keys())

    def has(part: str) -> bool:
        return any(part in key for key in keys)

    channels = source.info(_FIRST_CONVOLUTION).shape[1] if _FIRST_CONVOLUTION in source else None
    if channels == _WITH_PICTURE:
        return "dynamicrafter_toon" if has("first_stage_model.decoder.attn_refinement.") else "dynamicrafter"
    if channels != LATENT_CHANNELS or not has(f"{_UNET}init_attn."):
        return None
    if has(".attn2.to_k_ip."):
        return "videocrafter1_image"
    if has(".relative_position_k."):
        return "videocrafter1_text_fps" if has(f"{_UNET}fps_embedding.") else "videocrafter1_text"
    return "videocrafter2_text"


def architecture_of_width(base_channels: int) -> Architecture | None:
    """The known architecture whose UNet begins with so many channels."""
    return next((known for known in ARCHITECTURES if known.base_channels == base_channels), None)


def tell_preset(source: TensorSource, *, name: str, asked: str | None, hint: str | None) -> Preset:
    """Which of the released checkpoints a file descends from.

    Keys and shapes tell the members of the family apart and DynamiCrafter's 256 from its others, and the latent
    rescale's last entry tells 1024 from the two at 512. Those two are alike in every key and shape: there what the user
    asked decides, else the hint of the file's name.

    Args:
        source: published names and shapes.
        name: how messages call the source.
        asked: the user's word, binding where the file does not contradict it.
        hint: a guess from the file's name.

    Raises:
        CheckpointError: the file contradicts `asked`, or nothing tells.
    """
    possible = possible_presets(source)
    if not possible:
        raise CheckpointError(
            f"{name} rescales latents down to {_base_scale(source):g}, which no released checkpoint does; "
            f"set the last entry of its scale_arr to that of the preset it descends from."
        )
    if asked is not None:
        preset = get_preset(asked)
        if preset.name not in possible:
            raise CheckpointError(
                f"preset {preset.name} does not fit {name}: its keys say {' or '.join(possible)}; "
                f"leave --preset out or name one of these."
            )
        return preset
    if len(possible) == 1:
        return PRESETS[possible[0]]
    if hint in possible:
        return PRESETS[hint]
    raise CheckpointError(
        f"{name} fits the presets {' and '.join(possible)}, whose files are alike; say which with "
        f"--preset {' or --preset '.join(possible)}."
    )


def possible_presets(source: TensorSource) -> list[PresetName]:
    """The presets that a file's keys, shapes and latent rescale allow; none where its rescale is no preset's."""
    network = tell_network(source)
    candidates = [preset for preset in PRESETS.values() if preset.network == network]
    prefixes = {preset.motion_key: f"{_UNET}{preset.motion_key}." for preset in candidates}
    found = {key for key, prefix in prefixes.items() if any(name.startswith(prefix) for name in source.keys())}
    fitting = [preset for preset in candidates if preset.motion_key in (found or {"fps_embedding"})]
    base_scale = _base_scale(source)
    if len(fitting) > 1 and base_scale is not None:
        fitting = [preset for preset in fitting if abs((preset.base_scale or 1) - base_scale) < _ROUNDING]
    return [preset.name for preset in fitting]


def _base_scale(source: TensorSource) -> float | None:
    """Where a file's latent rescale ends; None for a file without the table, as some pruned ones are."""
    return float(source["scale_arr"].flatten()[-1]) if "scale_arr" in source else None
