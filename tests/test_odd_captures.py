"""Captures whose keys, names and files say something else than is read: honoured by the values that arrive, or
refused."""

import json
import os
import re
import shutil
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from captures import (
    FRAMES,
    assert_same,
    both,
    change_poses,
    checked,
    edit,
    edit_frames,
    image,
    opened,
    prepared,
    rewrite,
)
from PIL import Image

from dataset.camera import read_lens, undistort
from dataset.check.__main__ import find_scenes
from dataset.check.inventory import count_blended
from dataset.database import open_scene
from dataset.intrinsics import read_depth_camera, read_intrinsics
from dataset.labels import scannet_labels
from dataset.maps import DepthUnit, read_depth, read_mask
from dataset.poses import leaps, to_pose
from dataset.replica import read_camera
from utils.errors import UserError
from utils.files import read_json
from utils.images import read_color
from viewing.paths import parse_path, path_cameras


def refused(capture, message):
    with pytest.raises(UserError, match=message):
        opened(capture)


# Keys


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pose_type": "w2c"}, "pose_type is w2c, but poses should be camera-to-world"),
        ({"camera_to_world": False}, "camera_to_world is False"),
        ({"row_major": False}, "row_major is False"),
        ({"handedness": "left"}, "should be right-handed"),
        ({"coordinate_frame": "OpenCV"}, "should have OpenGL axes"),
        ({"world_scale": 0.1}, "world_scale is not read"),
        ({"translation_units": "mm"}, "translation_units is mm"),
        ({"depth_type": "euclidean"}, "depth should be z-depth"),
        ({"depth_offset": 0.3}, "depth_offset is not read"),
        ({"depth_invalid_value": 2000}, "unknown depth should be 0"),
        ({"ignore_label": 0}, "ignore_label is 0, but 255 is ignored"),
        ({"mask_inverted": True}, "mask_inverted is not read"),
        ({"color_space": "linear"}, "colour should be sRGB"),
        ({"test_fraction": 0.1}, "test_fraction is not read"),
        ({"K": [[1, 0, 0]]}, "K is not read"),
        ({"focal_length": 30}, "focal_length is not read"),
        ({"K1": 0.1}, "K1 is not read; should it be k1"),
        ({"applied_scal": 2.0}, "should it be applied_scale"),
        ({"depth_file_paths": "x"}, "should it be depth_file_path"),
        ({"rotation": 90}, "rotation is not read"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["top", "frame"])
def test_a_key_that_changes_what_is_read_is_refused_by_name(capture, keys, message, place):
    edit(capture, lambda content: (content if place == "top" else content["frames"][5]).update(keys))
    refused(capture, message)


@pytest.mark.parametrize(
    "keys",
    [
        {"pose_type": "camera-to-world", "row_major": True, "handedness": "right", "axes": "OpenGL", "unit": "meters"},
        {"depth_type": "z", "color_space": "sRGB", "ignore_label": 255, "depth_unit": "mm", "distortion": [0, 0, 0]},
        {"aabb_scale": 16, "scale": 0.33, "offset": [0.5, 0.5, 0.5], "ply_file_path": "x.ply", "is_w2c": False},
        {"camera_model": "", "k1": None, "orientation_override": "up", "camera_linear_velocity": [1, 0, 0]},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_a_key_that_says_what_holds_changes_nothing(capture, truth, keys):
    edit(capture, lambda content: content.update(keys))
    edit_frames(capture, lambda frame: frame.update(rotation=0.0125, sharpness=7.5))
    assert_same(opened(capture), truth)


def test_further_files_are_named_once(capture, capsys):
    edit_frames(capture, lambda frame: frame.update(depth_confidence_path="c/0.png"))
    opened(capture)
    assert "keys that are not read: depth_confidence_path" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["depth_unit_scale_factor", "applied_scale", "depth_range", "semantic_classes"])
def test_a_key_for_all_frames_is_not_read_in_one(capture, base, key):
    value = {"depth_range": [1, 3], "semantic_classes": ["a"]}.get(key, 0.002)
    edit(capture, lambda content: content["frames"][5].update({key: value}))
    refused(capture, f"{key} stands in a frame")
    edit(capture, lambda content: content["frames"][5].pop(key) and content.update(file_path="x.jpg"))
    refused(capture, "file_path stands at the top")


def test_the_unit_of_depth_by_its_name(capture, truth):
    rewrite(capture, "depth", ".png", lambda path, v: cv2.imwrite(str(path), (v / 10).round().astype(np.uint16)))
    edit(capture, lambda content: content.update(depth_unit="cm"))
    a, b = (scene.views(["3"], depth=True).to("cpu").depth for scene in (opened(capture), truth))
    assert (a - b).abs().max() < 0.0051
    edit(capture, lambda content: content.update(depth_unit="ft"))
    refused(capture, "depth_unit should be mm, cm or m")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"a": 1, "a": 2}', "a stands twice, with different values"), ("[" * 99999, "nested too deeply")],
)
def test_json_that_says_two_things_or_never_ends(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "x.json", "")
    (tmp_path / "x.json").write_text('{"a": 1, "a": 1}')
    assert read_json(tmp_path / "x.json", "") == {"a": 1}


