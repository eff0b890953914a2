"""Files as people have them: each is read right, by loaded values against the truth, or refused in one line."""

import io
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from captures import FRAMES, SIZE, assert_same, both, change_poses, edit, edit_frames, image, opened, prepared
from PIL import Image

from dataset.camera import read_lens
from dataset.check.__main__ import check_scene
from dataset.check.page import verdict
from dataset.database import held_out_scenes, open_scene
from dataset.labels import SCANNET_CLASSES
from dataset.maps import read_depth, read_ids, read_mask
from dataset.poses import to_pose
from dataset.prepare.transforms import prepare_transforms
from dataset.render_dataset import Needs, TestSet, TrainingSet
from dataset.synthetic.writers import CATEGORIES, NYU40_CEILING
from utils import logging
from utils.errors import UserError
from utils.files import read_json
from utils.images import read_color, require_whole, write_image

# 1. Orientation tags


def tagged(data: bytes, tag: int, suffix: str) -> bytes:
    """An image file with an orientation tag, its pixels as they are."""
    exif = Image.Exif()
    exif[274] = tag
    if suffix == ".jpg":  # inserted, so that nothing is encoded again
        content = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        return data[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + data[2:]
    out, picture = io.BytesIO(), Image.open(io.BytesIO(data))
    options = {"tiffinfo": {274: tag}} if suffix == ".tif" else {"exif": exif.tobytes()}
    picture.save(
        out,
        {".png": "PNG", ".tif": "TIFF", ".webp": "WEBP"}[suffix],
        **options,
        **({"lossless": True} if suffix == ".webp" else {}),
    )
    return out.getvalue()


@pytest.mark.parametrize(
    ("suffix", "tag"), [(".jpg", 3), (".jpg", 6), (".jpg", 8), (".png", 6), (".tif", 3), (".tif", 6), (".webp", 6)]
)
def test_an_orientation_tag_turns_nothing_and_is_not_copied(capture, base, tag, suffix):
    for path in (capture / "images").iterdir():
        data = tagged(path.read_bytes(), tag, suffix)
        path.unlink()
        path.with_suffix(suffix).write_bytes(data)
    edit_frames(capture, lambda frame: frame.update(file_path=frame["file_path"].replace(".jpg", suffix)))
    truth = opened(base)
    for scene in both(capture):
        assert_same(scene, truth)
    for path in (capture.parent / "data" / "transforms" / "mine" / "images").iterdir():
        assert Image.open(path).getexif().get(274, 1) == 1


def test_depth_in_a_turned_tiff_is_read_as_stored(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) + 500
    Image.fromarray(values).save(tmp_path / "d.tif", tiffinfo={274: 6})
    np.testing.assert_array_equal(read_depth(tmp_path / "d.tif"), values)


# 2. Damage


@pytest.mark.parametrize("content", [b"\xff" * 60, bytes(range(100, 160))])
def test_a_damaged_jpeg_is_counted_and_named(capture, content):
    path = image(capture)
    data = bytearray(path.read_bytes())
    for start in range(len(data) // 3, len(data) - 100, 200):  # bytes may happen to decode without an error
        damaged = bytes(data[:start]) + content + bytes(data[start + 60 :])
        path.write_bytes(damaged)
        try:
            read_color(path)
        except UserError:
            break
    with pytest.raises(UserError, match=r"images/3.jpg: the image is (damaged|truncated)"):
        opened(capture).views(["3"])
    report = check_scene(f"{capture}/black_64", Path("data"), 0)
    assert len(report.inventory.unreadable) == 1 and "3.jpg" in verdict(report)[0]
    assert report.consistency is not None  # of the other frames
    with pytest.raises(UserError, match="3.jpg"):
        prepared(capture)
    assert not (capture.parent / "data" / "transforms" / "mine").exists()


def test_most_overwritten_jpegs_are_noticed(base, tmp_path):
    data, rng, path, noticed = image(base).read_bytes(), np.random.default_rng(0), tmp_path / "x.jpg", [0, 0]
    for _ in range(60):
        start = int(rng.integers(700, len(data) - 100))
        path.write_bytes(data[:start] + rng.bytes(60) + data[start + 60 :])
        for thoroughness, read in enumerate((read_color, lambda path: read_color(path) is None or require_whole(path))):
            try:
                read(path)
            except UserError:
                noticed[thoroughness] += 1
    assert noticed[0] >= 42 and noticed[1] >= 53


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 48), (101, 77), (3, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"quality": 30, "optimize": True},
        {"restart_marker_blocks": 7},
        {"progressive": True},
    ],
    ids=str,
)
def test_whole_jpegs_of_any_kind_are_whole(base, tmp_path, options, size, mode):
    Image.open(image(base)).resize(size).convert(mode).save(tmp_path / "x.jpg", **options)
    require_whole(tmp_path / "x.jpg")


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_damaged_png_is_an_error(capture, where):
    path = capture / "depth" / "3.png"
    data = bytearray(path.read_bytes())
    start = int(where * len(data))
    data[start : start + 8] = bytes(byte ^ 0x55 for byte in data[start : start + 8])
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"depth/3.png: the image is (damaged|truncated)"):
        read_depth(path)


# 3. Depth


def write_tiff(path, values):
    Image.fromarray(values).save(path)


