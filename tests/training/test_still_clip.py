import pytest
import torch

from dynamicrafter.errors import InputError
from dynamicrafter.models.projector import ImageProjector
from dynamicrafter.models.unet import DynamiCrafterUNet
from dynamicrafter.training.still_clip import start_as_still_clip, start_with_clock


def small_unet(**changes: object) -> DynamiCrafterUNet:
    torch.manual_seed(0)
    settings = {
        "in_channels": 16,
        "out_channels": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "attention_levels": (True, True),
        "attention_head_dim": 16,
        "init_attention_heads": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
        "dropout": 0.0,
    }
    return DynamiCrafterUNet(**(settings | changes))


@torch.no_grad()
def answer(unet: DynamiCrafterUNet) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    picture = random(1, 8, 1, 8, 8).expand(-1, -1, 4, -1, -1)
    sample = torch.cat([random(1, 8, 4, 8, 8), picture], dim=1)
    predicted = unet(sample, torch.tensor([999]), random(1, 5, 16), random(1, 4, 2, 16), torch.tensor([12.0]))
    return predicted, picture


def test_a_fresh_network_answers_the_picture() -> None:
    unet = small_unet()
    start_as_still_clip(unet)
    predicted, picture = answer(unet)
    error = (predicted - picture).square().mean() / picture.square().mean()
    assert error < 0.2


def test_random_weights_do_not() -> None:
    predicted, picture = answer(small_unet())
    assert (predicted - picture).square().mean() / picture.square().mean() > 0.5


def test_a_network_without_room_for_the_stream_is_refused() -> None:
    with pytest.raises(InputError, match=r"needs block_out_channels\[0\] = 32 and norm_num_groups = 8, got 16"):
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
