import torch

from dynamicrafter.models.patch_autoencoder import PatchAutoencoder, looked_up
from dynamicrafter.models.tiles import OVERLAP, TILE, spans


def small() -> PatchAutoencoder:
    torch.manual_seed(0)
    return PatchAutoencoder(
        latent_channels=6, encoder_width=8, encoder_depth=1, decoder_width=8, decoder_depth=1, detail_width=4
    ).eval()


def test_shapes_go_there_and_back() -> None:
    vae = small()
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    latents = vae.encode(pixels).latent_dist.mean
    assert latents.shape == (2, 6, 4, 6)
    assert vae.decode(latents).sample.shape == pixels.shape


def test_all_components_reconstruct_exactly() -> None:
    torch.manual_seed(0)
    vae = PatchAutoencoder(patch_size=4, latent_channels=48, encoder_width=8, decoder_width=8, detail_width=4).eval()
    basis, _ = torch.linalg.qr(torch.randn(48, 48))
    vae.start_from_components(torch.randn(48) * 0.1, basis, torch.linspace(2, 0.1, 48))
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        (posterior,) = vae.encode(pixels, return_dict=False)
        (decoded,) = vae.decode(posterior.mean, return_dict=False)
    assert torch.allclose(decoded, pixels, atol=1e-4)


def test_the_statistics_change_the_latents_and_not_the_pixels() -> None:
    vae = small()
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        before = vae.encode(pixels).latent_dist.mean
        shown = vae.decode(before).sample
        vae.latent_mean.fill_(0.5)
        vae.latent_std.fill_(2.0)
        after = vae.encode(pixels).latent_dist.mean
        assert torch.allclose(after, (before - 0.5) / 2, atol=1e-5)
        assert torch.allclose(vae.decode(after).sample, shown, atol=1e-5)


def test_it_is_no_variational_autoencoder() -> None:
    posterior = small().encode(torch.rand(1, 3, 16, 16)).latent_dist
    assert torch.equal(posterior.sample(), posterior.mode())
    assert posterior.std.abs().max() == 0


def test_it_is_saved_and_loaded_with_its_statistics(tmp_path) -> None:
    vae = small()
    vae.latent_std.mul_(3)
    vae.save_pretrained(tmp_path)
    again = PatchAutoencoder.from_pretrained(tmp_path)
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_positions_stand_in_the_last_two_channels_and_leave_the_pixels_alone() -> None:
    plain, placed = small(), small()
    placed.register_to_config(position_slope=0.25)
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        without, latents = (vae.encode(pixels).latent_dist.mean for vae in (plain, placed))
        added = (latents - without)[0]
        assert added[:4].abs().max() == 0
        assert torch.allclose(added[4], torch.tensor([-0.375, -0.125, 0.125, 0.375])[:, None].expand(4, 6), atol=1e-5)
        assert torch.allclose(added[5], torch.linspace(-0.625, 0.625, 6).expand(4, 6), atol=1e-5)
        assert torch.allclose(placed.decode(latents).sample, plain.decode(without).sample, atol=1e-5)


def test_it_goes_there_and_back_as_diffusers_autoencoders_do() -> None:
    vae = small()
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(pixels)[0].mode()
        decoded = vae.decode(latents)[0]
        assert torch.equal(vae(pixels).sample, decoded)
        assert torch.equal(vae(pixels, return_dict=False)[0], decoded)
        assert torch.equal(vae.decode(latents, return_dict=False)[0], decoded)