WRITERS = {
    "tiff metres": (".tiff", lambda mm: (mm / 1000).astype(np.float32), write_tiff),
    "npy metres": (".npy", lambda mm: (mm / 1000).astype(np.float64), np.save),
    "npy half": (".npy", lambda mm: (mm / 1000).astype(np.float16), np.save),
    "npy millimetres": (".npy", lambda mm: mm.astype(np.int32), np.save),
    "tiff millimetres": (".tif", lambda mm: mm, write_tiff),
    "three channels": (".png", lambda mm: np.repeat(mm[..., None], 3, -1), lambda path, v: cv2.imwrite(str(path), v)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_depth_of_any_type_becomes_millimetres(capture, base, kind):
    suffix, convert, write = WRITERS[kind]
    for path in (capture / "depth").iterdir():
        mm = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        path.unlink()
        write(path.with_suffix(suffix), convert(mm))
    edit_frames(capture, lambda f: f.update(depth_file_path=f["depth_file_path"].replace(".png", suffix)))
    truth = opened(base).views(["3"], depth=True).to("cpu").depth
    for scene in both(capture):
        torch.testing.assert_close(scene.views(["3"], depth=True).to("cpu").depth, truth, atol=3e-3, rtol=0)
    near, far = prepared(capture).depth_range
    assert 0.3 < near < 3 < far < 10


def test_holes_and_what_is_too_far_are_unknown(tmp_path):
    values = np.array([[1.5, np.nan, np.inf], [-1, 0, 1e10], [70, 65.5, 0.001]], np.float32)
    np.save(tmp_path / "d.npy", values)
    assert read_depth(tmp_path / "d.npy").tolist() == [[1500, 0, 0], [0, 0, 0], [0, 65500, 1]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((8, 8), 2500, np.float32), "depth should be metres of a room, but is 2500"),
        (np.full((8, 8), 3, np.uint16), "is 3 in the middle, by whole numbers, as millimetres, 0.003 m"),
        (np.full((8, 8), -2.0), "depth is negative"),
        (np.ones((8, 8), bool), "should be numbers, but is bool"),
        (np.full((8, 8), 90, np.uint8), "depth has 8 bits"),
        (np.zeros((8, 8, 3), np.uint8) + np.arange(3, dtype=np.uint8), "one channel, but has 3 that differ"),
        (np.zeros(8, np.float32), "should be an image"),
    ],
)
def test_depth_that_cannot_be_told_is_refused(values, message, tmp_path):
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(UserError, match=message):
        read_depth(tmp_path / "d.npy")


@pytest.mark.parametrize("content", [b"v/1\x01\x02", b"\0\0\0\x18ftypheic", b"\xff\xd8\xff\xe0"])
def test_formats_that_are_not_read_are_named(content, tmp_path):
    (tmp_path / "d.xyz").write_bytes(content + bytes(20))
    with pytest.raises(UserError, match="OpenEXR is not read|HEIC or AVIF is not read|is a JPEG, which does not keep"):
        read_depth(tmp_path / "d.xyz")


@pytest.mark.parametrize(
    ("factor", "keys"),
    [
        (5, {"integer_depth_scale": 1 / 5000}),
        (6.5535, {"depth_unit_scale_factor": 1 / 6553.5}),
        (6.5535, {"png_depth_scale": 6553.5}),
        (0.1, {"depth_scale": 100}),
        (4, {"depth_scale": 0.00025}),
    ],
)
def test_keys_give_the_unit_of_depth(capture, base, factor, keys):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) * factor).round().astype(np.uint16))
    edit(capture, lambda content: content.update(keys))
    truth = opened(base).views(["3"], depth=True).to("cpu").depth
    for scene in both(capture):
        torch.testing.assert_close(scene.views(["3"], depth=True).to("cpu").depth, truth, atol=6e-3, rtol=0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"integer_depth_scale": 1000}, "integer_depth_scale should be metres of a unit"),
        ({"integer_depth_scale": "mm"}, "integer_depth_scale should be a number"),
        ({"integer_depth_scale": 0}, "should be a positive number"),
        ({"integer_depth_scale": 0.001, "depth_scale": 5000}, "disagree about the unit"),
        ({"depth_range": [3, 1]}, "0 < near < far"),
        ({"units": "feet"}, "units is feet"),
        ({"applied_scale": -1}, "applied_scale should be a positive number"),
    ],
)
def test_units_that_make_no_sense_are_refused(capture, keys, message):
    edit(capture, lambda content: content.update(keys))
    with pytest.raises(UserError, match=message):
        opened(capture)


def test_depth_that_ends_before_the_camera_sees_is_no_result(capture):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) // 500).astype(np.uint16))
    with pytest.raises(UserError, match="depth should be metres of a room"):
        prepared(capture)


# 4. Poses


def scaled(matrix, factor=2.0):
    matrix = matrix.copy()
    matrix[:3, :3] = matrix[:3, :3] * factor
    return matrix


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize(
    "change",
    [scaled, lambda m: scaled(m, 0.01), lambda m: scaled(m, np.array([2.0, 1, 3])), lambda m: 3 * m, lambda m: m[:3]],
    ids=["twice", "small", "each axis", "homogeneous", "3x4"],
)
def test_a_rotation_with_a_scale_is_divided_by_it(capture, base, change, every, capsys):
    change_poses(capture, change, every)
    for scene in both(capture):
        assert_same(scene, opened(base))
    mended = change(np.eye(4))[-1, -1] == 1 and change(np.eye(4))[0, 0] != 1
    assert ("rotations are scaled by" in capsys.readouterr().err) == mended


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m @ np.diag([-1.0, 1, 1, 1]), "is a mirror image"),
        (lambda m: np.diag([1.0, 1, -1, 1]) @ m, "is a mirror image"),
        (lambda m: m.T, "is it transposed"),
        (lambda m: m @ np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "not at right angles"),
        (lambda m: m[:2], "should be 4x4"),
        (lambda m: [["a"] * 4] * 4, "should be 4x4"),
    ],
)
def test_what_is_no_rotation_is_refused_everywhere(capture, change, message):
    change_poses(capture, change, 5)
    for use in (opened, prepared):
        with pytest.raises(UserError, match=message):
            use(capture)


