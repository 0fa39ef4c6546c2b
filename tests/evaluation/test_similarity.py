import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

import tiny
from checkpoint_files import write_safetensors
from dynamicrafter.architectures import TINY
from dynamicrafter.errors import CheckpointError
from dynamicrafter.evaluation.similarity import load_towers, measure_similarity
from dynamicrafter.hub import LocalModel
from dynamicrafter.media.clip_pixels import clip_pixels
from dynamicrafter.media.framing import to_tensor
from dynamicrafter.text.tokenizer import tokenize
from published_files import openclip, pruned, published

FRAMES = np.stack([skimage.data.astronaut()[i : i + 64, 100:196] for i in range(0, 120, 10)])
TEXT, IMAGE = "cond_stage_model.model.", "embedder.model.visual."


def model(path: Path, tensors):
    return LocalModel(
        path=write_safetensors(path, {k: t.contiguous().clone() for k, t in tensors.items()}), kind="file", preset="512"
    )


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    return load_towers(model(tmp_path_factory.mktemp("whole") / "whole.safetensors", published("tiny512")))


def block(x, weights, prefix, heads, mask):
    """One layer of OpenCLIP as its own code computes it, straight from the file's tensors."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    b, n, width = x.shape
    qkv = F.linear(norm(x, "ln_1"), weights[f"{prefix}attn.in_proj_weight"], weights[f"{prefix}attn.in_proj_bias"])
    q, k, v = qkv.view(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(width // heads) + mask
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, width)
    x = x + F.linear(mixed, weights[f"{prefix}attn.out_proj.weight"], weights[f"{prefix}attn.out_proj.bias"])
    hidden = F.gelu(F.linear(norm(x, "ln_2"), weights[f"{prefix}mlp.c_fc.weight"], weights[f"{prefix}mlp.c_fc.bias"]))
    return x + F.linear(hidden, weights[f"{prefix}mlp.c_proj.weight"], weights[f"{prefix}mlp.c_proj.bias"])


def layers(weights, prefix):
    return len(
        {key.split(".resblocks.")[1].split(".")[0] for key in weights if key.startswith(f"{prefix}transformer.")}
    )


def openclip_text(prompt):
    weights = published("tiny512")
    ids = tokenize([prompt]).ids
    x = weights[f"{TEXT}token_embedding.weight"][ids] + weights[f"{TEXT}positional_embedding"]
    mask = torch.full((77, 77), -math.inf).triu(1)
    for i in range(layers(weights, TEXT)):
        x = block(x, weights, f"{TEXT}transformer.resblocks.{i}.", TINY.text["num_attention_heads"], mask)
    x = F.layer_norm(x, x.shape[-1:], weights[f"{TEXT}ln_final.weight"], weights[f"{TEXT}ln_final.bias"])
    return F.normalize(x[0, ids[0].argmax()] @ weights[f"{TEXT}text_projection"], dim=0)


def openclip_image(frame):
    weights = published("tiny512")
    pixels = clip_pixels(to_tensor(frame)[None])
    kernel = weights[f"{IMAGE}conv1.weight"]
    patches = F.conv2d(pixels, kernel, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([weights[f"{IMAGE}class_embedding"].expand(1, 1, -1), patches], dim=1)
    x = x + weights[f"{IMAGE}positional_embedding"]
    x = F.layer_norm(x, x.shape[-1:], weights[f"{IMAGE}ln_pre.weight"], weights[f"{IMAGE}ln_pre.bias"])
    for i in range(layers(weights, IMAGE)):
        x = block(x, weights, f"{IMAGE}transformer.resblocks.{i}.", TINY.image["num_attention_heads"], 0)
    x = F.layer_norm(x[0, 0], x.shape[-1:], weights[f"{IMAGE}ln_post.weight"], weights[f"{IMAGE}ln_post.bias"])
    return F.normalize(x @ weights[f"{IMAGE}proj"], dim=0)


def test_texts_and_frames_are_embedded_as_openclip_does_it(towers):
    for prompt in ("a boat on a stormy sea", "zoom in", ""):
        assert torch.allclose(towers.embed_texts([prompt])[0], openclip_text(prompt), atol=1e-5)
    embedded = towers.embed_frames(FRAMES)
    assert embedded.shape[0] == len(FRAMES)
    for index in (0, 11):
        assert torch.allclose(embedded[index], openclip_image(FRAMES[index]), atol=1e-5)


def test_similarity_is_the_mean_cosine(towers):
    found = measure_similarity(towers, FRAMES, prompt="a photo", picture=FRAMES[0])
    text = np.mean([float(openclip_image(frame) @ openclip_text("a photo")) for frame in FRAMES])
    image = np.mean([float(openclip_image(frame) @ openclip_image(FRAMES[0])) for frame in FRAMES])
    assert (found.text, found.image) == (pytest.approx(text, abs=1e-5), pytest.approx(image, abs=1e-5))
    alone = measure_similarity(towers, FRAMES[:1], picture=FRAMES[0])
    assert (alone.text, alone.image) == (None, pytest.approx(1, abs=1e-5))


def test_a_pruned_file_takes_its_towers_from_the_encoders_file(towers, tmp_path):
    encoders = write_safetensors(tmp_path / "clip.safetensors", {k: t.clone() for k, t in openclip("tiny512").items()})
    found = load_towers(model(tmp_path / "pruned.safetensors", pruned("tiny512")), encoders=encoders)
    assert torch.equal(found.embed_texts(["a boat"]), towers.embed_texts(["a boat"]))
    assert torch.equal(found.embed_frames(FRAMES[:2]), towers.embed_frames(FRAMES[:2]))


@pytest.mark.parametrize("lacking", ["text_projection", "visual.proj", "transformer.resblocks.2."])
def test_a_file_without_what_similarity_needs_says_what_it_lacks(tmp_path, lacking):
    kept = {
        key: tensor
        for key, tensor in published("tiny512").items()
        if not key.startswith((f"cond_stage_model.model.{lacking}", f"embedder.model.{lacking}"))
    }
    with pytest.raises(
        CheckpointError, match=rf"part.safetensors has no .*{lacking.rstrip('.')}.*which CLIP similarity needs"
    ):
        load_towers(model(tmp_path / "part.safetensors", kept))


def test_a_folder_that_training_wrote_lacks_the_projections(tmp_path):
    tiny.pipeline("tiny512").save_pretrained(tmp_path / "folder")
    with pytest.raises(CheckpointError, match="which CLIP similarity needs"):
        load_towers(LocalModel(path=tmp_path / "folder", kind="folder", preset=None))