def test_tiles_and_slices_make_the_same_of_large_frames_but_where_they_fade() -> None:
    vae = small()
    vae.register_to_config(position_slope=0.25)
    for parameter in vae.parameters():  # its last convolutions start at zero, which would leave tiles nothing to see
        torch.nn.init.normal_(parameter, std=0.1)
    pixels = torch.rand(2, 3, 8 * 100, 8 * 20) * 2 - 1
    with torch.no_grad():
        whole = vae.encode(pixels)[0].mean
        shown = vae.decode(whole)[0]
        vae.enable_tiling()
        vae.enable_slicing()
        seen = []
        hook = vae.linear_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        tiled = vae.encode(pixels)[0].mean
        hook.remove()
        again = vae.decode(whole)[0]
    assert {(shape[0], max(shape[2:]) <= 48) for shape in seen} == {(1, True)}
    (_, end), (start, _), *_ = spans(100, TILE, OVERLAP)
    assert end - start >= OVERLAP
    torch.testing.assert_close(tiled[:, :, :start], whole[:, :, :start], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again[:, :, : 8 * start], shown[:, :, : 8 * start], rtol=1e-4, atol=1e-4)
    assert (tiled - whole).std() < 0.01 * whole.std()
    assert (again - shown).std() < 0.01 * shown.std()
    vae.disable_tiling()
    vae.disable_slicing()
    with torch.no_grad():
        assert torch.equal(vae.decode(whole)[0], shown)


def carrying(**settings) -> PatchAutoencoder:
    """All components of patches of 4 pixels, positions and displacements."""
    torch.manual_seed(0)
    vae = PatchAutoencoder(
        patch_size=4,
        latent_channels=52,
        encoder_width=0,
        decoder_width=0,
        position_slope=0.5,
        displacement=4.0,
        **settings,
    ).eval()
    basis, _ = torch.linalg.qr(torch.randn(48, 48))
    vae.start_from_components(torch.zeros(48), basis, torch.linspace(2, 0.1, 48))
    return vae


@torch.no_grad()
def test_without_displacements_a_carrying_autoencoder_gives_its_picture_back() -> None:
    vae = carrying()
    pixels = torch.rand(2, 3, 16, 24) * 2 - 1
    latents = vae.encode(pixels).latent_dist.mean
    assert latents.shape == (2, 52, 4, 6)
    assert latents[:, 50:].abs().max() == 0
    assert torch.allclose(latents[0, 48, :, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75]), atol=1e-6)
    assert torch.allclose(vae.decode(latents).sample, pixels, atol=1e-4)


@torch.no_grad()
def test_displaced_latents_show_the_picture_from_elsewhere_and_mirror_it_beyond_the_border() -> None:
    vae = carrying()
    pixels = torch.rand(1, 3, 16, 24) * 2 - 1
    latents = vae.encode(pixels).latent_dist.mean
    latents[:, 50] = -3 / 4  # looks three pixels to the left
    shown = vae.decode(latents).sample
    assert torch.allclose(shown[..., 3:], pixels[..., :-3], atol=1e-4)
    assert torch.allclose(shown[..., :3], pixels[..., :3].flip(-1), atol=1e-4)
    latents[:, 50], latents[:, 51] = 0, 2 / 4
    assert torch.allclose(vae.decode(latents).sample[:, :, :-2], pixels[:, :, 2:], atol=1e-4)


def test_a_field_that_grows_evenly_reaches_the_borders() -> None:
    x = torch.arange(32.0).expand(32, 32)
    ramp = torch.stack([x, x.T, x])[None]
    centres = torch.arange(8) * 4 + 1.5
    right = (-0.2 * (centres - 15.5)).expand(8, 8)  # twice as near to the middle column: a zoom
    shown = looked_up(ramp, torch.stack([right, torch.zeros(8, 8)])[None])
    assert torch.allclose(shown[0, 0], x - 0.2 * (x - 15.5), atol=0.06)  # cubic sampling itself bends a line so much


@torch.no_grad()
def test_what_stands_in_for_a_frame_is_marked_and_shows_the_same_codes() -> None:
    vae = carrying()
    latents = vae.encode(torch.rand(1, 3, 16, 16)).latent_dist.mean
    stand_in = vae.stand_in(latents)
    assert torch.equal(stand_in[:, :50], latents[:, :50])
    assert (stand_in[:, 50:] == 1).all()
