"""Convolutions that look further, against the published functions."""

import json

import pytest
import torch
from torch import nn

from dynamicrafter.architectures import TINY
from dynamicrafter.checkpoints.networks import key_table
from dynamicrafter.models.dilation import dilated, disperse, dispersion_matrix, redilate
from family import close, golden, network, noise, preset
from goldens import GOLDEN

UNET = "vc2_t2v_512"


def convolution(stride=1):
    conv = nn.Conv2d(8, 6, 3, padding=1, stride=stride)
    conv.weight.data, conv.bias.data = noise("d.w3", 6, 8, 3, 3) / 8, noise("d.b", 6)
    return conv


@torch.no_grad()
@pytest.mark.parametrize("factor", [2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_redilated_convolution_matches(stride, factor):
    ours = redilate(convolution(stride), noise("d.x", 2, 8, 12, 20), factor)
    assert close(ours, golden("scalecrafter")[f"conv.stride{stride}.factor{factor}"], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("factor", [3.0, 4.0])
def test_a_dispersed_convolution_matches(factor):
    ours = disperse(convolution(), noise("d.x", 2, 8, 12, 20), factor)
    assert close(ours, golden("scalecrafter")[f"dispersed.factor{factor}"], 1e-6)


def test_the_dispersion_is_the_published_matrix():
    assert close(dispersion_matrix(), golden("scalecrafter")["dispersion.matrix_published"], 1e-7)
    assert dispersion_matrix().sum().item() == pytest.approx(9.7523, abs=1e-4)


def layers(which):
    """Factors of the published settings, by our names."""
    published = json.loads((GOLDEN / "family.scalecrafter.json").read_text())[which]
    unet = network("unet", UNET)
    ours = {source.key: name for name, source in key_table("unet", unet, TINY, preset(UNET)).items()}
    keys = {name: f"model.diffusion_model.{name}.weight" for name in published}
    return {ours[keys[name]].removesuffix(".weight"): factor for name, factor in published.items()}


@torch.no_grad()
def test_a_network_that_looks_further_matches_and_afterwards_is_as_it_was():
    want, unet = golden("scalecrafter"), network("unet", UNET)
    sample = noise("d.sample", 1, 4, 5, 16, 24)

    def answer(which, factors):
        with dilated(unet, factors):
            text = noise(f"d.{which}", 1, 77, 32)
            return unet(sample, torch.tensor([801]), text, motion=torch.tensor([28]))

    redilation, damped = layers("redilation"), layers("damped")
    assert close(answer("context", {}), want["unet.plain"])
    conditional, unconditional = answer("context", redilation), answer("uncond", redilation)
    assert close(conditional, want["unet.redilated"])
    assert close(unconditional, want["unet.redilated_uncond"])
    quieter = answer("uncond", damped)
    assert close(quieter, want["unet.damped_uncond"])
    # Differences of such outputs, twelve times over.
    assert close(quieter + 12 * (conditional - unconditional), want["unet.guided_damped"], 1.2e-5)
    assert close(answer("context", {}), want["unet.plain"])
    assert not any("forward" in vars(module) for module in unet.modules())


def test_a_failure_within_leaves_the_network_as_it_was():
    unet = network("unet", UNET)
    with pytest.raises(RuntimeError), dilated(unet, {"down.0.units.0.residual.conv1": 2.0}):
        raise RuntimeError
    assert not any("forward" in vars(module) for module in unet.modules())
