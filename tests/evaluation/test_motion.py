import math

import cv2
import numpy as np
import pytest
import skimage.data

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.motion import (
    KINDS,
    CameraMotion,
    NominalMotion,
    classify,
    measure_motion,
    speed_along,
)

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins")
# What each kind does to the content in one frame: x, y in nominal pans, log zoom, rotation.
MOVES = {
    "pan left": (1, 0, 0, 0),
    "pan right": (-1, 0, 0, 0),
    "pan up": (0, 1, 0, 0),
    "pan down": (0, -1, 0, 0),
    "zoom in": (0, 0, 1, 0),
    "zoom out": (0, 0, -1, 0),
    "rotate clockwise": (0, 0, 0, 1),
    "rotate counterclockwise": (0, 0, 0, -1),
    "still": (0, 0, 0, 0),
}


def photo(name, height, width):
    """A photo a third larger than a frame."""
    pixels = getattr(skimage.data, name)()
    pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    scale = 1.33 * max(height / pixels.shape[0], width / pixels.shape[1])
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def warped(pixels, kind, speed, nominal, *, size=(128, 128), num_frames=16):
    height, width = size
    x, y, zoom, turn = (speed * part for part in MOVES[kind])
    frames = []
    for i in range(num_frames):
        # OpenCV's own rotation matrix, whose positive angles turn the content counterclockwise.
        centre = (pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2
        degrees = -math.degrees(turn * nominal.rotation * i)
        matrix = cv2.getRotationMatrix2D(centre, degrees, math.exp(zoom * nominal.zoom * i))
        matrix[:, 2] += (
            (width - pixels.shape[1]) / 2 + x * nominal.pan * i,
            (height - pixels.shape[0]) / 2 + y * nominal.pan * i,
        )
        frames.append(cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT))
    return np.stack(frames)


@pytest.mark.parametrize("name", PHOTOS)
def test_known_motions_are_told_and_measured_within_a_few_percent(name):
    nominal = NominalMotion.usual(128, 128)
    pixels = photo(name, 128, 128)
    errors = []
    for kind in MOVES:
        for speed in (0.5, 1.25) if kind != "still" else (0,):
            camera, _ = measure_motion(warped(pixels, kind, speed, nominal))
            verdict = classify(camera, nominal)
            assert verdict.kind == kind, (speed, camera)
            if kind != "still":
                errors.append(speed_along(camera, kind, nominal) / speed - 1)
    assert max(map(abs, errors)) < 0.08
    assert np.mean(np.abs(errors)) < 0.03


@pytest.mark.parametrize(("size", "least"), [((64, 64), 0.8), ((160, 256), 0.9)])
def test_other_sizes_work(size, least):
    nominal = NominalMotion.usual(*size)
    pixels = photo("astronaut", *size)
    for kind in MOVES:
        camera, _ = measure_motion(warped(pixels, kind, 1, nominal, size=size))
        verdict = classify(camera, nominal)
        assert verdict.kind == kind
        assert kind == "still" or least < verdict.speed < 1.1


def test_a_pan_left_moves_content_to_the_right_in_pixels():
    pixels = photo("coffee", 128, 128)
    frames = np.stack([np.roll(pixels, 2 * i, axis=1)[20:148, 20:148] for i in range(10)])
    camera, _ = measure_motion(frames)
    assert (camera.x, camera.y) == (pytest.approx(2, abs=0.05), pytest.approx(0, abs=0.05))
    assert classify(camera, NominalMotion(pan=2, zoom=0.02, rotation=0.02)).kind == "pan left"


def test_a_quarter_turn_of_the_picture_is_clockwise():
    nominal = NominalMotion.usual(128, 128)
    pixels = photo("chelsea", 128, 128)
    square = pixels[: min(pixels.shape[:2]), : min(pixels.shape[:2])]
    turned = warped(square, "rotate clockwise", 1, NominalMotion(pan=1, zoom=1, rotation=math.pi / 2), num_frames=2)
    there = warped(np.ascontiguousarray(np.rot90(square, -1)), "still", 0, nominal, num_frames=1)[0]
    inner = np.s_[4:-4, 4:-4]
    assert np.abs(turned[1][inner].astype(int) - there[inner]).mean() < 4


def test_noise_that_does_not_move_is_still():
    frames = np.repeat(photo("camera", 96, 96)[None, :96, :96], 8, axis=0)
    noise = np.random.default_rng(0).normal(0, 4, frames.shape)
    camera, _ = measure_motion(np.clip(frames + noise, 0, 255).astype(np.uint8))
    assert classify(camera, NominalMotion.usual(96, 96)).kind == "still"


def test_flat_frames_are_still():
    camera, local = measure_motion(np.full((5, 64, 64, 3), 90, np.uint8))
    assert camera == CameraMotion(x=0, y=0, log_zoom=0, rotation=0)
    assert (local.speed, local.share, local.shimmer) == (0, 0, 0)