def test_poses_of_scannet_and_replica_are_checked_alike(room, replica_rooms, tmp_path):
    path = room / "scannet" / "train_000" / "pose" / "3.txt"
    pose = np.loadtxt(path)
    np.savetxt(path, scaled(pose))
    scene = open_scene("scannet/train_000/black_64", room)
    np.testing.assert_allclose(scene.camera_to_world[scene.frame_ids.index("3")], pose, atol=1e-5)
    np.savetxt(path, pose @ np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(UserError, match=r"pose: 3.txt is a mirror image"):
        open_scene("scannet/train_000/black_64", room)
    copy = shutil.copytree(replica_rooms / "Replica" / "val_000", tmp_path / "r" / "Replica" / "val_000")
    lines = np.loadtxt(copy / "Sequence_1" / "traj_w_c.txt")
    lines[7] = (lines[7].reshape(4, 4) @ np.diag([1, 1, -1.0, 1])).ravel()
    np.savetxt(copy / "Sequence_1" / "traj_w_c.txt", lines)
    with pytest.raises(UserError, match="line 8 is a mirror image"):
        open_scene("replica/val_000/Sequence_1/black_64", tmp_path / "r")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_lost_poses_are_left_out_wherever_they_stand(capture, room, value):
    change_poses(capture, lambda m: np.full((4, 4), value), 6)
    for scene in both(capture):
        assert len(scene) == FRAMES - 4
    assert opened(capture).skipped == {"tracking lost": 4}
    path = room / "scannet" / "train_000" / "pose" / "3.txt"
    np.savetxt(path, np.full((4, 4), value))
    assert "3" not in open_scene("scannet/train_000/black_64", room).frame_ids


# 5, 6. Camera models


FISHEYE = {"k1": 0.1, "k2": -0.05, "k3": 0.01, "k4": 0.002}


@pytest.mark.parametrize(
    "model",
    [
        {"camera_model": "OPENCV_FISHEYE"},
        {"camera_model": "opencv_fisheye"},
        {"camera_model": "FISHEYE"},
        {"is_fisheye": True},
        {"distortion_model": "equidistant"},
        {"camera_model": "PINHOLE", "distortion_model": "equidistant"},
        {"model": "OPENCV_FISHEYE"},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["top", "frames"])
def test_a_fisheye_is_seen_whoever_names_it_and_undistorted_once(capture, model, place):
    def change(content):
        content.pop("camera_model")
        for target in [content] if place == "top" else content["frames"]:
            target.update(model, **FISHEYE)

    edit(capture, change)
    with pytest.raises(UserError, match="is distorted; undistort .*OPENCV_FISHEYE"):
        opened(capture)
    if place == "frames" and "is_fisheye" not in model:
        return
    scene = prepared(capture)
    K = open_scene(f"transforms/mine/black_{SIZE[1]}", capture.parent / "data").cameras(["3"]).Ks[0].double().numpy()
    read = read_color(image(capture))
    views = open_scene(f"transforms/mine/black_{SIZE[1]}", capture.parent / "data").views(["3"])
    seen = views.images[0].permute(1, 2, 0).numpy().astype(int)
    for y, x in ((48, 64), (30, 40), (60, 100), (70, 30)):  # by the formula of an equidistant lens, in a loop
        a, b = (x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]
        r = np.hypot(a, b)
        theta = np.arctan(r)
        bent = theta * (1 + 0.1 * theta**2 - 0.05 * theta**4 + 0.01 * theta**6 + 0.002 * theta**8) / r
        u, v = K[0, 0] * a * bent + K[0, 2], K[1, 1] * b * bent + K[1, 2]
        expected = cv2.remap(read, np.float32([[u]]), np.float32([[v]]), cv2.INTER_LINEAR)[0, 0]
        assert np.abs(seen[y, x] - expected).max() < 14
    assert len(scene) == FRAMES


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"camera_model": "OPENCV", "k4": 0.01}, "OPENCV has no k4, which some read"),
        ({"camera_model": "OPENCV", "k5": 0.01}, "OPENCV has no k5"),
        ({"camera_model": "PINHOLE", "k1": 0.1}, "PINHOLE has no k1"),
        ({"camera_model": "SIMPLE_PINHOLE", "p1": 0.1}, "PINHOLE has no p1"),
        ({"camera_model": "SIMPLE_RADIAL", "k2": 0.1}, "SIMPLE_RADIAL has no k2"),
        ({"camera_model": "OPENCV_FISHEYE", "p1": 0.1}, "OPENCV_FISHEYE has no p1"),
        ({"camera_model": "RADIAL_FISHEYE", "k3": 0.1}, "RADIAL_FISHEYE has no k3"),
        ({"camera_model": "OPENCV", "s1": 0.1}, "OPENCV has no s1"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model EQUIRECTANGULAR is not supported"),
        ({"camera_model": "THIN_PRISM_FISHEYE"}, "THIN_PRISM_FISHEYE is not supported"),
        ({"equirectangular": True}, "EQUIRECTANGULAR is not supported"),
        ({"orthographic": True}, "ORTHOGRAPHIC is not supported"),
        ({"camera_model": "OPENCV", "is_fisheye": True}, "camera_model says OPENCV but is_fisheye says"),
        ({"camera_model": "OPENCV", "distortion_params": [0.1, 0, 0, 0]}, "distortion_params is not read"),
        ({"camera_model": "OPENCV", "k1": "a"}, "k1 should be a number"),
        ({"lens_shading": 3}, "lens_shading is not read"),
        ({"rolling_shutter": [0, 1, 0]}, "rolling_shutter is not read"),
        ({"coordinate_system": "opencv"}, "coordinate_system is opencv"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["top", "frame"])
def test_models_and_terms_that_cannot_be_honoured_are_refused(capture, keys, message, place):
    def change(content):
        content.pop("camera_model")
        (content if place == "top" else content["frames"][5]).update(keys)

    edit(capture, change)
    for use in (opened, prepared):
        with pytest.raises(UserError, match=message):
            use(capture)


def test_terms_in_opencv_s_order():
    terms = {"k1": 1.0, "k2": 2, "p1": 3, "p2": 4, "k3": 5, "k4": 6, "k5": 7, "k6": 8}
    lens = read_lens({"camera_model": "FULL_OPENCV", **terms}, {}, "x")
    assert lens.coefficients.tolist() == [1, 2, 3, 4, 5, 6, 7, 8] and not lens.is_pinhole
    assert read_lens({"model": "iPhone 14", "camera_model": "OPENCV", "k1": 0, "k4": 0.0}, {}, "x").is_pinhole


def test_keys_that_nobody_knows_are_named(capture, capsys):
    edit(capture, lambda content: content.update(sparkle=3))
    opened(capture)
    assert "keys that are not read: sparkle" in capsys.readouterr().err


# 7. Sizes


def resize_images(capture, size, numbers=range(FRAMES)):
    for number in numbers:
        picture = cv2.resize(read_color(image(capture, number)), size[::-1], interpolation=cv2.INTER_AREA)
        write_image(image(capture, number), picture, quality=98)


@pytest.mark.parametrize("numbers", [range(FRAMES), range(0, FRAMES, 3)], ids=["all", "some"])
def test_intrinsics_follow_images_of_another_size_and_the_same_shape(capture, base, numbers):
    resize_images(capture, (48, 64), numbers)
    for scene in both(capture):
        truth = opened(base)
        torch.testing.assert_close(scene.cameras(["3"]).Ks, truth.cameras(["3"]).Ks, atol=1e-3, rtol=0)
        assert len(scene) == FRAMES
        difference = (scene.views(["3"]).images.float() - truth.views(["3"]).images.float()).abs().mean()
        assert difference < 4


@pytest.mark.parametrize("size", [(128, 96), (96, 96)])
def test_images_of_another_shape_than_w_and_h_are_refused(capture, size):
    resize_images(capture, size)
    for use in (opened, prepared):
        with pytest.raises(UserError, match=f"is {size[1]}x{size[0]}, but its w and h say 128x96"):
            use(capture)


def test_without_w_and_h_the_principal_point_tells(capture, base):
    edit(capture, lambda content: [content.pop(key) for key in "wh"] and None)
    assert_same(opened(capture), opened(base))
    resize_images(capture, (48, 64))
    with pytest.raises(UserError, match="intrinsics of another image size"):
        opened(capture)


# 8. Nothing of the user's is overwritten


def test_preparing_in_place_and_names_that_leave_the_folder_are_refused(capture):
    before = {path: path.read_bytes() for path in capture.rglob("*") if path.is_file()}
    edit(capture, lambda content: content.update(camera_model="OPENCV", k1=0.1))
    before[capture / "transforms.json"] = (capture / "transforms.json").read_bytes()
    other = capture.parent / "other"
    shutil.copytree(capture, other)
    (capture.parent / "link").symlink_to(capture)
    for source, name, message in (
        (capture, "capture", "holds transforms.json of the source"),
        (capture.parent / "link", "capture", "holds transforms.json of the source"),
        (capture, "../capture", "should be the name of one folder"),
        (capture, "..", "should be the name of one folder"),
        (capture, "", "should be the name of one folder"),
        (capture, "other", "was not made by preparation"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_transforms(source, capture.parent, name)
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in capture.parent.iterdir() if path.name.startswith(".")]


def test_images_below_the_target_are_not_touched(capture, tmp_path):
    """A source elsewhere that names images inside the folder that would be written."""
    target = capture.parent / "out" / "mine"
    shutil.move(capture, target)
    source = tmp_path / "source" / "transforms.json"
    source.parent.mkdir()
    content = json.loads((target / "transforms.json").read_text())
    for frame in content["frames"]:
        for key in ("file_path", "depth_file_path", "semantic_path"):
            frame[key] = str(target / frame[key])
    source.write_text(json.dumps(content))
    with pytest.raises(UserError, match="of the source itself"):
        prepare_transforms(source, target.parent, "mine")


def test_preparing_again_replaces_what_preparation_made(capture):
    prepared(capture)
    edit(capture, lambda content: content.update(frames=content["frames"][:20]))
    assert len(prepared(capture)) == 20
    assert [path.name for path in (capture.parent / "data" / "transforms").iterdir()] == ["mine"]


# 9. Masks


@pytest.mark.parametrize(
    "mask",
    [
        np.uint8([[0, 255]]),
        np.uint8([[0, 1]]),
        np.uint8([[[0, 0, 0], [255, 255, 255]]]),
        np.uint8([[[0, 0, 0, 255], [0, 9, 0, 255]]]),
        np.uint8([[[9, 9, 9, 0], [9, 9, 9, 255]]]),
        np.array([[0, 65535]], np.uint16),
    ],
    ids=["grey", "ones", "three channels", "colour", "alpha", "16 bits"],
)
def test_masks_of_some_frames_are_honoured_and_no_mask_means_all(capture, mask):
    big = np.repeat(np.repeat(mask, SIZE[0], 0), SIZE[1] // 2, 1)
    (capture / "masks").mkdir()
    cv2.imwrite(str(capture / "masks" / "3.png"), big if big.ndim == 2 else big[..., [2, 1, 0, 3][: big.shape[2]]])
    edit(capture, lambda content: content["frames"][3].update(mask_path="masks/3.png"))
    for scene in both(capture):
        views = scene.views(["2", "3"])
        assert len(scene) == FRAMES and views.mask[0].all()
        assert not views.mask[1, ..., :31].any() and views.mask[1, ..., 33:].all()


def test_masks_and_lost_poses_of_some_frames_are_nothing_wrong(capture):
    change_poses(capture, lambda m: np.full((4, 4), np.nan), 6)
    (capture / "masks").mkdir()
    write_image(capture / "masks" / "3.png", np.uint8([[0, 255]]).repeat(SIZE[0], 0).repeat(SIZE[1] // 2, 1))
    edit(capture, lambda content: content["frames"][3].update(mask_path="masks/3.png"))
    assert verdict(check_scene(f"{capture}/black_64", Path("data"), 0)) == []


def test_a_jpeg_mask_is_cut_in_the_middle(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 20:] = 255
    write_image(tmp_path / "m.jpg", mask, quality=60)
    assert (read_mask(tmp_path / "m.jpg") == (mask > 0)).mean() > 0.99


def test_holes_of_some_undistorted_frames_leave_the_others_in(capture, base):
    edit(capture, lambda content: content["frames"][3].update(camera_model="OPENCV", k1=0.4))
    scene = prepared(capture)
    assert len(scene) == FRAMES
    views = scene.views(["2", "3"])
    assert views.mask[0].all() and 0.5 < views.mask[1].float().mean() < 0.99


# 10, 11 and the split of a capture


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: name,
        lambda name: f"./{name}",
        lambda name: name.replace("/", "\\"),
        lambda name: f"images/../{name}",
        lambda name: name.removesuffix(".jpg"),
        lambda name: name.split("/")[1],
        lambda name: f"/home/me/capture/{name}",
    ],
    ids=["same", "dot", "backslash", "up", "no suffix", "last part", "absolute"],
)
def test_lists_of_names_match_in_any_spelling(capture, spell):
    tests = ["images/2.jpg", "images/10.jpg"]
    edit(capture, lambda content: content.update(test_filenames=[spell(name) for name in tests]))
    for scene in both(capture):
        split = scene.split()
        assert split.tests == ["2", "10"] and len(split.references) == FRAMES - 2
        assert not set(split.tests) & {*split.references, *scene.training_frames(False)}


@pytest.mark.parametrize("key", ["train_filenames", "val_filenames", "test_filenames"])
@pytest.mark.parametrize("entry", ["images/99.jpg", "elsewhere/3.jpg", "jpg", 7])
def test_an_entry_that_matches_nothing_is_an_error(capture, key, entry):
    edit(capture, lambda content: content.update({key: ["images/2.jpg", entry]}))
    for use in (opened, prepared):
        with pytest.raises(UserError, match=key):
            use(capture)


def test_a_capture_with_only_training_names_tests_on_the_others(capture):
    names = [f"images/{number}.jpg" for number in range(16)]
    edit(capture, lambda content: content.update(train_filenames=names))
    split = opened(capture).split()
    assert split.tests == [str(number) for number in range(16, 24)] and len(split.references) == 16
    edit(capture, lambda content: content.update(train_filenames=[f"images/{n}.jpg" for n in range(FRAMES)]))
    for scene in both(capture):
        split = scene.split()
        assert split.tests == ["4", "12", "20"] and not set(split.tests) & set(split.references)


def test_a_frame_that_is_listed_for_both_is_for_testing(capture, capsys):
    edit(capture, lambda c: c.update(train_filenames=["images/1.jpg", "images/2.jpg"], test_filenames=["images/2.jpg"]))
    assert opened(capture).split() == (["1"], ["2"])
    assert "1 frames are listed for training and for testing" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["same name", "other spelling", "copied file"])
def test_a_frame_listed_twice_does_not_leak(capture, how, capsys):
    def change(content):
        again = dict(content["frames"][4])
        if how == "other spelling":
            again["file_path"] = "./images/../images/4.jpg"
        if how == "copied file":
            shutil.copy(image(capture, 4), capture / "images" / "zz.jpg")
            again["file_path"] = "images/zz.jpg"
        content["frames"].append(again)

    edit(capture, change)
    for scene in both(capture):
        assert len(scene) == FRAMES
        split = scene.split()
        tests = scene.cameras(split.tests).centres()
        assert torch.cdist(tests, scene.cameras(split.references).centres()).min() > 1e-3
    assert "a second copy of a frame: 1" in capsys.readouterr().err


def test_a_tripod_s_frames_are_no_copies(capture):
    change_poses(capture, lambda m: np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1], [0, 0, 0, 1.0]]))
    assert len(opened(capture)) == FRAMES


