"""A preset is guessed from names where they are clear, and nowhere else."""

from pathlib import Path

import pytest

from dynamicrafter import hub


@pytest.mark.parametrize(
    ("path", "preset"),
    [
        ("dynamicrafter_512_interp_v1.ckpt", "512_interp"),
        ("dynamicrafter_512_interp_v1_bf16.safetensors", "512_interp"),
        ("DynamiCrafter_512_Interp/model.ckpt", "512_interp"),
        ("dynamicrafter_interp.ckpt", "512_interp"),
        ("interp/model.ckpt", "512_interp"),
        ("dynamicrafter_1024_v1_bf16.safetensors", "1024"),
        ("DynamiCrafter_1024/model.ckpt", "1024"),
        ("checkpoints/dynamicrafter_256_v1/model.ckpt", "256"),
        ("dynamicrafter512.ckpt", "512"),
        ("dynami-crafter_512.ckpt", "512"),
        ("dynamicrafter_512_tuned_on_cats_step_1024.ckpt", "512"),
        ("dynamicrafter-320x512.ckpt", "512"),
        ("dynamicrafter_576x1024", "1024"),
        ("512.safetensors", "512"),
        ("512/model.ckpt", "512"),
        ("model_512_fp16.safetensors", "512"),
        ("1024/epoch=3-step=512.ckpt", "1024"),
        ("dynamicrafter_1024/runs/last.ckpt", None),
        ("models--Doubiiu--DynamiCrafter/snapshots/0a/model.ckpt", "256"),
        ("models--Doubiiu--DynamiCrafter_512/snapshots/0a/model.ckpt", "512"),
        ("models--Kijai--DynamiCrafter_pruned/snapshots/0a/dynamicrafter_512_fp16_pruned.safetensors", "512"),
        ("models--user--dynamicrafter-1024-cats/snapshots/512/model.ckpt", "1024"),
        ("model.ckpt", None),
        ("DynamiCrafter/model.ckpt", None),
        ("dynamicrafter_256_512.ckpt", None),
        ("256/dynamicrafter_512_1024.ckpt", None),
        ("dynamicrafter_1024_interp.ckpt", None),
        ("step_1024.ckpt", None),
        ("epoch=512.ckpt", None),
        ("tooncrafter_512_interp.ckpt", None),
        ("videocrafter_1024.ckpt", None),
        ("sd21_512.ckpt", None),
        ("512gb/model.ckpt", None),
        ("dynamicrafter_256000.ckpt", None),
        ("20240512.ckpt", None),
        ("", None),
    ],
)
def test_a_preset_is_guessed_from_names_only_where_they_are_clear(path, preset):
    assert hub.preset_from_filename(path) == preset
    assert hub.preset_from_filename(Path("/data") / path) == preset
