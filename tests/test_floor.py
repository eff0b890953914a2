"""The floor that the references' depth shows, and what it says of classes."""

import math
from dataclasses import replace

import pytest
import torch

from dataset.database import open_scene
from dataset.render_dataset import Needs, TestSet
from dataset.views import Cameras
from network.floor import ABOVE_IT, ON_IT, find_floor, with_floor
from network.geometry import pixel_grid
from network.rendering import camera_rays
from network.view_renderer import ViewRenderer
from train.run import build_network
from train.settings import SCHEMA
from utils.config import load_config
from utils.errors import UserError
from utils.files import REPOSITORY

FLOOR = 1  # of ScanNet's classes


def network_of(*changes: str):
    return build_network(load_config(REPOSITORY / "configs/plus/surfaces.yaml", SCHEMA, list(changes)), "cpu")


@pytest.fixture(scope="module")
def batch(rooms):
    return TestSet(open_scene("scannet/test_000/black_64", rooms), 4, Needs(depth=True))[0].to("cpu")


def turned(cameras, angle):
    """Return the cameras in a world that is turned about its x axis: what was upright no longer is an axis."""
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[1.0, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    return replace(cameras, poses=cameras.poses @ turn.T)


def test_the_floor_is_found_whichever_way_the_world_is_turned(batch):
    views = batch.references
    floor = find_floor(views.depth[:, 0], views.cameras)
    assert floor.up[2] > 0.999 and abs(floor.height) < 0.03
    other = find_floor(views.depth[:, 0], turned(views.cameras, 0.6))
    assert abs(other.height) < 0.03 and torch.allclose(
        other.up, torch.tensor([0, -math.sin(0.6), math.cos(0.6)]), atol=0.03
    )


def test_a_table_or_nothing_is_no_floor(batch):
    views = batch.references
    up = torch.tensor([0.0, 0, 1])
    pixels = pixel_grid(*views.cameras.size)[None].expand(4, -1, 2)
    rays = camera_rays(views.cameras, pixels)
    table = ((rays.centres @ up - 0.75) / -(rays.directions @ up)).view(4, *views.cameras.size)
    assert find_floor(torch.where((table > 0) & (table < 3), table, 0), views.cameras) is None
    assert find_floor(torch.zeros_like(table), views.cameras) is None


def table_on_floor(unit: float):
    """Return depth and the camera, 1.5 m high, of a table of 0.75 m on a wide floor, poses and depth in `unit` metres."""
    pitch = torch.tensor(30.0).deg2rad()
    right, forward = torch.tensor([1.0, 0, 0]), torch.stack([torch.tensor(0.0), pitch.cos(), -pitch.sin()])
    to_world = torch.eye(4)
    to_world[:3] = torch.stack([right, torch.linalg.cross(forward, right), forward, torch.tensor([0, 0, 1.5])], -1)
    K = torch.tensor([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])
    camera = Cameras(torch.linalg.inv(to_world)[None, :3], K[None], torch.tensor([[0.3, 5]]), (60, 80))
    rays = camera_rays(camera, pixel_grid(60, 80)[None])
    table, floor = ((height - 1.5) / rays.directions[:, 2] for height in (0.75, 0.0))
    x, y = (rays.directions * table[:, None])[:, :2].T
    depth = torch.where((x.abs() < 0.6) & (y > 0.3) & (y < 1.2), table, floor).view(1, 60, 80)
    camera.poses[:, :3, 3] *= unit
    return unit * depth, camera


def test_a_table_is_no_floor_in_any_unit_since_the_floor_is_below():
    floor = find_floor(*table_on_floor(1.0))
    assert floor.up[2] > 0.999 and abs(floor.height) < 1e-3
    for unit in (1.7, 2.5):  # the table then is as far below the camera as a floor
        assert find_floor(*table_on_floor(unit)) is None


def test_what_lies_on_the_floor_is_rendered_as_floor_and_what_is_higher_is_not(batch):
    plain, changed = (ViewRenderer(network_of(f"floor_class={key}")) for key in ("null", FLOOR))
    changed.network.load_state_dict(plain.network.state_dict())
    camera, views = batch.query.cameras, batch.references
    before, after = (renderer.render(renderer.encode(views), camera) for renderer in (plain, changed))
    floor = find_floor(views.depth[:, 0], views.cameras)
    rays = camera_rays(camera, pixel_grid(*camera.size)[None])
    height = rays.points(before.depth[:, None]) @ floor.up - floor.height
    low, high = height < ON_IT, height > ABOVE_IT
    assert low.sum() > 50 and high.sum() > 50
    assert (after.logits[low].argmax(-1) == FLOOR).all() and (after.logits[high].argmax(-1) != FLOOR).all()
    others = torch.arange(before.logits.shape[1]) != FLOOR
    assert torch.equal(before.logits[:, others], after.logits[:, others]) and torch.equal(before.color, after.color)
    assert torch.equal(with_floor(before.logits, rays.points(before.depth[:, None]), floor, FLOOR), after.logits)


@pytest.mark.parametrize("change", ["sampler=coarse_to_fine", "render_label=false", "floor_class=20"])
def test_what_cannot_have_a_floor_says_so(change):
    with pytest.raises(UserError, match="floor_class"):
        network_of(f"floor_class={FLOOR}", change)