def test_two_captures_with_folders_of_one_name_are_two(base, tmp_path, config):
    first, second = (Path(shutil.copytree(base, tmp_path / part / "room")) for part in "ab")
    a, b = opened(first), opened(second)
    assert a.name != b.name and a.name == opened(first).name and "room" in a.name
    names = [str(first), f"{second}/black_64"]
    held_out = held_out_scenes([f"{first}/black_32"], "data")
    training = TrainingSet(config(train_set_list=names), 0, Needs(depth=True), held_out)
    assert not set(a.split().tests) & set(training.frames[0]) and len(training.frames[1]) == len(
        b.training_frames(False)
    )


def test_a_database_name_and_a_folder_are_one_scene(base, config):
    root = base.parent.parent
    held_out = held_out_scenes(["transforms/train_000/black_64"], root)
    training = TrainingSet(config(train_set_list=[str(base)], data_root=str(root)), 0, Needs(), held_out)
    assert not set(training.scenes[0].split().tests) & set(training.frames[0])


# 12. Which ids


def to_nyu40(room, folder="label-filt"):
    lookup = np.zeros(2000, np.uint8)
    for raw, (_, name) in CATEGORIES.items():
        lookup[raw] = SCANNET_CLASSES[name][0] if name else NYU40_CEILING
    scene = room / "scannet" / "train_000"
    for path in (scene / "label-filt").iterdir():
        write_image(path, lookup[cv2.imread(str(path), cv2.IMREAD_UNCHANGED)])
    if folder != "label-filt":
        (scene / "label-filt").rename(scene / folder)


