"""A small pipeline of another make than the published one: other latents, another autoencoder, shorter prompts."""

from dataclasses import asdict, replace

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from dynamicrafter import DynamiCrafterPipeline, DynamiCrafterScheduler, DynamiCrafterUNet, ImageProjector
from dynamicrafter.models.patch_autoencoder import PatchAutoencoder
from dynamicrafter.presets import BUNDLED

TOKENS = 24
LATENTS = 6


def pipeline() -> DynamiCrafterPipeline:
    """A fresh float32 pipeline with the same random weights every time, 64×64 pixels, in evaluation mode."""
    torch.manual_seed(0)
    towers = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_act": "gelu"}
    text = CLIPTextConfig(hidden_size=16, intermediate_size=32, max_position_embeddings=TOKENS, **towers)
    image = CLIPVisionConfig(hidden_size=24, intermediate_size=48, patch_size=32, image_size=224, **towers)
    preset = replace(BUNDLED, height=64, width=64, steps=2)
    networks = {
        "vae": PatchAutoencoder(
            latent_channels=LATENTS, encoder_width=8, encoder_depth=1, decoder_width=8, decoder_depth=1, detail_width=4
        ),
        "text_encoder": CLIPTextModel(text),
        "image_encoder": CLIPVisionModel(image),
        "image_projector": ImageProjector(
            image_width=24, width=16, output_width=16, depth=1, num_heads=2, head_dim=8, num_queries=2
        ),
        "unet": DynamiCrafterUNet(
            in_channels=2 * LATENTS,
            out_channels=LATENTS,
            block_out_channels=(16, 32),
            layers_per_block=1,
            attention_levels=(True, True),
            attention_head_dim=8,
            init_attention_heads=2,
            cross_attention_dim=16,
            norm_num_groups=8,
            default_motion=preset.motion.default,
        ),
    }
    # Some layers start at zero, behind which no test would notice that their inputs differ.
    for network in networks.values():
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    made = DynamiCrafterPipeline(
        **{name: network.eval() for name, network in networks.items()},
        scheduler=DynamiCrafterScheduler.from_preset(preset),
        preset=asdict(preset),
    )
    made.set_progress_bar_config(disable=True)
    return made