def test_what_moves_besides_the_camera_is_local_motion():
    nominal = NominalMotion.usual(128, 128)
    pixels = photo("coffee", 128, 128)
    panning = warped(pixels, "pan left", 1, nominal)
    _, calm = measure_motion(panning)
    rows, columns = np.mgrid[:128, :128].astype(np.float32)
    rippling = np.stack(
        [
            cv2.remap(frame, columns + 0.8 * np.sin(rows / 10 + i), rows, cv2.INTER_LINEAR)
            for i, frame in enumerate(panning)
        ]
    )
    camera, rippled = measure_motion(rippling)
    assert rippled.speed > 10 * calm.speed
    assert rippled.share > 0.3 > 3 * calm.share
    assert camera.x == pytest.approx(nominal.pan, abs=0.3)
    rng = np.random.default_rng(1)
    snow = panning.copy()
    snow[rng.random(panning.shape[:3]) < 0.02] = 255
    _, snowed = measure_motion(snow)
    assert snowed.shimmer > 2 * calm.shimmer


def test_falling_things_drift_downwards():
    frames = np.repeat(photo("astronaut", 128, 128)[None, :128, :128], 8, axis=0)
    patch = np.random.default_rng(2).integers(0, 255, (40, 40, 3), np.uint8)
    patch = cv2.resize(cv2.resize(patch, (20, 20)), (48, 48), interpolation=cv2.INTER_CUBIC)
    for i in range(8):
        frames[i, 30 + 2 * i : 78 + 2 * i, 40:88] = patch
    camera, local = measure_motion(frames)
    assert classify(camera, NominalMotion.usual(128, 128)).kind == "still"
    assert local.y > 0.1 > abs(local.x)


def test_short_clips_are_measured_over_what_they_have():
    nominal = NominalMotion.usual(128, 128)
    frames = warped(photo("astronaut", 128, 128), "zoom in", 2, nominal, num_frames=2)
    assert classify(measure_motion(frames)[0], nominal).kind == "zoom in"


def test_a_speed_is_negative_against_the_direction():
    nominal = NominalMotion(pan=2, zoom=0.1, rotation=0.1)
    motion = CameraMotion(x=1, y=0, log_zoom=0, rotation=0)
    assert speed_along(motion, "pan left", nominal) == 0.5
    assert speed_along(motion, "pan right", nominal) == -0.5
    assert speed_along(motion, "still", nominal) == 0.5
    assert classify(motion, nominal, still=0.6).kind == "still"
    assert set(MOVES) == set(KINDS)


@pytest.mark.parametrize(
    ("frames", "step", "says"),
    [
        (np.zeros((1, 64, 64, 3), np.uint8), 3, "at least 2 frame"),
        (np.zeros((4, 16, 64, 3), np.uint8), 3, "at least 32 pixels"),
        (np.zeros((4, 64, 64, 3), np.float32), 3, "uint8 array"),
        (np.zeros((4, 64, 64, 3), np.uint8), 0, "step must be at least 1"),
    ],
)
def test_clips_without_motion_to_measure_are_refused(frames, step, says):
    with pytest.raises(InputError, match=says):
        measure_motion(frames, step=step)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_nominal_speeds_are_positive(value):
    with pytest.raises(InputError, match="nominal zoom must be a positive number"):
        NominalMotion(pan=1, zoom=value, rotation=1)


def test_all_numbers_are_per_frame_whatever_lies_between_a_pair():
    nominal = NominalMotion.usual(128, 128)
    frames = warped(photo("coffee", 128, 128), "pan right", 1, nominal, num_frames=7)
    patch = np.random.default_rng(2).integers(0, 255, (12, 12, 3), np.uint8)
    patch = cv2.resize(patch, (40, 40), interpolation=cv2.INTER_CUBIC)
    for i in range(7):
        frames[i, 40 + i : 80 + i, 44:84] = patch
    found = [measure_motion(frames, step=step) for step in (1, 2, 4, 100)]
    for camera, local in found:
        assert camera.x == pytest.approx(-nominal.pan, abs=0.06)
        assert local.y == pytest.approx(found[0][1].y, rel=0.3)


def test_only_texture_tells_motion():
    frames = np.full((6, 96, 96, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    frames += rng.integers(0, 3, frames.shape).astype(np.uint8)  # a sky with a little noise, which goes nowhere
    ground = cv2.resize(photo("coffee", 128, 128), (128, 128))
    for i in range(6):
        frames[i, 56:] = ground[40:80, 10 + 2 * i : 106 + 2 * i]
    camera, _ = measure_motion(frames)
    assert camera.x == pytest.approx(-2, abs=0.1)
