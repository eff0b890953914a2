"""The generator: exact where it can be computed by hand, and never writing twice."""

from dataclasses import replace

import numpy as np
import pytest

from dataset.synthetic import fine
from dataset.synthetic.generate import SIZES, STYLES, Size, generate
from dataset.synthetic.parts import Material, Room, box, rotation_z
from dataset.synthetic.placing import CLEARANCE
from dataset.synthetic.raycast import CLASS_NAMES, IGNORED, Light, RayCaster
from dataset.synthetic.room import furnish, walk
from utils.errors import UserError

GREY = Material.of((0.5, 0.5, 0.5))


def simple_room() -> Room:
    """A floor, a ceiling and a turned box in front of the camera; the camera looks along +y from (0, 0, 1)."""
    boxes = [
        box("floor", GREY, (-5, -5, -1), (5, 15, 0)),
        box("ceiling", GREY, (-5, -5, 3), (5, 15, 4)),
        box("table", GREY, (-1, 3, 0), (1, 5, 2), rotation_z(np.pi / 4)),
    ]
    return Room(boxes, np.array([5, 15, 3.0]), np.array([[0, 2, 2.8]]), np.ones((1, 3)), np.ones(3))


POSE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1.0]])
K = np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]])


def test_depth_and_class_are_exact():
    _, depth, classes = RayCaster(simple_room(), Light(1.0, 2, 1), 0).render(K, POSE, (48, 64), 1)
    # the box's nearest edge is straight ahead, at y = 4 - sqrt(2); its faces recede at 45 degrees
    for x in (28, 31, 32, 40):
        slope = abs(x - 31.5) / 40
        assert depth[23, x] == pytest.approx((4 - np.sqrt(2)) / (1 - slope), rel=1e-4)
        assert CLASS_NAMES[classes[23, x]] == "table"
    # the floor is 1 m below: z-depth = 40 / (y - 23.5) whatever x
    np.testing.assert_allclose(depth[44, :8], 40 / (44 - 23.5), rtol=1e-4)
    assert CLASS_NAMES[classes[44, 0]] == "floor" and classes[2, 0] == IGNORED


def test_boxes_behind_the_camera_are_not_seen():
    turned = POSE.copy()
    turned[:3, :3] = POSE[:3, :3] @ np.diag([-1.0, 1, -1])
    _, _, classes = RayCaster(simple_room(), Light(1.0, 2, 1), 0).render(K, turned, (48, 64), 1)
    assert CLASS_NAMES.index("table") not in classes


def test_light_is_darker_in_corners_and_in_shadow():
    caster = RayCaster(simple_room(), Light(0.2, 48, 12), 0)
    color, _, _ = caster.render(K, POSE, (48, 64), 1)
    assert color.std() > 5  # one grey everywhere would look flat
    # just in front of the box is darker than the open floor
    looking_down = np.array([[1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, -1, 2.9], [0, 0, 0, 1.0]])
    down, _, classes = caster.render(K, looking_down, (48, 64), 1)
    floor = classes == CLASS_NAMES.index("floor")
    assert floor.sum() > 500 and down[floor].std() > 3


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("style", STYLES)
def test_the_walk_is_smooth_inside_the_room_and_clear_of_things(style, seed):
    room = STYLES[style].furnish(seed)
    poses = STYLES[style].walk(room, 80, seed)
    positions = poses[:, :3, 3]
    assert (positions > 0).all() and (positions < room.size).all()
    assert min(part.distance(positions).min() for part in room.parts) > CLEARANCE * 0.99
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() < 0.2
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (80, 1, 1)), atol=1e-9
    )
    assert (np.linalg.det(poses[:, :3, :3]) > 0).all() and (
        poses[:, 2, 1] < -0.5
    ).all()  # the image's down is the world's


def test_rooms_differ_and_repeat_with_their_seed():
    first, again, other = furnish(3), furnish(3), furnish(4)
    assert len(first.parts) == len(again.parts) and (first.parts[20].centre == again.parts[20].centre).all()
    assert (first.size != other.size).any()


def test_primitive_rooms_keep_their_pixels():
    """Networks trained on the rooms of a seed stay comparable with those trained later."""
    room = furnish(2)
    color, depth, _ = RayCaster(room, Light(0.5, 6, 2), 2).render(K, walk(room, 48, 2)[20], (48, 64), 1)
    assert len(room.parts) == 181
    np.testing.assert_allclose(color.mean((0, 1)), [141.4, 136.01, 112.74], atol=0.05)
    expected = [[2.808, 3.872, 4.051, 3.045], [2.968, 4.228, 4.116, 3.412], [2.41, 1.129, 2.41, 2.41]]
    np.testing.assert_allclose(depth[::16, ::16], expected, atol=2e-3)


@pytest.mark.parametrize("seed", range(8))
def test_a_fine_walk_goes_round_the_room_and_looks_across_it(seed):
    room = fine.furnish(seed)
    poses = fine.walk(room, 40, seed)
    outward = poses[:, :2, 3] - room.size[:2] / 2
    turned = np.unwrap(np.arctan2(outward[:, 1], outward[:, 0]))
    assert abs(turned[-1] - turned[0]) == pytest.approx(2 * np.pi * 39 / 40, abs=0.2)
    assert ((outward * poses[:, :2, 2]).sum(1) < 0).all()


def test_fine_rooms_show_every_class():
    seen = {part.label for seed in range(16) for part in fine.furnish(seed).parts}
    assert seen == {*CLASS_NAMES, "ceiling"}


def test_nothing_is_rewritten_and_what_is_missing_is_added(tmp_path):
    size = Size({"train": 1}, 3, (24, 32), Light(1.0, 2, 1), 1)
    generate(tmp_path, "scannet", size)
    files = sorted(tmp_path.glob("scannet/train_000/*/*"))
    before = {path: path.stat().st_mtime_ns for path in files}
    gone = tmp_path / "scannet" / "train_000" / "depth" / "1.png"
    content = gone.read_bytes()
    gone.unlink()
    generate(tmp_path, "scannet", size)
    assert gone.read_bytes() == content
    untouched = [path for path in files if path.stem in ("0", "2")]
    assert untouched and all(path.stat().st_mtime_ns == before[path] for path in untouched)
    with pytest.raises(UserError, match="holds plain rooms of 3 frames at 32x24"):
        generate(tmp_path, "scannet", SIZES["tiny"])
    with pytest.raises(UserError, match="holds plain rooms"):
        generate(tmp_path, "scannet", replace(size, style="fine"))
