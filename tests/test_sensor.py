"""The sensor: each error has the size, place and sign that it should, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from dataset.sensor import (
    DISPARITY,
    DISPARITY_STEP,
    Sensor,
    drifting,
    sensed_color,
    sensed_depth,
    sensed_labels,
    sensed_pose,
)

PERFECT = Sensor(
    blur=0,
    shot=0,
    read=0,
    vignette=0,
    exposure=0,
    balance=0,
    motion=0,
    quality=100,
    disparity=0,
    edge=0,
    holes=0,
    range=100,
    turn=0,
    slide=0,
    ragged=0,
)
STILL = np.zeros(4)


def rng():
    return np.random.default_rng(0)


def picture(height=96, width=128):
    """Smooth colours with an upright edge in the middle."""
    y, x = np.mgrid[:height, :width]
    grey = 60 + 0.5 * y + 90 * (x > width // 2)
    return np.stack([grey, 0.9 * grey, 0.8 * grey], -1).astype(np.uint8)


def test_a_perfect_sensor_changes_nothing_but_rounding():
    color = picture()
    change = np.abs(sensed_color(color, PERFECT, STILL, rng()).astype(int) - color)
    assert change.mean() < 1 and change.max() <= 8  # JPEG's
    depth = np.full((96, 128), 2.0, np.float32)
    step = 2.0**2 / DISPARITY * DISPARITY_STEP
    np.testing.assert_allclose(sensed_depth(depth, PERFECT, rng()), 2.0, atol=step)
    labels = (picture()[..., 0] > 100).astype(np.uint8)
    np.testing.assert_array_equal(sensed_labels(labels, PERFECT, rng(), 20)[8:-8, 8:56], labels[8:-8, 8:56])
    np.testing.assert_allclose(sensed_pose(np.eye(4), PERFECT, rng()), np.eye(4), atol=1e-12)


@pytest.mark.parametrize(("strength", "more"), [("blur", 3.0), ("motion", 12.0)])
def test_blur_softens_edges(strength, more):
    color = picture()
    wide = replace(PERFECT, **{strength: more * 640 / 128 / 3})
    sharp, soft = (sensed_color(color, sensor, STILL, rng())[..., 0].astype(float) for sensor in (PERFECT, wide))
    assert np.abs(np.diff(soft, axis=1)).max() < 0.75 * np.abs(np.diff(sharp, axis=1)).max()
    assert soft.mean() == pytest.approx(sharp.mean(), abs=4)


def test_noise_grows_with_light_vignetting_darkens_corners_and_drift_changes_all():
    dark, bright = np.full((96, 128, 3), 20, np.uint8), np.full((96, 128, 3), 200, np.uint8)
    noisy = replace(PERFECT, shot=0.05)

    def linear_noise(color):
        return ((sensed_color(color, noisy, STILL, rng()) / 255.0) ** 2.2).std()

    assert linear_noise(bright) > 3 * linear_noise(dark)
    shaded = sensed_color(bright, replace(PERFECT, vignette=0.4), STILL, rng()).astype(float)
    assert shaded[0, 0].mean() < 0.85 * shaded[48, 64].mean() and shaded[48, 64].mean() == pytest.approx(200, abs=3)
    drift = np.array([0, 2.0, 0, -2.0])
    warm = sensed_color(bright, replace(PERFECT, balance=0.1), drift, rng()).astype(float).mean((0, 1))
    assert warm[0] > 210 and warm[1] == pytest.approx(200, abs=2) and warm[2] < 190


def test_drift_is_smooth_and_forgets():
    walks = drifting(20000, rng())
    assert np.abs(walks.mean(0)).max() < 0.25 and np.abs(walks.std(0) - 1).max() < 0.15
    assert np.diff(walks, axis=0).std() < 0.35
    assert abs(np.corrcoef(walks[:-200, 0], walks[200:, 0])[0, 1]) < 0.1


def test_depth_noise_grows_with_the_square_of_depth_and_comes_in_steps():
    sensor = replace(PERFECT, disparity=0.3)

    def noise(z):
        return sensed_depth(np.full((240, 320), z, np.float32), sensor, rng()).std()

    assert noise(4.0) / noise(1.0) == pytest.approx(16, rel=0.35)
    measured = sensed_depth(np.full((240, 320), 3.0, np.float32), sensor, rng())
    steps = DISPARITY / measured / DISPARITY_STEP
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_depth_is_lost_behind_silhouettes_at_grazing_angles_far_away_and_in_the_dark():
    sensor = replace(PERFECT, holes=1.0, range=6.0)
    flat = np.full((240, 320), 2.0, np.float32)
    few = (sensed_depth(flat, sensor, rng()) == 0).mean()
    assert few < 0.05
    step = flat.copy()
    step[:, 160:] = 1.0
    lost = sensed_depth(step, sensor, rng()) == 0
    assert lost[:, 154:160].mean() > 0.5 and lost[:, 170:].mean() < 0.05  # on what lies behind only
    far = sensed_depth(np.full((240, 320), 8.0, np.float32), sensor, rng())
    assert (far == 0).mean() > 0.8
    floor = np.tile((150 / np.arange(1, 241, dtype=np.float32))[:, None], (1, 320)).clip(0.1, 5)
    steep = sensed_depth(np.tile(np.linspace(0.5, 6.0, 320, dtype=np.float32), (240, 1)), sensor, rng()) == 0
    assert steep[:, 5:25].mean() > 0.3 > (sensed_depth(floor, sensor, rng())[200:] == 0).mean()
    dark = (sensed_depth(flat, sensor, rng(), np.zeros((240, 320, 3), np.uint8)) == 0).mean()
    assert dark > few + 0.3


def test_unknown_depth_stays_unknown():
    depth = np.full((96, 128), 2.0, np.float32)
    depth[:, :30], depth[:, -30:] = 0, np.inf
    measured = sensed_depth(depth, PERFECT, rng())
    assert (measured[:, :30] == 0).all() and (measured[:, -30:] == 0).all() and (measured[:, 40:80] > 0).all()


def test_depth_is_shifted_against_colour():
    depth = np.full((480, 640), 1.0, np.float32)
    depth[:, 320:] = 2.0
    shifted = sensed_depth(depth, replace(PERFECT, shift=(5.0, 0.0)), rng())
    assert shifted[100, 318] > 1.5 > shifted[100, 312]


def test_poses_err_by_millimetres_and_tenths_of_a_degree():
    sensor = Sensor(turn=0.3, slide=0.004)
    generator = rng()
    errors = np.stack([sensed_pose(np.eye(4), sensor, generator) for _ in range(2000)])
    angles = np.degrees(np.arccos(((errors[:, 0, 0] + errors[:, 1, 1] + errors[:, 2, 2] - 1) / 2).clip(-1, 1)))
    assert np.sqrt((angles**2).mean()) == pytest.approx(0.3, rel=0.1)
    assert np.sqrt((errors[:, :3, 3] ** 2).sum(1).mean()) == pytest.approx(0.004, rel=0.1)
    np.testing.assert_allclose(
        errors[:, :3, :3] @ errors[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (2000, 1, 1)), atol=1e-9
    )


def test_labels_are_ragged_at_borders_only():
    labels = np.ones((240, 320), np.uint8)
    labels[60:180, 80:240] = 3
    changed = sensed_labels(labels, Sensor(ragged=6), rng(), 20) != labels
    assert changed[50:70, 80:240].mean() > 0.05 and not changed[90:150, 110:210].any() and not changed[:30].any()
    assert set(np.unique(sensed_labels(labels, Sensor(ragged=6), rng(), 20))) <= {1, 3, 20}


def test_sensors_differ_and_repeat_with_their_generator():
    assert Sensor.drawn(rng()) == Sensor.drawn(rng()) != Sensor.drawn(np.random.default_rng(1))