# Poses


def test_poses_in_one_row(capture, truth):
    edit_frames(capture, lambda frame: frame.update(transform_matrix=np.ravel(frame["transform_matrix"]).tolist()))
    for scene in both(capture):
        assert_same(scene, truth)
    with pytest.raises(UserError, match="is it transposed"):
        to_pose(np.array([[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1.0]]).T.ravel(), "f", "m")


def test_a_pose_that_leaps_is_said(capture, capsys):
    def change(content):
        content["frames"][11]["transform_matrix"][0][3] += 3

    edit(capture, change)
    scene = opened(capture)
    assert leaps(scene.camera_to_world).tolist() == [number == 11 for number in range(FRAMES)]
    assert "leaps away from those before and after (11)" in capsys.readouterr().err
    assert "the poses of 1 frames leap" in checked(capture)


def test_a_leap_that_stays_is_none(truth):
    poses = truth.camera_to_world.copy()
    poses[11, 0, 3] += 3
    poses[12:, 0, 3] += 6
    assert not leaps(poses).any()


def moved(matrix, factor=1.0, shift=0.0):
    matrix = matrix.copy()
    matrix[:3, 3] = matrix[:3, 3] * factor + shift
    return matrix


def test_positions_that_cannot_be_metres_are_said_or_refused(capture, capsys):
    change_poses(capture, lambda matrix: moved(matrix, 1000))
    opened(capture)
    assert "are poses in another unit than metres" in capsys.readouterr().err
    change_poses(capture, lambda matrix: moved(matrix, 0.001, 1e6))
    refused(capture, "m from the origin, too far for a precision of millimetres")


def test_a_sheared_applied_transform_is_refused(capture):
    edit(capture, lambda content: content.update(applied_transform=[[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))
    refused(capture, "applied_transform should be a rotation and shift")


# Intrinsics


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fl_x": 0.9, "fl_y": 1.2}, "which cannot be pixels"),
        ({"cx": 0.5, "cy": 0.5}, "not near the middle"),
        ({"cx": 0, "cy": 0}, "not near the middle"),
        ({"camera_angle_x": 1.6}, "camera_angle_x says that fl_x is"),
        ({"camera_angle_y": 45.7}, "camera_angle_y should be radians"),
        ({"w": None, "width": 256, "h": 96, "height": 192}, "h and height differ"),
    ],
    ids=str,
)
def test_intrinsics_that_cannot_be(capture, keys, message):
    edit(capture, lambda content: content.update(keys))
    refused(capture, message)


def test_two_angles_are_of_their_own_sides():
    K = read_intrinsics({"camera_angle_x": 1.0, "camera_angle_y": 0.8}, {}, (96, 128), "f: x")
    expected = [[64 / np.tan(0.5), 0, 63.5], [0, 48 / np.tan(0.4), 47.5], [0, 0, 1]]
    np.testing.assert_allclose(K, expected)


