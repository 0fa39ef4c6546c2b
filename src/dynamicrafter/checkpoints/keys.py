"""Tables between our parameter names and the published ones.

A table row says, for names of ours that match a pattern, what the published file calls them. Two kinds of difference
go beyond spelling: a kernel-1 convolution there may be a Linear here (`extra_dims` trailing axes of length 1), and
OpenCLIP keeps query, key and value in one matrix where transformers has three (`part` of three, in that order).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Component = Literal["unet", "image_projector", "vae", "text_encoder", "image_encoder"]

PREFIXES: dict[Component, str] = {
    "unet": "model.diffusion_model.",
    "image_projector": "image_proj_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.model.",
    "image_encoder": "embedder.model.",
}

# Recomputed from the preset, never loaded.
SCHEDULE_BUFFERS = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "scale_arr",
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: our pattern, their spelling, and how the tensors differ."""

    ours: str
    published: str
    extra_dims: int = 0
    part: int | None = None


class PublishedKey(NamedTuple):
    """Where in a published file one parameter of ours comes from."""

    key: str
    extra_dims: int
    part: int | None


_RESIDUAL = (
    Row(r"norm1\.(.+)", r"in_layers.0.\1"),
    Row(r"conv1\.(.+)", r"in_layers.2.\1"),
    Row(r"embedding\.(.+)", r"emb_layers.1.\1"),
    Row(r"norm2\.(.+)", r"out_layers.0.\1"),
    Row(r"conv2\.(.+)", r"out_layers.3.\1"),
    Row(r"shortcut\.(.+)", r"skip_connection.\1"),
    # The spelling is the files' own; only the first convolution has no dropout before it.
    *(Row(rf"temporal\.norms\.{i}\.(.+)", rf"temopral_conv.conv{i + 1}.0.\1") for i in range(4)),
    *(
        Row(rf"temporal\.convs\.{i}\.weight", rf"temopral_conv.conv{i + 1}.{2 if i == 0 else 3}.weight", extra_dims=1)
        for i in range(4)
    ),
    *(Row(rf"temporal\.convs\.{i}\.bias", rf"temopral_conv.conv{i + 1}.{2 if i == 0 else 3}.bias") for i in range(4)),
)

_TRANSFORMER = (
    Row(r"(norm\..+|proj_in\..+|proj_out\..+)", r"\1"),
    Row(r"(norm[123]\..+)", r"transformer_blocks.0.\1"),
    Row(r"feed_forward\.proj_in\.(.+)", r"transformer_blocks.0.ff.net.0.proj.\1"),
    Row(r"feed_forward\.proj_out\.(.+)", r"transformer_blocks.0.ff.net.2.\1"),
    Row(r"(?:self_attention|attention1)\.to_out\.(.+)", r"transformer_blocks.0.attn1.to_out.0.\1"),
    Row(r"(?:self_attention|attention1)\.(to_[qkv]\..+)", r"transformer_blocks.0.attn1.\1"),
    Row(r"(?:cross_attention|attention2)\.to_out\.(.+)", r"transformer_blocks.0.attn2.to_out.0.\1"),
    Row(r"(?:cross_attention|attention2)\.(to_[qkv]\..+)", r"transformer_blocks.0.attn2.\1"),
    Row(r"cross_attention\.(to_[kv])_text\.(.+)", r"transformer_blocks.0.attn2.\1.\2"),
    Row(r"cross_attention\.(to_[kv])_image\.(.+)", r"transformer_blocks.0.attn2.\1_ip.\2"),
    Row(r"cross_attention\.alpha", r"transformer_blocks.0.attn2.alpha"),
    Row(r"attention([12])\.relative\.key_table", r"transformer_blocks.0.attn\1.relative_position_k.embeddings_table"),
    Row(r"attention([12])\.relative\.value_table", r"transformer_blocks.0.attn\1.relative_position_v.embeddings_table"),
)


