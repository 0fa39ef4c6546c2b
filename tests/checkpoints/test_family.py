"""Files of the family's members at full size: told apart, and every name and shape in its place."""

import pytest
import torch

from dynamicrafter.architectures import FULL
from dynamicrafter.checkpoints.inspection import inspect_source
from dynamicrafter.checkpoints.load import load_networks
from dynamicrafter.checkpoints.networks import components_of
from dynamicrafter.checkpoints.seeded import SeededTensors
from dynamicrafter.checkpoints.variants import tell_architecture, tell_preset
from dynamicrafter.errors import CheckpointError
from dynamicrafter.presets import get_preset
from family import FILES, manifest

PARAMETERS = {"vc1_text_512": 1144.5e6, "vc1_text_1024": 1146.5e6, "vc2_text_512": 1413.3e6, "vc1_image_512": 1438.8e6}


class File:
    """A published file, as far as names and shapes go, and the end of its latent rescale."""

    def __init__(self, name, base_scale):
        self._shapes, self._base_scale = dict(manifest(f"full/{name}")), base_scale

    def keys(self):
        return self._shapes.keys()

    def __contains__(self, key):
        return key in self._shapes

    def info(self, key):
        return type("Info", (), {"shape": self._shapes[key], "dtype": "float32"})

    def __getitem__(self, key):
        assert key == "scale_arr", f"{key} was read"
        return torch.full(self._shapes[key], self._base_scale)

    def drop(self, key):
        del self._shapes[key]


@pytest.fixture(params=FILES)
def member(request):
    preset = get_preset(FILES[request.param])
    return File(request.param, preset.base_scale), preset


def test_a_file_is_told_by_its_keys_and_shapes_and_fits_strictly(member):
    file, preset = member
    assert tell_architecture(file, name="model.ckpt") is FULL
    assert tell_preset(file, name="model.ckpt", asked=None, hint=None) == preset
    loaded = load_networks(file, FULL, preset, dtype=None, name="model.ckpt", lazy=True)
    assert tuple(loaded.networks) == components_of(preset)
    if preset.name in PARAMETERS:
        number = sum(parameter.numel() for parameter in loaded.networks["unet"].parameters())
        assert number == pytest.approx(PARAMETERS[preset.name], rel=1e-4)


def test_what_is_seeded_has_the_names_and_shapes_of_the_file(member):
    file, preset = member
    ours = SeededTensors(FULL, preset)
    assert all(key in file and ours.info(key).shape == file.info(key).shape for key in ours.keys())


def test_an_inspection_finds_nothing_lacking_and_nothing_left_over(member):
    file, preset = member
    found = inspect_source(file, name="model.ckpt")
    assert found.presets == (preset.name,)
    assert not found.misfit
    assert not found.missing_encoders
    empty = [part.component for part in found.parts if part.parameters == 0]
    assert empty == [name for name in ("image_projector", "image_encoder") if name not in components_of(preset)]


def test_a_file_that_lacks_one_tensor_is_refused(member):
    file, preset = member
    file.drop("model.diffusion_model.init_attn.0.proj_in.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: model\.diffusion_model\.init_attn\.0\.proj_in\.bias"):
        load_networks(file, FULL, preset, dtype=None, name="model.ckpt", lazy=True)


def test_a_members_file_is_not_taken_for_another_preset(member):
    file, preset = member
    other = "512" if preset.name != "512" else "256"
    with pytest.raises(CheckpointError, match=f"preset {other} does not fit"):
        tell_preset(file, name="model.ckpt", asked=other, hint=None)
