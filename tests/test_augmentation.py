"""Augmented samples: still one room, seen by cameras that agree with its depth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset import augmentation
from dataset.augmentation import augment, color_change, mirrored, scaled, taken
from dataset.database import open_scene
from dataset.render_dataset import TrainingSet
from dataset.views import Views
from network.geometry import pixel_grid, pixel_rays, project, read_map
from network.init_net import needs
from utils.config import check_config


@pytest.fixture
def views(rooms) -> Views:
    """Three frames whose left part is cut off, so that the principal point lies off the middle."""
    scene, cut = open_scene("scannet/train_000/black_64", rooms), 12
    whole = scene.views(scene.frame_ids[10:13], depth=True, labels=True)
    Ks = whole.cameras.Ks.clone()
    Ks[:, 0, 2] -= cut
    cameras = replace(whole.cameras, Ks=Ks, size=(48, 64 - cut))
    images, depth, labels = (x[..., cut:].clone() for x in (whole.images, whole.depth, whole.labels))
    return Views(cameras, images, depth, labels)


def section(**changes):
    return check_config(changes, augmentation.DEFAULTS)


def disagreement(views: Views) -> float:
    """Median relative difference of depth between frames, moved into each other by depth and pose."""
    views = views.to("cpu")
    grid = pixel_grid(*views.cameras.size)
    centres, directions = pixel_rays(grid.expand(len(views), -1, -1), views.cameras.poses, views.cameras.Ks)
    points = centres[0] + directions[0] * views.depth[0].reshape(-1, 1)
    landed = project(points, views.cameras)
    seen = landed.valid[1] & (landed.depth[1] > 0) & (views.depth[0].flatten() > 0)
    read = read_map(views.depth, landed.pixels, views.cameras.size, align_corners=True)[1, :, 0]
    assert seen.float().mean() > 0.3
    return ((read - landed.depth[1]).abs() / landed.depth[1])[seen].median().item()


@pytest.mark.parametrize(
    "change", [mirrored, lambda views: scaled(views, 1.37), lambda views: scaled(mirrored(views), 0.8)]
)
def test_depth_and_cameras_still_agree(views, change):
    before, after = disagreement(views), disagreement(change(views))
    assert after == pytest.approx(before, abs=1e-3) and before < 0.01


def test_a_mirror_of_a_mirror_and_a_larger_smaller_room_are_the_same(views):
    twice = mirrored(mirrored(views))
    assert torch.equal(twice.images, views.images) and torch.equal(twice.labels, views.labels)
    torch.testing.assert_close(twice.cameras.poses, views.cameras.poses)
    torch.testing.assert_close(twice.cameras.Ks, views.cameras.Ks)
    assert torch.linalg.det(mirrored(views).cameras.poses[:, :, :3]).min() > 0.99  # still a rotation
    back = scaled(scaled(views, 2.0), 0.5)
    assert (back.depth.int() - views.depth.int()).abs().max() <= 1
    torch.testing.assert_close(scaled(views, 2.0).cameras.centres(), 2 * views.cameras.centres())


def test_what_is_too_far_to_be_stored_is_unknown(views):
    far = scaled(views, 40.0).depth.int()
    assert (far[views.depth.int() * 40 > 65535] == 0).all() and far.max() <= 65535


def test_colours_change_alike_in_all_frames_and_more_with_strength(views):
    references, query = augment(views, views, section(color=1.0), np.random.default_rng(1))
    assert torch.equal(references.images, query.images) and not torch.equal(references.images, views.images)
    assert torch.equal(references.depth, views.depth)
    changes = [
        np.abs(color_change(strength, np.random.default_rng(0))[0][:, :3] - np.eye(3)).max() for strength in (0.1, 1)
    ]
    assert changes[0] < changes[1] / 5
    brightest = [color_change(1.0, np.random.default_rng(seed))[0][:, :3].sum(1) for seed in range(200)]
    assert np.exp(-0.71) < np.min(brightest) and np.max(brightest) < np.exp(0.71)  # saturation leaves grey as it is
    matrix, curve = color_change(0.0, np.random.default_rng(0))
    np.testing.assert_allclose(matrix, np.eye(3, 4), atol=1e-12)
    assert (curve == np.arange(256)).all()


def test_a_sensor_takes_the_references_and_leaves_the_query(views):
    references, query = augment(views, views, section(sensor=1.0), np.random.default_rng(0))
    assert torch.equal(query.images, views.images) and torch.equal(query.depth, views.depth)
    sensed, exact = references.depth.float(), views.depth.float()
    known = (sensed > 0) & (exact > 0)
    assert 0.001 < (sensed / exact - 1)[known].abs().mean() < 0.1 and (sensed == 0).any()
    assert references.images.dtype == torch.uint8 and references.depth.dtype == torch.uint16
    moved = (references.cameras.centres() - views.cameras.centres()).norm(dim=-1)
    assert torch.equal(query.cameras.poses, views.cameras.poses) and 1e-4 < moved.mean() < 0.02
    rotations = references.cameras.poses[:, :, :3]
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(len(views), 3, 3))
    assert torch.equal(taken(views, np.random.default_rng(3)).images, taken(views, np.random.default_rng(3)).images)


def test_a_training_set_augments_by_its_seed_and_only_if_asked(config):
    def sample(**augmented):
        cfg = config(train_dataset_cfg={"train_ray_num": 8, "min_wn": 3, "max_wn": 4, "augment": augmented})
        return TrainingSet(cfg, 5, needs(cfg))[2]

    plain, first, second = sample(), sample(color=1.0, scale=1.4), sample(color=1.0, scale=1.4)
    assert torch.equal(first.references.images, second.references.images)
    assert not torch.equal(first.references.images, plain.references.images)
    assert not torch.equal(first.references.cameras.poses, plain.references.cameras.poses)


def test_depth_is_hidden_from_the_references_alone(views):
    references, query = augment(views, views, section(hide_depth=1.0), np.random.default_rng(0))
    assert (references.depth.int() == 0).all() and torch.equal(query.depth, views.depth)
    hidden = [
        (augment(views, views, section(hide_depth=0.3), np.random.default_rng(i))[0].depth.int() == 0).all()
        for i in range(60)
    ]
    assert 8 < sum(bool(each) for each in hidden) < 30