NAME = "scannet/train_000/black_64"


def test_nyu40_ids_are_noticed_and_a_key_says_which(room, scannet_base, capsys, config):
    to_nyu40(room)
    open_scene(NAME, room)
    assert "look like NYU40 ids; set label_ids" in capsys.readouterr().err
    assert any("look like NYU40" in line for line in verdict(check_scene(NAME, room, 0)))
    truth = open_scene(NAME, scannet_base).views(["5"], labels=True).labels
    assert (open_scene(NAME, room, label_ids="nyu40").views(["5"], labels=True).labels == truth).all()
    assert verdict(check_scene(NAME, room, 0, "nyu40")) == []
    capsys.readouterr()
    open_scene(NAME, scannet_base)
    assert "NYU40" not in capsys.readouterr().err
    with pytest.raises(UserError, match="`label_ids` should be one of"):
        TrainingSet(config(label_ids="nyu"), 0, Needs())


# 13. Frames that are not what they seem


@pytest.mark.parametrize("numbers", [[7], [3, 9, 15], [10, 11, 12], [22, 23]])
def test_poses_that_were_reset_are_left_out(capture, room, numbers):
    def change(content):
        for number in numbers:
            content["frames"][number]["transform_matrix"] = np.eye(4).tolist()

    edit(capture, change)
    for scene in both(capture):
        assert len(scene) == FRAMES - len(numbers)
    assert opened(capture).skipped == {"pose reset to the identity": len(numbers)}
    before = len(open_scene(NAME, room))
    for number in numbers:
        np.savetxt(room / "scannet" / "train_000" / "pose" / f"{number}.txt", np.eye(4))
    assert not set(map(str, numbers)) & set(open_scene(NAME, room).frame_ids) and before > FRAMES - 3