def test_a_depth_camera_s_place_is_scaled_as_poses_are(tmp_path):
    cv2.imwrite(str(tmp_path / "d.png"), np.zeros((48, 64), np.uint16))
    keys = {"depth_fl_x": 60, "depth_cx": 32, "depth_cy": 24, "depth_to_color": np.eye(4).tolist()}
    keys["depth_to_color"][0][3], keys["depth_to_color"][1][3] = 0.2, 0.1  # right and up, OpenGL
    camera = read_depth_camera(keys, {}, tmp_path / "d.png", 4.0, "f: x")
    np.testing.assert_allclose(camera.to_color[:3, 3], [0.05, -0.025, 0])


def test_all_terms_of_a_fisheye_count():
    lens = read_lens({"camera_model": "OPENCV_FISHEYE", "k3": 0.3, "k4": -0.2, "k1": 0.05}, {}, "x")
    K = np.array([[60.0, 0, 63.5], [0, 60, 47.5], [0, 0, 1]])
    columns = np.tile(np.arange(128, dtype=np.float32), (96, 1))
    found = undistort(columns, K, lens, False, (96, 128))
    a, b = (120 - 63.5) / 60, (90 - 47.5) / 60
    theta = np.arctan(np.hypot(a, b))
    bent = theta * (1 + 0.05 * theta**2 + 0.3 * theta**6 - 0.2 * theta**8) / np.hypot(a, b)
    assert found[90, 120] == pytest.approx(60 * a * bent + 63.5, abs=0.1)


def test_null_in_a_frame_leaves_what_the_top_says(capture):
    edit(capture, lambda content: content.update(camera_model="OPENCV", k1=0.1))
    edit_frames(capture, lambda frame: frame.update(k1=None, fl_x=None, camera_model=None))
    refused(capture, "is distorted")


@pytest.mark.parametrize("side", ["w", "h"])
def test_one_side_of_an_image_tells_its_size(capture, truth, side):
    edit(
        capture,
        lambda c: (
            c.pop({"w": "h", "h": "w"}[side]) and c.update({k: 2 * c[k] for k in (side, "fl_x", "fl_y", "cx", "cy")})
        ),
    )
    np.testing.assert_allclose(opened(capture).Ks, truth.Ks, atol=1e-9)


@pytest.mark.parametrize(("key", "told"), [("fl_x", "pixels are not square"), ("cx", "far from the middle")])
def test_unusual_intrinsics_are_said(capture, capsys, key, told):
    edit(capture, lambda content: content.update({key: 1.4 * content[key]}))
    opened(capture)
    assert told in capsys.readouterr().err


# Files and their names


def rename_images(capture, folder, name):
    (capture / "images").rename(capture / folder)
    edit_frames(capture, lambda frame: frame.update(file_path=f"{name}/{frame['file_path'].split('/')[1]}"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("images", "/home/me/capture/images"),
        ("images", "C:\\Users\\me\\capture\\images"),
        ("my images", "my%20images"),
        ("images", "Images"),
        (unicodedata.normalize("NFD", "Küche"), unicodedata.normalize("NFC", "Küche")),
    ],
    ids=["another machine", "Windows", "percent", "capitals", "composed"],
)
def test_names_in_another_spelling_find_their_file(capture, truth, folder, name):
    rename_images(capture, folder, name)
    for scene in both(capture):
        assert_same(scene, truth)


@pytest.mark.parametrize("place", ["scannet/scene0000_00", "my capture", "Küche", "black_320"])
def test_folders_of_any_name_are_captures(capture, place):
    folder = capture.parent / place
    folder.parent.mkdir(exist_ok=True)
    capture.rename(folder)
    assert find_scenes(str(folder), Path("data")) == [(str(folder), Path("data"))]
    assert len(opened(folder)) == FRAMES


def test_names_that_are_none_or_two(capture):
    shutil.copy(capture / "depth" / "3.png", capture / "images" / "3.png")
    edit_frames(capture, lambda frame: frame.update(file_path=frame["file_path"].removesuffix(".jpg")))
    refused(capture, r"images/3 may be any of 3.jpg, 3.png")
    for name in ("a" * 300, "images/\0.jpg"):
        edit(capture, lambda content, name=name: content["frames"][3].update(file_path=name))
        refused(capture, "should be a file name")


