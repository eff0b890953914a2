"""The generator: exact where it can be computed by hand, and never writing twice."""

import numpy as np
import pytest

from dataset.synthetic.generate import SIZES, Size, generate
from dataset.synthetic.parts import Material, box, rotation_z
from dataset.synthetic.raycast import CLASS_NAMES, IGNORED, Light, RayCaster
from dataset.synthetic.room import CLEARANCE, Room, _distance, furnish, walk
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
def test_the_walk_is_smooth_inside_the_room_and_clear_of_things(seed):
    room = furnish(seed)
    poses = walk(room, 80, seed)
    positions = poses[:, :3, 3]
    assert (positions > 0).all() and (positions < room.size).all()
    assert min(_distance(part, positions).min() for part in room.boxes) > CLEARANCE * 0.99
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() < 0.12
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (80, 1, 1)), atol=1e-9
    )
    assert (np.linalg.det(poses[:, :3, :3]) > 0).all() and (
        poses[:, 2, 1] < -0.5
    ).all()  # the image's down is the world's


def test_rooms_differ_and_repeat_with_their_seed():
    first, again, other = furnish(3), furnish(3), furnish(4)
    assert len(first.boxes) == len(again.boxes) and (first.boxes[20].centre == again.boxes[20].centre).all()
    assert (first.size != other.size).any()


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
    with pytest.raises(UserError, match="holds rooms of 3 frames at 32x24"):
        generate(tmp_path, "scannet", SIZES["tiny"])