def test_a_capture_that_starts_at_the_identity_keeps_its_first_frame(capture):
    first = np.array(json.loads((capture / "transforms.json").read_text())["frames"][0]["transform_matrix"])
    change_poses(capture, lambda m: np.linalg.inv(first) @ m)
    edit(capture, lambda content: content["frames"][0].update(transform_matrix=np.eye(4).tolist()))
    assert len(opened(capture)) == FRAMES


@pytest.mark.parametrize("mark", [{"is_bad": True}, {"bad": 1}, {"valid": False}, {"enabled": False}, {"blurry": True}])
def test_frames_that_the_capture_marks_as_bad_are_left_out(capture, mark):
    edit_frames(capture, lambda frame: frame.update({key: not value for key, value in mark.items()}))
    edit_frames(capture, lambda frame: frame.update(mark), every=6)
    for scene in both(capture):
        assert len(scene) == FRAMES - 4
    assert opened(capture).skipped == {"marked as bad": 4}


def test_frames_without_a_pose_or_an_image_are_left_out_alike(capture):
    edit(capture, lambda content: content["frames"][3].update(transform_matrix=None))
    image(capture, 5).unlink()
    for scene in both(capture):
        assert len(scene) == FRAMES - 2
    assert opened(capture).skipped == {"no pose": 1, "no image file": 1}


def test_depth_files_that_are_not_there_are_refused(capture):
    shutil.rmtree(capture / "depth")
    for use in (opened, prepared):
        with pytest.raises(UserError, match=r"depth/0.png is not there \(nor 23 others of depth\)"):
            use(capture)


def renumber(sequence, shift=0, step=1):
    for kind in ("rgb", "depth", "semantic_class"):
        files = sorted((sequence / kind).iterdir(), key=lambda path: -int(path.stem.rpartition("_")[2]))
        for path in files:
            path.rename(path.with_name(f"{kind}_{int(path.stem.rpartition('_')[2]) * step + shift}{path.suffix}"))


def test_images_numbered_against_their_trajectory(replica_rooms, tmp_path, capsys):
    logging.forget()
    copy = shutil.copytree(replica_rooms / "Replica" / "val_000", tmp_path / "Replica" / "val_000")
    truth = open_scene("replica/val_000/Sequence_1/black_64", replica_rooms)
    renumber(copy / "Sequence_1", 1)
    scene = open_scene("replica/val_000/Sequence_1/black_64", tmp_path)
    np.testing.assert_allclose(scene.camera_to_world, truth.camera_to_world)
    assert "the first pose is taken for image 1" in capsys.readouterr().err
    lines = (copy / "Sequence_1" / "traj_w_c.txt").read_text().splitlines()
    (copy / "Sequence_1" / "traj_w_c.txt").write_text("\n".join(lines[:-5]))
    with pytest.raises(UserError, match="images are numbered 1 to 48, and there are 43 poses"):
        open_scene("replica/val_000/Sequence_1/black_64", tmp_path)


# 14, 15, 16. The check


def checked(capture):
    return "; ".join(verdict(check_scene(f"{capture}/black_64", Path("data"), 8)))


def scale_depth(capture, factor):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) * factor).clip(0, 65535).astype(np.uint16))


def test_a_good_capture_passes(base):
    assert checked(base) == ""


@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (6.5535, r"1/6553.5 m, as in NICE-SLAM's Replica \(the factor 0.15\d+ is [0-3]\.\d% from it\)"),
        (5, r"1/5000 m, as in TUM's files \(the factor 0\.(19|20)\d+ is"),
        (6.5535 / 5, r"positions are 1\.\d+ times too small for the depth.*nearest known unit"),
        (0.1, "in centimetres"),
    ],
)
def test_the_unit_of_depth_is_estimated(capture, factor, cause):
    scale_depth(capture, factor)
    assert re.search(cause, checked(capture)), checked(capture)


