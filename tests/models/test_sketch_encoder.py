"""ToonCrafter's sketch encoder, and the UNet that it guides, against two ports of the unpublished code."""

import pytest
import torch

from dynamicrafter.architectures import FULL, TINY
from dynamicrafter.checkpoints.keys import published_shapes
from dynamicrafter.checkpoints.networks import shapes
from dynamicrafter.checkpoints.seeded import seeded_weight
from dynamicrafter.checkpoints.sketch import empty_sketch_encoder, fill_sketch_encoder, sketch_table
from dynamicrafter.errors import CheckpointError
from family import close, golden, manifest, network, noise

SCALE = 0.6


class Seeded:
    """The published file, its weights drawn from its names."""

    def __init__(self, without=()):
        self._shapes = {key: shape for key, shape in manifest("tiny/tooncrafter.sketch").items() if key not in without}

    def keys(self):
        return self._shapes.keys()

    def __contains__(self, key):
        return key in self._shapes

    def info(self, key):
        return type("Info", (), {"shape": self._shapes[key], "dtype": "float32"})

    def __getitem__(self, key):
        return seeded_weight(f"sketch.{key}", self._shapes[key])


@pytest.mark.parametrize(
    ("architecture", "name"), [(TINY, "tiny/tooncrafter.sketch"), (FULL, "full/tooncrafter_sketch_encoder")]
)
def test_names_and_shapes_are_those_of_the_file(architecture, name):
    encoder = empty_sketch_encoder(architecture)
    assert published_shapes(sketch_table(encoder), shapes(encoder)) == manifest(name)


def test_a_file_that_lacks_a_tensor_is_refused():
    with pytest.raises(CheckpointError, match=r"1 tensors are missing.*zero_convs\.1\.0\.bias"):
        fill_sketch_encoder(Seeded(without=["zero_convs.1.0.bias"]), TINY, name="sketch_encoder.ckpt")


@torch.no_grad()
@pytest.mark.parametrize(("which", "length"), [("all_tokens", 333), ("text_tokens", 77)])
def test_controls_and_guided_answer_match(which, length):
    want = golden(f"tooncrafter.sketch_{which}")
    encoder, unet = fill_sketch_encoder(Seeded(), TINY, name="seeded"), network("unet", "512_interp")
    latents, picture = noise("c.x", 1, 4, 16, 8, 8), noise("c.image_latents", 1, 4, 16, 8, 8)
    context, time = noise("c.context", 1, 333, 32), torch.tensor([601])
    sketches = torch.sigmoid(noise("c.hint", 1, 1, 16, 64, 64))
    controls = encoder(latents, time, context[:, :length], sketches)
    for place, control in enumerate(controls):
        assert close(control[[0, 7, 15]], want[f"control.{place}"]), place

    def answer(control):
        text, image = context[:, :77], context[:, 77:].unflatten(1, (16, 16))
        return unet(torch.cat([latents, picture], dim=1), time, text, image, torch.tensor([10]), control=control)

    assert close(answer(None), want["unet.out_without_control"])
    assert close(answer([SCALE * control for control in controls]), want["unet.out"])