def unet_rows(
    *, num_levels: int, layers_per_block: int, attention_levels: Iterable[bool], motion_key: str
) -> list[Row]:
    """The UNet's table: published blocks are numbered through, with a change of scale counted as one of them."""
    per_level = layers_per_block + 1
    rows = [
        Row(r"time_embedding\.linear_1\.(.+)", r"time_embed.0.\1"),
        Row(r"time_embedding\.linear_2\.(.+)", r"time_embed.2.\1"),
        Row(r"motion_embedding\.linear_1\.(.+)", rf"{motion_key}.0.\1"),
        Row(r"motion_embedding\.linear_2\.(.+)", rf"{motion_key}.2.\1"),
        Row(r"conv_in\.(.+)", r"input_blocks.0.0.\1"),
        Row(r"init_temporal\.(proj_(?:in|out)\.weight)", r"init_attn.0.\1", extra_dims=1),
        *_under(r"init_temporal", "init_attn.0", _TRANSFORMER),
        *_under(r"middle_out", "middle_block.3", _RESIDUAL),
        *_unit(r"middle", "middle_block"),
        Row(r"norm_out\.(.+)", r"out.0.\1"),
        Row(r"conv_out\.(.+)", r"out.2.\1"),
    ]
    attends = list(attention_levels)
    for level in range(num_levels):
        for unit in range(layers_per_block):
            rows += _unit(rf"down\.{level}\.units\.{unit}", f"input_blocks.{1 + level * per_level + unit}")
        rows.append(Row(rf"down\.{level}\.resize\.(.+)", rf"input_blocks.{(level + 1) * per_level}.0.op.\1"))
        for unit in range(per_level):
            rows += _unit(rf"up\.{level}\.units\.{unit}", f"output_blocks.{level * per_level + unit}")
        place = 3 if attends[num_levels - 1 - level] else 1  # after residual, spatial and temporal, or residual alone
        last = level * per_level + layers_per_block
        rows.append(Row(rf"up\.{level}\.resize\.(.+)", rf"output_blocks.{last}.{place}.\1"))
    return rows


PROJECTOR_ROWS = [
    Row(r"queries", r"latents"),
    Row(r"(proj_in\..+|proj_out\..+|norm_out\..+)", r"\1"),
    Row(r"attentions\.(\d+)\.norm_image\.(.+)", r"layers.\1.0.norm1.\2"),
    Row(r"attentions\.(\d+)\.norm_queries\.(.+)", r"layers.\1.0.norm2.\2"),
    Row(r"attentions\.(\d+)\.(to_.+)", r"layers.\1.0.\2"),
    Row(r"feed_forwards\.(\d+)\.norm\.(.+)", r"layers.\1.1.0.\2"),
    Row(r"feed_forwards\.(\d+)\.proj_in\.(.+)", r"layers.\1.1.1.\2"),
    Row(r"feed_forwards\.(\d+)\.proj_out\.(.+)", r"layers.\1.1.3.\2"),
]


