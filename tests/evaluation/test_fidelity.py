import math

import numpy as np
import pytest
import skimage.data

import tiny
from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.fidelity import compare, psnr, reconstruct, ssim

PHOTO = skimage.data.astronaut()[:64, 128:192]


def test_psnr_of_a_known_error_is_its_closed_form():
    picture = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(picture + np.uint8(5), picture) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(np.full_like(picture, 255), np.zeros_like(picture)) == 0  # no wrap-around of uint8
    assert psnr(picture, picture) == 100


def test_ssim_of_flat_pictures_is_its_closed_form():
    a, b, stabiliser = 100.0, 140.0, (0.01 * 255) ** 2
    expected = (2 * a * b + stabiliser) / (a**2 + b**2 + stabiliser)
    flat = np.ones((16, 16, 3), np.uint8)
    assert ssim(flat * 100, flat * 140) == pytest.approx(expected)
    assert ssim(PHOTO, PHOTO) == pytest.approx(1)


def test_noise_lowers_both_and_the_loss_is_told_against_the_reconstruction():
    rng = np.random.default_rng(0)
    little, much = (np.clip(PHOTO + rng.normal(0, sigma, PHOTO.shape), 0, 255).astype(np.uint8) for sigma in (4, 16))
    assert psnr(little, PHOTO) > psnr(much, PHOTO)
    assert ssim(little, PHOTO) > ssim(much, PHOTO)
    found = compare(much, PHOTO, little)
    assert found.loss == pytest.approx(psnr(little, PHOTO) - psnr(much, PHOTO))
    assert compare(little, PHOTO, little).loss == 0
    assert compare(little, PHOTO).loss is None


def test_the_reconstruction_is_what_the_pipelines_autoencoder_decodes():
    pipeline = tiny.pipeline("tiny512")
    made = reconstruct(pipeline, PHOTO)
    assert made.shape == PHOTO.shape
    assert made.dtype == np.uint8
    assert np.array_equal(made, reconstruct(pipeline, PHOTO))
    assert not np.array_equal(made, reconstruct(pipeline, PHOTO[:, ::-1]))


def test_misfits_are_refused():
    with pytest.raises(InputError, match="one shape"):
        psnr(PHOTO, PHOTO[:32])
    with pytest.raises(InputError, match="at least 11 pixels"):
        ssim(PHOTO[:8], PHOTO[:8])
    with pytest.raises(InputError, match="sides that 8 divides"):
        reconstruct(tiny.pipeline("tiny512"), PHOTO[:60])
