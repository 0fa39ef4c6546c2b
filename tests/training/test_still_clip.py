import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.training import scratch
from dynamicrafter.training.muon import Muon, muon_groups
from dynamicrafter.training.still_clip import keep_carrying, layout, start_as_still_clip, start_with_clock

CARRIED, LATENTS = 18, 20  # and two displacements


def small_unet(**changes: object) -> DynamiCrafterUNet:
    torch.manual_seed(0)
    settings = {
        "in_channels": 2 * LATENTS,
        "out_channels": LATENTS,
        "block_out_channels": (32, 32),
        "layers_per_block": 1,
        "attention_levels": (False, True),
        "attention_head_dim": 16,
        "init_attention_heads": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
        "dropout": 0.0,
    }
    return DynamiCrafterUNet(**(settings | changes))


def answer(unet: DynamiCrafterUNet, *, contrast: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The prediction at the noisiest timestep, and the picture's latents, the same on each of four frames."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    picture = contrast * random(1, LATENTS, 1, 8, 8).expand(-1, -1, 4, -1, -1) + 0.5
    picture = torch.cat([picture[:, :CARRIED], torch.zeros_like(picture[:, CARRIED:])], dim=1)
    sample = torch.cat([random(1, LATENTS, 4, 8, 8), picture], dim=1)
    predicted = unet(sample, torch.tensor([999]), random(1, 5, 16), random(1, 4, 2, 16), torch.tensor([12.0]))
    return predicted, picture


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("contrast", [0.1, 1.0, 2.0])
@torch.no_grad()
def test_a_fresh_network_answers_the_picture_whatever_its_contrast_and_displaces_nothing(attends, contrast) -> None:
    unet = small_unet(attention_levels=(attends, True))
    start_as_still_clip(unet)
    predicted, picture = answer(unet, contrast=contrast)
    error = predicted[:, :CARRIED] - picture[:, :CARRIED]
    assert error.square().mean() < 1e-3 * picture[:, :CARRIED].var()  # 30 dB below the latents themselves
    assert predicted[:, CARRIED:].abs().max() < 1e-5


@torch.no_grad()
def test_random_weights_do_not() -> None:
    predicted, picture = answer(small_unet())
    assert (predicted - picture).square().mean() / picture.square().mean() > 0.5


def test_training_moves_displacements_and_leaves_what_is_carried_alone() -> None:
    unet = small_unet()
    start_as_still_clip(unet)
    before = answer(unet)[0].detach()
    keep_carrying(unet)
    optimizer = Muon(muon_groups({"unet": unet}, tables=("conv_in", "conv_out")), lr=1e-2, matrix_lr=0.05)
    for _ in range(3):
        predicted, _ = answer(unet)
        loss = (predicted[:, CARRIED:] - 1).square().mean() + predicted[:, :CARRIED].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = answer(unet)[0].detach()
    assert torch.allclose(after[:, :CARRIED], before[:, :CARRIED], atol=1e-4)
    assert (after[:, CARRIED:] - before[:, CARRIED:]).abs().mean() > 0.1


def test_without_keeping_the_same_steps_spoil_the_picture() -> None:
    unet = small_unet()
    start_as_still_clip(unet)
    before = answer(unet)[0].detach()
    optimizer = Muon(muon_groups({"unet": unet}, tables=("conv_in", "conv_out")), lr=1e-2, matrix_lr=0.05)
    answer(unet)[0].square().mean().backward()
    optimizer.step()
    assert (answer(unet)[0] - before)[:, :CARRIED].abs().mean() > 0.05


def test_every_channel_of_the_stream_has_one_use() -> None:
    places = layout(small_unet())
    used = torch.cat([places.carried, places.constants, places.opposites, places.free])
    assert sorted(used.tolist()) == list(range(32))
    assert len(places.carried) == CARRIED


def test_a_channel_from_the_depth_zooms_and_another_turns() -> None:
    torch.manual_seed(0)
    unet = scratch.fresh_networks()["unet"]
    places = (torch.arange(16) - 7.5) * scratch.POSITION_SLOPE
    picture = torch.zeros(1, 100, 2, 16, 16)
    picture[:, :96] = torch.randn(1, 96, 1, 16, 16)
    picture[:, 96], picture[:, 97] = places[:, None], places
    sample = torch.cat([torch.randn_like(picture), picture], dim=1)
    y, x = torch.meshgrid(places, places, indexing="ij")
    gates = unet.up[-1].units[-2].residual.temporal.convs[3].bias

    def answered(**biases: float) -> torch.Tensor:
        """Displacements on the second frame, (2, 16, 16)."""
        with torch.no_grad():
            gates[0], gates[1] = biases.get("zoom", 0.0), biases.get("turn", 0.0)
            context = torch.randn(1, 24, 64), torch.randn(1, 2, 4, 64)
            return unet(sample, torch.tensor([999]), *context, torch.tensor([12.0]))[0, 98:, 1]

    assert answered().abs().max() < 0.3
    for settings, field in (({"zoom": 3.0}, torch.stack([x, y])), ({"turn": 3.0}, torch.stack([y, -x]))):
        for sign in (1, -1):
            found = answered(**{name: sign * value for name, value in settings.items()})
            alike = torch.nn.functional.cosine_similarity(found.flatten(), sign * field.flatten(), dim=0)
            assert alike > 0.8
            assert found.abs().max() > 0.5


def test_a_network_without_room_for_the_stream_is_refused() -> None:
    with pytest.raises(InputError, match="needs 3 groups of 2 carried channels and 2 displacements, got 20 latent"):
        start_as_still_clip(small_unet(block_out_channels=(16, 32)))


def test_queries_of_neighbouring_frames_begin_more_alike_than_of_distant_ones() -> None:
    projector = ImageProjector(
        image_width=12, width=32, output_width=8, depth=1, num_heads=2, head_dim=16, num_queries=2, num_frames=16
    )
    start_with_clock(projector)
    by_frame = projector.queries.detach().view(16, -1)
    near = (by_frame[7] - by_frame[8]).norm()
    far = (by_frame[0] - by_frame[15]).norm()
    assert 0 < near < far