_VAE_ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def vae_rows(num_levels: int) -> list[Row]:
    """The autoencoder's table: the published decoder numbers its levels from full resolution down."""
    rows = [
        Row(r"(quant_conv\..+|post_quant_conv\..+)", r"\1"),
        Row(r"((?:en|de)coder\.conv_(?:in|out)\..+)", r"\1"),
        Row(r"((?:en|de)coder)\.conv_norm_out\.(.+)", r"\1.norm_out.\2"),
        Row(r"((?:en|de)coder)\.mid_block\.resnets\.0\.(.+)", r"\1.mid.block_1.\2"),
        Row(r"((?:en|de)coder)\.mid_block\.resnets\.1\.(.+)", r"\1.mid.block_2.\2"),
        Row(r"((?:en|de)coder)\.mid_block\.attentions\.0\.group_norm\.(.+)", r"\1.mid.attn_1.norm.\2"),
        Row(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv_shortcut\.(.+)",
            r"encoder.down.\1.block.\2.nin_shortcut.\3"),
        Row(r"encoder\.down_blocks\.(\d+)\.resnets\.(.+)", r"encoder.down.\1.block.\2"),
        Row(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.(.+)", r"encoder.down.\1.downsample.\2"),
    ]  # fmt: skip
    for name, published in _VAE_ATTENTION.items():
        ours = rf"((?:en|de)coder)\.mid_block\.attentions\.0\.{re.escape(name)}"
        rows.append(Row(rf"{ours}\.weight", rf"\1.mid.attn_1.{published}.weight", extra_dims=2))
        rows.append(Row(rf"{ours}\.bias", rf"\1.mid.attn_1.{published}.bias"))
    for level in range(num_levels):
        ours, published = rf"decoder\.up_blocks\.{level}", f"decoder.up.{num_levels - 1 - level}"
        rows.append(Row(rf"{ours}\.resnets\.(\d+)\.conv_shortcut\.(.+)", rf"{published}.block.\1.nin_shortcut.\2"))
        rows.append(Row(rf"{ours}\.resnets\.(.+)", rf"{published}.block.\1"))
        rows.append(Row(rf"{ours}\.upsamplers\.0\.(.+)", rf"{published}.upsample.\1"))
    return rows


def toon_rows(num_levels: int) -> list[Row]:
    """ToonCrafter's autoencoder: blocks along time, the pictures' features, and the time mix at the end."""
    rows = [
        *_toon_block(r"decoder\.mid_in", "decoder.mid.block_1"),
        *_toon_block(r"decoder\.mid_out", "decoder.mid.block_2"),
        Row(r"decoder\.mid_attention\.group_norm\.(.+)", r"decoder.mid.attn_1.norm.\1"),
        Row(r"decoder\.norm_out\.(.+)", r"decoder.norm_out.\1"),
        Row(r"decoder\.fusion_out\.(.+)", rf"decoder.attn_refinement.{num_levels}.\1"),
        Row(r"decoder\.time_out\.(.+)", r"decoder.conv_out.time_mix_conv.\1"),
    ]
    for name, published in _VAE_ATTENTION.items():
        ours = rf"decoder\.mid_attention\.{re.escape(name)}"
        rows.append(Row(rf"{ours}\.weight", f"decoder.mid.attn_1.{published}.weight", extra_dims=2))
        rows.append(Row(rf"{ours}\.bias", f"decoder.mid.attn_1.{published}.bias"))
    for place in range(num_levels):
        ours, level = rf"decoder\.levels\.{place}", num_levels - 1 - place
        rows += _toon_block(rf"{ours}\.resnets\.(\d+)", rf"decoder.up.{level}.block.\1")
        rows.append(Row(rf"{ours}\.upsamplers\.0\.(.+)", rf"decoder.up.{level}.upsample.\1"))
        rows.append(Row(rf"{ours}\.fusion\.to_out\.(.+)", rf"decoder.attn_refinement.{level}.to_out.0.\1"))
        rows.append(Row(rf"{ours}\.fusion\.(.+)", rf"decoder.attn_refinement.{level}.\1"))
    return [*rows, *vae_rows(num_levels)]


def _toon_block(ours: str, published: str) -> list[Row]:
    last = 1 + ours.count("(")  # the number of the group that a row adds to those of its block
    spatial, temporal = rf"{ours}\.spatial_res_block", rf"{ours}\.temporal_res_block"
    return [
        Row(rf"{spatial}\.conv_shortcut\.(.+)", rf"{published}.nin_shortcut.\{last}"),
        Row(rf"{spatial}\.(.+)", rf"{published}.\{last}"),
        Row(rf"{temporal}\.norm1\.(.+)", rf"{published}.time_stack.in_layers.0.\{last}"),
        Row(rf"{temporal}\.conv1\.(.+)", rf"{published}.time_stack.in_layers.2.\{last}"),
        Row(rf"{temporal}\.norm2\.(.+)", rf"{published}.time_stack.out_layers.0.\{last}"),
        Row(rf"{temporal}\.conv2\.(.+)", rf"{published}.time_stack.out_layers.3.\{last}"),
        Row(rf"{ours}\.time_mixer\.mix_factor", rf"{published}.mix_factor"),
    ]


def _clip_layers(published: str) -> list[Row]:
    layer, block = r"encoder\.layers\.(\d+)\.", rf"{published}transformer.resblocks.\1."
    return [
        *(
            Row(rf"{layer}self_attn\.{name}_proj\.(weight|bias)", rf"{block}attn.in_proj_\2", part=part)
            for part, name in enumerate("qkv")
        ),
        Row(rf"{layer}self_attn\.out_proj\.(.+)", rf"{block}attn.out_proj.\2"),
        Row(rf"{layer}layer_norm1\.(.+)", rf"{block}ln_1.\2"),
        Row(rf"{layer}layer_norm2\.(.+)", rf"{block}ln_2.\2"),
        Row(rf"{layer}mlp\.fc1\.(.+)", rf"{block}mlp.c_fc.\2"),
        Row(rf"{layer}mlp\.fc2\.(.+)", rf"{block}mlp.c_proj.\2"),
    ]


TEXT_ROWS = [
    Row(r"embeddings\.token_embedding\.weight", r"token_embedding.weight"),
    Row(r"embeddings\.position_embedding\.weight", r"positional_embedding"),
    Row(r"final_layer_norm\.(.+)", r"ln_final.\1"),
    *_clip_layers(""),
]

IMAGE_ROWS = [
    Row(r"embeddings\.class_embedding", r"visual.class_embedding"),
    Row(r"embeddings\.patch_embedding\.weight", r"visual.conv1.weight"),
    Row(r"embeddings\.position_embedding\.weight", r"visual.positional_embedding"),
    Row(r"pre_layrnorm\.(.+)", r"visual.ln_pre.\1"),
    Row(r"post_layernorm\.(.+)", r"visual.ln_post.\1"),
    *_clip_layers("visual."),
]

# Of the text encoder; the published files repeat them beside the image encoder, where nothing reads them.
REPEATED_TEXT_TABLES = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "token_embedding.weight",
    "ln_final.weight",
    "ln_final.bias",
)