def test_a_link_that_leads_to_itself_is_no_image(capture):
    image(capture).unlink()
    os.symlink("3.jpg", image(capture))
    for scene in both(capture):
        assert len(scene) == FRAMES - 1


def test_a_file_is_one_thing_of_one_pose(capture):
    edit(capture, lambda content: content["frames"][3].update(depth_path="depth/4.png"))
    refused(capture, "depth_file_path and depth_path of images/3.jpg name two files")
    edit(capture, lambda c: c["frames"][3].pop("depth_path") and c["frames"][3].update(depth_file_path="depth/4.png"))
    refused(capture, "4.png is named as the depth of two poses")
    edit(capture, lambda content: content["frames"][3].update(depth_file_path="images/3.jpg"))
    refused(capture, "3.jpg is named as color and depth")


def test_an_image_with_two_poses_is_refused(capture):
    def change(content):
        again = {**content["frames"][4], "transform_matrix": content["frames"][9]["transform_matrix"]}
        content["frames"].append({key: again[key] for key in ("file_path", "transform_matrix")})

    edit(capture, change)
    refused(capture, "images/4.jpg is listed twice, with different poses")


def test_frames_say_their_split(capture):
    edit(
        capture,
        lambda c: [f.update(split="test" if n % 6 == 1 else "train") for n, f in enumerate(c["frames"])] and None,
    )
    for scene in both(capture):
        assert scene.split().tests == ["1", "7", "13", "19"] and len(scene.split().references) == FRAMES - 4
    edit(capture, lambda content: content["frames"][3].update(split="holdout"))
    refused(capture, "the split of images/3.jpg should be train, val or test")
    edit(capture, lambda content: content.update(test_filenames=["images/3.jpg"]))
    refused(capture, "frames have a split, but there is test_filenames as well")


def test_tests_are_those_listed_before_those_for_validation(capture):
    edit(capture, lambda content: content.update(test_filenames=["images/2.jpg"], val_filenames=["images/5.jpg"]))
    split = opened(capture).split()
    assert split.tests == ["2"] and not {"2", "5"} & set(split.references)


def test_blender_s_files_that_disagree_are_refused(capture):
    content = json.loads((capture / "transforms.json").read_text())
    (capture / "transforms.json").unlink()
    for split, scale in (("train", 1.0), ("test", 2.0)):
        part = {
            **content,
            "applied_scale": scale,
            "frames": content["frames"][:12] if split == "train" else content["frames"][12:],
        }
        (capture / f"transforms_{split}.json").write_text(json.dumps(part))
    refused(capture, "transforms_test.json: its applied_scale differs from that")


# Images


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 5\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"PK\x03\x04" + bytes(99), "npz or ZIP is not read"),
    ],
)
def test_what_lies_in_an_image_s_place_is_named(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_color(tmp_path / "x.jpg")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tiff", ".png"])
def test_a_file_of_several_pictures_is_refused(tmp_path, suffix):
    pictures = [Image.new("RGB", (32, 24), color) for color in ("red", "blue")]
    pictures[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=pictures[1:])
    with pytest.raises(UserError, match="holds 2 pictures"):
        read_color(tmp_path / f"x{suffix}")


def test_sixteen_bits_that_hold_eight_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.full((8, 8, 3), 200, np.uint16))
    with pytest.raises(UserError, match="16 bits, but its values end at 200"):
        read_color(tmp_path / "x.png")


def test_orientation_tags_are_said(capture, capsys):
    for path in (capture / "images").iterdir():
        exif = Image.Exif()
        exif[274] = 3
        Image.open(path).save(path, exif=exif.tobytes())
    opened(capture)
    assert "images have an orientation tag" in capsys.readouterr().err


def test_prepared_maps_have_the_shape_of_their_image(capture):
    rewrite(capture, "labels", ".png", lambda path, v: cv2.imwrite(str(path), np.ascontiguousarray(v[:72])))
    with pytest.raises(UserError, match="they cannot be of the same camera"):
        prepared(capture)
    assert not (capture.parent / "data" / "transforms" / "mine").exists()