@pytest.mark.parametrize("factor", [0.25, 1.5, 4])
def test_poses_scaled_against_depth_are_not_a_unit(capture, factor):
    def change(matrix):
        matrix[:3, 3] *= factor
        return matrix

    change_poses(capture, change)
    found = checked(capture)
    assert "positions are" in found and "depth is not in millimetres" not in found


def test_positions_that_do_not_fit_are_no_unit(capture):
    rng = np.random.default_rng(0)

    def change(matrix):
        matrix[:3, 3] += rng.normal(0, 0.15, 3)
        return matrix

    change_poses(capture, change)
    found = checked(capture)
    assert "frames do not agree" in found and "unit" not in found


def test_eight_bit_depth_is_a_cause_of_its_own(capture):
    for path in (capture / "depth").iterdir():
        write_image(path, (cv2.imread(str(path), -1) // 40).astype(np.uint8))
    assert "24 files: " in "; ".join(verdict(check_scene(f"{capture}/black_64", Path("data"), 0)))
    assert "depth has 8 bits" in checked(capture)


@pytest.mark.parametrize(
    ("turn", "name"), [((-1, -1), "turned by 180 degrees"), ((1, -1), "mirrored"), ((-1, 1), "upside down")]
)
def test_colour_that_lies_otherwise_than_depth_is_named(capture, turn, name):
    for path in (capture / "images").iterdir():
        write_image(path, read_color(path)[:: turn[0], :: turn[1]])
    assert f"colour is {name} against depth" in checked(capture)


def test_colour_of_other_frames_is_wrong(capture):
    pictures = [read_color(image(capture, number)) for number in range(FRAMES)]
    for number in range(FRAMES):
        write_image(image(capture, number), pictures[(number + FRAMES // 2) % FRAMES])
    assert "colour does not fit depth and poses" in checked(capture)


def test_some_wrong_poses_fail_against_the_best_pairs(capture):
    rng = np.random.default_rng(1)

    def change(matrix):
        matrix[:3, 3] += rng.normal(0, 0.4, 3)
        return matrix

    change_poses(capture, change, 3)
    assert "in the best pairs" in checked(capture)


@pytest.mark.parametrize("numbers", [[4, 9], range(0, FRAMES, 3)])
def test_frames_of_another_shape_are_left_out_and_fail_the_check(capture, numbers):
    def change(content):
        for number in numbers:
            content["frames"][number].update(w=96, h=128, cx=48, cy=64)

    edit(capture, change)
    resize_images(capture, (128, 96), numbers)
    for scene in both(capture):
        assert len(scene) == FRAMES - len(numbers)
        TestSet(scene, 3, Needs())[0]
    assert f"{len(numbers)} frames are left out: of another image size" in checked(capture)


def test_a_map_of_another_shape_fails_the_check(capture):
    for path in (capture / "depth").iterdir():
        write_image(path, np.ascontiguousarray(cv2.imread(str(path), -1).T))
    assert "is 96x128, but the frame's colour is 128x96" in checked(capture)


# 17, 18


def test_label_maps_of_any_type(tmp_path):
    ids = (np.arange(64) % 13).astype(np.uint8).reshape(8, 8)
    palette = Image.fromarray(ids)
    palette.putpalette([(7 * i) % 256 for i in range(768)])
    palette.save(tmp_path / "palette.png")
    write_image(tmp_path / "three.png", np.repeat(ids[..., None], 3, -1))
    cv2.imwrite(
        str(tmp_path / "alpha.png"),
        np.concatenate([np.repeat(ids[..., None], 3, -1), np.full((8, 8, 1), 255, np.uint8)], -1),
    )
    Image.fromarray(ids.astype(np.int32)).save(tmp_path / "int.tif")
    np.save(tmp_path / "array.npy", ids.astype(np.int16))
    four = Image.fromarray(ids)
    four.putpalette([(7 * i) % 256 for i in range(48)])
    four.save(tmp_path / "few.png", bits=4)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_ids(path), ids, err_msg=path.name)


def test_eight_bit_labels_of_a_large_table_and_negative_ids(room):
    path = room / "scannet" / "train_000" / "label-filt" / "5.png"
    write_image(path, (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) % 2 + 1).astype(np.uint8))  # of a table up to 1163
    assert set(open_scene(NAME, room).views(["5"], labels=True).labels.unique().tolist()) == {0, 4}
    np.save(path.with_suffix(".npy"), np.full(SIZE, -1, np.int16))
    path.unlink()
    with pytest.raises(UserError, match="label ids -1 are not in"):
        open_scene(NAME, room).views(["5"], labels=True)


def test_a_byte_order_mark_and_empty_cells(room, tmp_path, config):
    table = room / "scannet" / "scannetv2-labels.combined.tsv"
    lines = table.read_text().splitlines()
    cells = lines[-1].split("\t")
    cells[0], cells[lines[0].split("\t").index("nyu40id")] = "900", ""
    table.write_text("\ufeff" + "\n".join([*lines, "\t".join(cells)]) + "\n", encoding="utf-8")
    scene = open_scene(NAME, room)
    assert scene.labels.lookup[900] == 20 and scene.labels.lookup[1] == 0
    listed = tmp_path / "list.txt"
    listed.write_text("\ufeffscannet/train_000/black_64\n", encoding="utf-8")
    assert TrainingSet(config(train_set_list=str(listed), data_root=str(room)), 0, Needs()).scenes[0].name == NAME
    path = tmp_path / "x.json"
    path.write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_json(path, "") == {"a": 1}
    path.write_bytes("{'ä': 1}".encode("latin-1"))
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_json(path, "")


def test_two_images_of_one_number_are_refused(room):
    folder = room / "scannet" / "train_000" / "color"
    shutil.copy(folder / "3.jpg", folder / "0003.JPG")
    with pytest.raises(UserError, match="have the same number"):
        open_scene(NAME, room)


# 20


def test_blender_s_files(capture, base):
    content = json.loads((capture / "transforms.json").read_text())
    parts = {"train": content["frames"][:16], "val": content["frames"][16:18], "test": content["frames"][18:]}
    (capture / "transforms.json").unlink()
    for split, frames in parts.items():
        frames = [{**f, "file_path": "./" + f["file_path"].removesuffix(".jpg")} for f in frames]
        angle = 2 * np.arctan(content["w"] / 2 / content["fl_x"])
        part = {"camera_angle_x": angle, "frames": frames, "semantic_classes": content["semantic_classes"]}
        (capture / f"transforms_{split}.json").write_text(json.dumps(part))
    truth = opened(base)
    for scene in both(capture):
        assert scene.split().tests == [str(n) for n in range(18, 24)] and len(scene.split().references) == 16
        a, b = (s.views(["3"], depth=True).to("cpu") for s in (scene, truth))
        assert (a.images == b.images).all() and torch.allclose(a.cameras.poses, b.cameras.poses, atol=1e-5)
        assert a.cameras.Ks[0, 0, 0] == pytest.approx(float(b.cameras.Ks[0, 0, 0]), rel=1e-4)
        assert a.cameras.Ks[0, 0, 2] == 31.5


def test_transparent_pixels_show_black(tmp_path):
    picture = np.full((4, 4, 4), 200, np.uint8)
    picture[..., 3] = np.uint8([255, 0, 128, 255])
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert read_color(tmp_path / "a.png")[0, :, 0].tolist() == [200, 0, 100, 200]


def test_backslashes_in_paths(capture, base):
    keys = ("file_path", "depth_file_path", "semantic_path")
    edit_frames(capture, lambda frame: frame.update({key: frame[key].replace("/", "\\") for key in keys}))
    for scene in both(capture):
        assert_same(scene, opened(base))


def test_test_frames_of_scannetpp(capture):
    edit(capture, lambda content: content.update(test_frames=[content["frames"].pop() for _ in range(3)]))
    for scene in both(capture):
        assert scene.split().tests == ["23", "22", "21"] and len(scene.split().references) == FRAMES - 3


@pytest.mark.parametrize("layout", ["upper case", "3x3", "frames_25k", "frames_25k raw"])
def test_scannet_s_relatives(room, scannet_base, layout):
    scene = room / "scannet" / "train_000"
    if layout == "upper case":
        for i, path in enumerate((scene / "color").iterdir()):
            path.rename(path.with_suffix((".JPG", ".jpeg", ".JPEG")[i % 3]))
    elif layout == "3x3":
        path = scene / "intrinsic" / "intrinsic_color.txt"
        np.savetxt(path, np.loadtxt(path)[:3, :3])
    else:
        if layout == "frames_25k":
            to_nyu40(room, "label")
            (room / "scannet" / "scannetv2-labels.combined.tsv").unlink()
        else:
            (scene / "label-filt").rename(scene / "label")
        for path in [*scene.glob("*/*.*")]:
            if path.stem.isdigit():
                path.rename(path.with_stem(f"{int(path.stem):06d}"))
        (scene / "intrinsic" / "intrinsic_color.txt").rename(scene / "intrinsics_color.txt")
        shutil.rmtree(scene / "intrinsic")
    assert_same(open_scene(NAME, room), open_scene(NAME, scannet_base))


@pytest.mark.parametrize("layout", ["nice-slam", "nice-slam without camera", "vmap"])
def test_replica_s_relatives(replica_rooms, tmp_path, layout):
    truth = open_scene("replica/val_000/Sequence_1/black_64", replica_rooms)
    source, target = replica_rooms / "Replica" / "val_000" / "Sequence_1", tmp_path / "Replica" / "room0"
    if layout == "vmap":
        shutil.copytree(source, target / "imap" / "00")
        scene = open_scene("replica/room0/imap/00/black_64", tmp_path)
        assert_same(scene, truth)
        return
    (target / "results").mkdir(parents=True)
    shutil.copy(source / "traj_w_c.txt", target / "traj.txt")
    for number in range(48):
        shutil.copy(source / "rgb" / f"rgb_{number}.png", target / "results" / f"frame{number:06d}.png")
        depth = cv2.imread(str(source / "depth" / f"depth_{number}.png"), -1)
        write_image(target / "results" / f"depth{number:06d}.png", (depth * 6.5535).round().astype(np.uint16))
    if layout == "nice-slam":
        camera = {"w": 64, "h": 48, "fx": 32.0, "fy": 32.0, "cx": 31.5, "cy": 23.5, "scale": 6553.5}
        (tmp_path / "Replica" / "cam_params.json").write_text(json.dumps({"camera": camera}))
    scene = open_scene("replica/room0/black_64", tmp_path)
    a, b = (s.views(truth.frame_ids, depth=True).to("cpu") for s in (scene, truth))
    assert (a.images == b.images).all() and (a.depth - b.depth).abs().max() < 2e-3 and scene.labels is None
    torch.testing.assert_close(a.cameras.Ks, b.cameras.Ks)
    torch.testing.assert_close(a.cameras.poses, b.cameras.poses)


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_capture_without_depth_in_other_units_gets_a_hint(capture, factor, capsys):
    def change(matrix):
        matrix[:3, 3] *= factor
        return matrix

    change_poses(capture, change)
    edit_frames(capture, lambda frame: frame.pop("depth_file_path"))
    opened(capture)
    assert "are its lengths metres?" in capsys.readouterr().err and "are its lengths metres?" in checked(capture)
    prepared(capture)
    assert "are its lengths metres?" in capsys.readouterr().err


def test_a_pose_is_mended_once():
    noisy = np.eye(4)
    noisy[0, 1] = 1e-5
    assert to_pose(noisy, "f", "m").tolist() == noisy.tolist()  # rounding is left alone