# Kept by the published files, read by nothing in them.
_UNUSED = re.compile(
    r"(?:cond_stage_model|embedder)\.model\.(?:text_projection|logit_scale)"
    r"|embedder\.model\.(?:positional_embedding|token_embedding\.weight|ln_final\..+|transformer\..+|visual\.proj)"
    r"|(?:cond_stage_model|embedder)\.model\.attn_mask"
)


def is_unused(key: str, *, text_layers: int) -> bool:
    """Whether a published key is known and not read: schedule tables, text tables twice over, the last text layer.

    Args:
        key: published name.
        text_layers: layers that conditioning reads; those from there on are unused.
    """
    if key in SCHEDULE_BUFFERS or _UNUSED.fullmatch(key):
        return True
    layer = re.match(r"cond_stage_model\.model\.transformer\.resblocks\.(\d+)\.", key)
    return layer is not None and int(layer.group(1)) >= text_layers


def translate(names: Iterable[str], rows: Iterable[Row], *, prefix: str = "") -> dict[str, PublishedKey]:
    """Find for each of our parameter names its place in a published file. The first row that matches wins."""
    compiled = [(re.compile(row.ours), row) for row in rows]
    table: dict[str, PublishedKey] = {}
    for name in names:
        for pattern, row in compiled:
            match = pattern.fullmatch(name)
            if match:
                table[name] = PublishedKey(prefix + match.expand(row.published), row.extra_dims, row.part)
                break
        else:
            raise AssertionError(f"no published name for our parameter {name}")
    return table


def published_shape(source: PublishedKey, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that the published file gives a parameter whose shape here is `ours`."""
    if source.part is not None:
        return (3 * ours[0], *ours[1:])
    return ours + (1,) * source.extra_dims


def published_shapes(
    table: Mapping[str, PublishedKey], ours: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Every published key of one component with its shape there."""
    return {source.key: published_shape(source, ours[name]) for name, source in table.items()}


def sketch_rows(*, num_levels: int, layers_per_block: int) -> list[Row]:
    """The sketch encoder's table; its file has no prefix, and numbers blocks as the UNet's does."""
    rows = [
        Row(r"time_embedding\.linear_1\.(.+)", r"time_embed.0.\1"),
        Row(r"time_embedding\.linear_2\.(.+)", r"time_embed.2.\1"),
        Row(r"conv_in\.(.+)", r"input_blocks.0.0.\1"),
        *(Row(rf"hint\.{place}\.(.+)", rf"input_hint_block.{2 * place}.\1") for place in range(8)),
        *_under(r"middle\.residual", "middle_block.0", _RESIDUAL),
        *_under(r"middle\.spatial", "middle_block.1", _TRANSFORMER),
        *_under(r"middle_out", "middle_block.2", _RESIDUAL),
    ]
    count = num_levels * (layers_per_block + 1)  # of skips: the first convolution stands in for the last halving
    for place in range(1, count):
        ours, published = rf"down\.{place - 1}", f"input_blocks.{place}"
        rows += _under(rf"{ours}\.residual", f"{published}.0", _RESIDUAL)
        rows += _under(rf"{ours}\.spatial", f"{published}.1", _TRANSFORMER)
        rows.append(Row(rf"{ours}\.(.+)", rf"{published}.0.op.\1"))
    rows += [Row(rf"controls\.{place}\.(.+)", rf"zero_convs.{place}.0.\1") for place in range(count)]
    return [*rows, Row(rf"controls\.{count}\.(.+)", r"middle_block_out.0.\1")]


def _under(ours: str, published: str, rows: Iterable[Row]) -> list[Row]:
    return [Row(rf"{ours}\.{row.ours}", f"{published}.{row.published}", row.extra_dims, row.part) for row in rows]


def _unit(ours: str, published: str) -> list[Row]:
    return [
        *_under(rf"{ours}\.residual", f"{published}.0", _RESIDUAL),
        *_under(rf"{ours}\.spatial", f"{published}.1", _TRANSFORMER),
        *_under(rf"{ours}\.temporal", f"{published}.2", _TRANSFORMER),
    ]