# Depth, labels and masks


def test_no_reading_is_unknown_in_any_unit(tmp_path):
    cv2.imwrite(str(tmp_path / "d.png"), np.uint16([[65535, 2000], [1000, 0]]))
    assert read_depth(tmp_path / "d.png").tolist() == [[0, 2000], [1000, 0]]
    assert read_depth(tmp_path / "d.png", DepthUnit(0.0002, 0.0002, stated=True)).tolist() == [[0, 400], [200, 0]]


def test_a_mask_is_black_or_transparent(tmp_path):
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[..., :3], mask[..., 3] = np.array([[0], [0], [200], [200]]), [0, 255, 0, 255]
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 0, 0, 1]]


# What the check sees through


def test_distance_along_rays_is_told_from_depth(capture, truth):
    K = truth.Ks[0]
    y, x = np.mgrid[:96, :128]
    longer = np.sqrt(1 + ((x - K[0, 2]) / K[0, 0]) ** 2 + ((y - K[1, 2]) / K[1, 1]) ** 2)
    rewrite(capture, "depth", ".png", lambda p, v: cv2.imwrite(str(p), (v * longer).round().astype(np.uint16)))
    assert "distance along the ray of each pixel" in checked(capture)


def test_depth_that_is_cut_off_and_maps_without_any(capture):
    rewrite(capture, "depth", ".png", lambda p, v: cv2.imwrite(str(p), np.minimum(v, 3000) * (p.stem != "0")))
    found = checked(capture)
    assert "exactly 3000 mm" in found and "1 of the depth maps of 8 frames hold no depth" in found


def test_a_smallest_depth_that_stands_for_nothing(capture):
    rewrite(capture, "depth", ".png", lambda p, v: cv2.imwrite(str(p), np.where(np.arange(128) < 20, 1, v)))
    assert re.search("1[5-7]% of all depth is exactly 1 mm, the smallest", checked(capture))


def test_colour_that_is_dark_or_grey_in_some_frames(capture):
    picture = cv2.imread(str(image(capture, 0)))
    cv2.imwrite(str(image(capture, 0)), picture.mean(-1).round())
    assert "1 of the color images of 8 frames are grey" in checked(capture)
    rewrite(capture, "images", ".png", lambda p, v: cv2.imwrite(str(p), v.astype(np.uint16) << 6))  # 14 of 16 bits
    assert re.search(r"none is brighter than \d\d of 255; do their 16 bits hold 14", checked(capture))


def test_labels_that_were_interpolated(capture):
    def smaller(path, values):
        half = cv2.resize(values, (64, 48), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(path), cv2.resize(half, (128, 96), interpolation=cv2.INTER_LINEAR))

    rewrite(capture, "labels", ".png", smaller)
    assert "as if resized with interpolation" in checked(capture)
    assert count_blended(np.array([[1, 1, 5, 5]] * 4)) == (0, 8)
    assert count_blended(np.array([[1, 1, 3, 5]] * 4)) == (4, 8)


def test_palettes_that_differ_and_names_that_are_none(capture):
    def write(path, values):
        picture = Image.fromarray(values)
        shift = 5 if path.stem == "0" else 0
        picture.putpalette([(7 * i + shift) % 256 for i in range(768)])
        picture.save(path)

    rewrite(capture, "labels", ".png", write)
    refused(capture, "has another palette than 0.png")
    edit(capture, lambda content: content.update(semantic_classes=[{"name": "wall"}] * 20))
    refused(capture, "semantic_classes should be different names")


def test_masks_that_leave_nothing(capture):
    (capture / "masks").mkdir()
    cv2.imwrite(str(capture / "masks" / "all.png"), np.zeros((96, 128), np.uint8))
    edit(capture, lambda content: content.update(mask_path="masks/all.png"))
    assert "8 of the mask maps of 8 frames leave nothing" in checked(capture)


@pytest.mark.parametrize(
    ("inside", "outside", "told"),
    [(255, 0, "masks leave 4% of their images; are they inverted"), (1, 3, "masks ignore nothing")],
)
def test_masks_that_leave_little_or_everything(capture, inside, outside, told):
    (capture / "masks").mkdir()
    mask = np.full((96, 128), outside, np.uint8)
    mask[10:30, 20:45] = inside
    cv2.imwrite(str(capture / "masks" / "all.png"), mask)
    edit(capture, lambda content: content.update(mask_path="masks/all.png"))
    assert told in checked(capture)


# ScanNet's table, Replica's camera, camera paths


@pytest.mark.parametrize(("rows", "message"), [("3\t99\n", "nyu40id 99"), ("4000000000\t1\n", "id 4000000000")])
def test_label_tables_that_cannot_be(tmp_path, rows, message):
    (tmp_path / "t.tsv").write_text("id\tnyu40id\n" + rows)
    with pytest.raises(UserError, match=message):
        scannet_labels(tmp_path / "t.tsv")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"k1": 0.2}, "k1 is not read"),
        ({"fx": float("nan")}, "fx should be a number"),
        ({"cx": 0.5, "cy": 0.5}, "principal point"),
    ],
)
def test_cameras_of_replica_that_cannot_be(tmp_path, keys, message):
    camera = {"w": 128, "h": 96, "fx": 64.0, "fy": 64.0, "cx": 63.5, "cy": 47.5, "scale": 6553.5}
    (tmp_path / "cam_params.json").write_text(json.dumps({"camera": camera | keys}))
    with pytest.raises(UserError, match=message):
        read_camera(tmp_path / "cam_params.json", (96, 128), None)


def test_camera_paths_say_what_they_are(capture, capsys):
    content = json.loads((capture / "transforms.json").read_text())
    for keys, message in (
        ({"camera_convention": "opencv"}, "should have OpenGL"),
        ({"applied_scal": 2}, "applied_scale"),
    ):
        with pytest.raises(UserError, match=message):
            parse_path(content | keys, "p.json")
    camera = {"camera_to_world": np.ravel(content["frames"][0]["transform_matrix"]).tolist(), "aspect": 2.0}
    path = parse_path({"default_fov": 70, "camera_path": [camera]}, "p.json")
    assert np.degrees(path.field_of_view).round(6) == [70]
    path_cameras(path, opened(capture), None)
    assert "for pictures 2 times as wide as high" in capsys.readouterr().err
    with pytest.raises(UserError, match="a number fov"):
        parse_path({"camera_path": [camera]}, "p.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m, None),
        (lambda m: m @ np.diag([1.0, -1, -1, 1]), "stand upside down against those of"),
        (
            lambda m: np.block([[m[:3, :3], 1000 * m[:3, 3:]], [m[3:]]]),
            "24 of its 24 cameras are farther from those of",
        ),
        (lambda m: np.block([[m[:3, :3], m[:3, 3:] + 1e9], [m[3:]]]), "24 of its 24 cameras are farther from those of"),
    ],
    ids=["as it is", "OpenCV's axes", "millimetres", "nowhere"],
)
def test_camera_paths_of_another_frame_are_said(capture, capsys, change, told):
    content = json.loads((capture / "transforms.json").read_text())
    poses = [change(np.array(frame["transform_matrix"])).ravel().tolist() for frame in content["frames"]]
    path = parse_path({"default_fov": 70, "camera_path": [{"camera_to_world": pose} for pose in poses]}, "p.json")
    path_cameras(path, opened(capture), None)
    said = capsys.readouterr().err
    assert told in said if told else "camera path" not in said


@pytest.mark.parametrize("key", ["c2w", "matrix", "transform_matrix"])
def test_a_camera_of_a_path_under_another_key_is_said(key):
    camera = {key: np.eye(4).ravel().tolist(), "fov": 60}
    with pytest.raises(UserError, match=f"camera 0 should have 16 numbers camera_to_world .* it has {key}, fov"):
        parse_path({"camera_path": [camera]}, "p.json")


def test_intrinsics_of_a_slightly_other_size_are_said(room, capsys):
    for path in (room / "scannet" / "train_000" / "color").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (115, 86), interpolation=cv2.INTER_AREA))
    open_scene("scannet/train_000/black_64", room)
    assert "images of 1.11 times the size" in capsys.readouterr().err
