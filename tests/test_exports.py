"""What other programs write beside or into images, maps and keys: honoured by the values that arrive, or refused by
name."""

import io
import json
import os
import re
import shutil
import struct
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
from PIL import Image, ImageCms

from dataset.check.__main__ import find_scenes
from dataset.database import open_scene
from dataset.intrinsics import read_intrinsics
from dataset.maps import DepthUnit, read_depth, read_ids
from dataset.poses import to_pose
from utils.errors import UserError
from utils.images import read_color, read_map, require_whole


def refused(capture, message):
    with pytest.raises(UserError, match=message):
        opened(capture).views(["3"], depth=True, labels=True)


@pytest.fixture(scope="module")
def picture(base):
    return np.array(Image.open(image(base)))


# Colour


def swapped_profile() -> bytes:
    """The profile of sRGB's twin whose red is blue."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace("sRGB".encode("utf-16-be"), "Twin".encode("utf-16-be"))
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    swapped = bytearray(data)
    swapped[red + 4 : red + 12], swapped[blue + 4 : blue + 12] = data[blue + 4 : blue + 12], data[red + 4 : red + 12]
    return bytes(swapped)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_colour_profile_is_honoured_and_said(capture, truth, suffix, capsys):
    profile = swapped_profile()
    options = {"quality": 98, "subsampling": 0} if suffix == ".jpg" else {}
    rewrite(capture, "images", suffix, lambda p, v: Image.fromarray(v).save(p, icc_profile=profile, **options))
    for scene in both(capture):  # red and blue stood the wrong way round, which the profile says
        assert_same(scene, truth, tolerance=0.05)
    assert "have a colour profile (Twin built-in)" in capsys.readouterr().err


def test_srgb_s_own_profile_changes_nothing(tmp_path, picture, capsys):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(tmp_path / "x.png", icc_profile=profile)
    np.testing.assert_array_equal(read_color(tmp_path / "x.png"), picture)


def with_chunk(path, kind, content):
    import zlib

    data = path.read_bytes()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data[:33] + chunk + data[33:])


def test_linear_png_is_refused(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.png")
    with_chunk(tmp_path / "x.png", b"gAMA", struct.pack(">I", 45455))
    np.testing.assert_array_equal(read_color(tmp_path / "x.png"), picture)
    Image.fromarray(picture).save(tmp_path / "x.png")
    with_chunk(tmp_path / "x.png", b"gAMA", struct.pack(">I", 100000))
    with pytest.raises(UserError, match="should be sRGB, but is linear"):
        read_color(tmp_path / "x.png")


def test_cielab_and_numbers_of_other_channels_are_refused(tmp_path, picture):
    Image.fromarray(picture).convert("LAB").save(tmp_path / "x.tiff")
    with pytest.raises(UserError, match="CIELAB"):
        read_color(tmp_path / "x.tiff")
    cv2.imwrite(str(tmp_path / "f.tiff"), picture.astype(np.float32) / 255)
    with pytest.raises(UserError, match="8 or 16 bits, but is float32"):
        read_color(tmp_path / "f.tiff")
    np.save(tmp_path / "x.npy", picture[..., :2])
    with pytest.raises(UserError, match="should have 3 channels, but has 2"):
        read_color(tmp_path / "x.npy")


@pytest.mark.parametrize("bits", [10, 12])
def test_sixteen_bits_that_hold_fewer_are_refused(tmp_path, picture, bits):
    cv2.imwrite(str(tmp_path / "x.png"), picture.astype(np.uint16) << (bits - 8))
    with pytest.raises(UserError, match="16 bits, but its values end at"):
        read_color(tmp_path / "x.png")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("read", [read_color, read_map], ids=["colour", "map"])
def test_a_damaged_tiff_is_an_error(tmp_path, picture, compression, read):
    values = picture if read is read_color else picture[..., 0].astype(np.float32)
    Image.fromarray(np.ascontiguousarray(values)).save(tmp_path / "x.tiff", compression=compression)
    np.testing.assert_array_equal(read(tmp_path / "x.tiff"), values)
    data = bytearray((tmp_path / "x.tiff").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 60] = bytes(range(60))
    (tmp_path / "x.tiff").write_bytes(data)
    with pytest.raises(UserError, match="the image is damaged"):
        read(tmp_path / "x.tiff")


def test_a_turned_bigtiff_is_read_as_stored(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.tiff", big_tiff=True, tiffinfo={274: 6})
    np.testing.assert_array_equal(read_color(tmp_path / "x.tiff"), picture)


def test_a_phone_s_jpeg_with_a_second_picture_is_whole(capture, truth):
    for path in (capture / "images").iterdir():  # as phones append a gain map, behind the picture itself
        small = io.BytesIO()
        Image.open(path).resize((32, 24)).save(small, "JPEG")
        path.write_bytes(path.read_bytes() + small.getvalue())
    require_whole(image(capture))
    for scene in both(capture):
        assert_same(scene, truth)


XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
XMP += b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation=\"6\"/></rdf:RDF></x:xmpmeta>"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_orientation_in_xmp_is_not_copied(capture, base, suffix):
    def write(path, values):
        cv2.imwrite(str(path), values)
        if suffix == ".png":
            with_chunk(path, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.split(b"\0")[1])
        else:
            data = path.read_bytes()
            path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(XMP) + 2) + XMP + data[2:])

    if suffix == ".png":
        rewrite(capture, "images", suffix, write)
    else:
        [write(path, cv2.imread(str(path))) for path in (capture / "images").iterdir()]
    assert Image.open(image(capture).with_suffix(suffix)).getexif().get(274) == 6
    prepared(capture)
    for path in (capture.parent / "data" / "transforms" / "mine" / "images").iterdir():
        assert Image.open(path).getexif().get(274, 1) == 1


# Maps


@pytest.mark.parametrize(
    ("suffix", "options", "told"),
    [
        (".webp", {"quality": 90}, "a lossy WebP"),
        (".tiff", {"compression": "jpeg"}, "a TIFF compressed as JPEG"),
        (".jp2", {}, "a JPEG 2000"),
        (".j2k", {"irreversible": True}, "a JPEG 2000"),
    ],
)
def test_maps_in_formats_that_change_numbers_are_refused(tmp_path, suffix, options, told):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / f"x{suffix}", **options)
    with pytest.raises(UserError, match=f"is {told}, which does not keep numbers"):
        read_ids(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp"])
def test_indices_of_any_palette_are_the_classes(capture, truth, suffix):
    def write(path, values):
        coded = Image.fromarray(values)
        coded.putpalette([(37 * i) % 256 for i in range(768)])
        coded.save(path)

    rewrite(capture, "labels", suffix, write)
    assert_same(opened(capture), truth)


@pytest.mark.parametrize("layout", ["(1, h, w)", "(h, w, 1)"])
def test_arrays_with_an_axis_of_one(capture, truth, layout):
    axis = 0 if layout.startswith("(1") else -1
    rewrite(capture, "depth", ".npy", lambda p, v: np.save(p, np.expand_dims(v.astype(np.float32) / 1000, axis)))
    assert_same(opened(capture), truth)


def test_wide_numbers_are_no_endless_distance(tmp_path):
    np.save(tmp_path / "d.npy", np.uint32([[2_500_000, 2**32 - 1], [0, 700_000]]))
    unit = DepthUnit(1e-6, 1e-6, stated=True)
    assert read_depth(tmp_path / "d.npy", unit).tolist() == [[2500, 0], [0, 700]]
    with pytest.raises(UserError, match="is implausible for a room"):
        read_depth(tmp_path / "d.npy")


def test_radiance_files_keep_too_little_for_depth(tmp_path):
    cv2.imwrite(str(tmp_path / "d.hdr"), np.full((16, 16, 3), 2.34, np.float32))
    with pytest.raises(UserError, match="Radiance HDR is not read"):
        read_depth(tmp_path / "d.hdr")


# Keys and names


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [("valid", "false", "true"), ("is_bad", "True", "False"), ("keep", 0, 1), ("lost", "yes", 0)],
)
def test_marks_in_words_count_as_what_they_say(capture, key, bad, good):
    edit(capture, lambda c: [f.update({key: bad if n % 4 == 0 else good}) for n, f in enumerate(c["frames"])] and None)
    for scene in both(capture):
        assert len(scene) == FRAMES - FRAMES // 4
    edit(capture, lambda content: content["frames"][3].update({key: "perhaps"}))
    refused(capture, f"{key} of images/3.jpg should be true or false, but is perhaps")


@pytest.mark.parametrize("key", ["pixel_center_offset", "is_metric_depth", "poses_are_c2w", "srgb_images"])
def test_a_key_that_denies_what_holds_is_refused(capture, truth, key):
    edit(capture, lambda content: content.update({key: False}))
    refused(capture, f"{key} is False, but only captures for which it is true can be read")
    edit(capture, lambda content: content.pop(key) or content.update(mask_inverted=False, flip_depth=0))
    assert_same(opened(capture), truth)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metadata": {"units": "mm"}}, "units is mm, but lengths should be metres"),
        ({"meta": {"depth_scale": 5000}}, "depth_scale stands inside of meta"),
        ({"info": {"rig": [{"k1": 0.2}]}}, "k1 stands inside of info.rig"),
        ({"meta": {"quaternion": [1, 0, 0, 0]}}, "quaternion is not read"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["top", "frame"])
def test_keys_inside_of_others_are_not_passed_over(capture, truth, keys, message, place):
    edit(capture, lambda content: (content if place == "top" else content["frames"][5]).update(keys))
    refused(capture, message)
    harmless = {"description": "a kitchen", "model": "iPhone", "camera_make": "Apple", "depth_scale": None}
    edit(capture, lambda c: (c if place == "top" else c["frames"][5]).update({key: harmless for key in keys}))
    assert_same(opened(capture), truth)


@pytest.mark.parametrize(
    "keys", [{"background_id": 0}, {"white_background": True}, {"upside_down": True}, {"frame_offset": 1}], ids=str
)
def test_further_keys_that_speak_of_pixels_are_refused(capture, keys):
    edit(capture, lambda content: content.update(keys))
    refused(capture, f"{next(iter(keys))} is ")


def test_blender_s_files_beside_a_transforms_json_are_said(capture, capsys):
    shutil.copy(capture / "transforms.json", capture / "transforms_train.json")
    opened(capture)
    assert "only this file is read, not transforms_train.json beside it" in capsys.readouterr().err


def test_the_state_of_tracking_is_not_passed_over(capture):
    edit_frames(capture, lambda frame: frame.update(tracking_state="limited"))
    refused(capture, "tracking_state is not read")


def test_a_vertical_angle_alone_will_do():
    K = read_intrinsics({"camera_angle_y": 0.8}, {}, (96, 128), "f: x")
    focal = 48 / np.tan(0.4)
    np.testing.assert_allclose(K, [[focal, 0, 63.5], [0, focal, 47.5], [0, 0, 1]])


def test_only_a_transposed_matrix_is_called_so():
    matrix = np.array([[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 0.0]])
    with pytest.raises(UserError, match=r"0 0 0 1\)$"):
        to_pose(matrix, "f", "m")


@pytest.mark.parametrize(
    "spell", [str.upper, lambda name: name.replace("i", "%69", 1), lambda name: f"file:///home/me/{name}"]
)
def test_lists_match_names_in_another_spelling(capture, spell):
    tests = [1, 7, 13, 19]
    edit(capture, lambda c: c.update(test_filenames=[spell(f"images/{n}.jpg") for n in tests]))
    for scene in both(capture):
        assert scene.split().tests == [str(n) for n in tests]


def test_images_in_another_folder_than_their_transforms_json(capture):
    (capture / "poses").mkdir()
    shutil.move(capture / "transforms.json", capture / "poses" / "transforms.json")
    with pytest.raises(UserError, match=r"none of its 24 images is there.*; it names them from its own folder"):
        opened(capture / "poses")


def test_addresses_of_files(capture, truth, capsys):
    edit_frames(capture, lambda frame: frame.update(file_path=f"file://{capture}/{frame['file_path']}"))
    assert_same(opened(capture), truth)
    assert "another machine" not in capsys.readouterr().err


def test_files_of_another_machine_are_said_once_for_a_folder(capture, capsys):
    edit_frames(capture, lambda frame: frame.update(file_path=f"/home/me/{frame['file_path']}"))
    opened(capture)
    assert capsys.readouterr().err.count("names files of another machine") == 1


@pytest.mark.parametrize("link", [os.link, shutil.copy])
def test_one_image_with_two_poses_is_said(capture, link, capsys):
    link(image(capture, 5), image(capture, 99))
    shutil.copy(capture / "depth" / "5.png", capture / "depth" / "99.png")
    shutil.copy(capture / "labels" / "5.png", capture / "labels" / "99.png")

    def change(content):
        files = {"file_path": "images/99.jpg", "depth_file_path": "depth/99.png", "semantic_path": "labels/99.png"}
        content["frames"].append({**files, "transform_matrix": content["frames"][9]["transform_matrix"]})

    edit(capture, change)
    opened(capture)
    assert "1 frames have the image of another one, but another pose (24)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.txt", "transforms.json", "labels/3.png"])
def test_what_was_done_to_a_prepared_folder_is_not_lost(capture, name):
    prepared(capture)
    mine = capture.parent / "data" / "transforms" / "mine" / name
    mine.write_text("mine")
    with pytest.raises(UserError, match=f"{name} was added or changed since preparation"):
        prepared(capture)
    assert mine.read_text() == "mine"


def test_a_link_that_leads_nowhere_is_not_replaced(capture):
    place = capture.parent / "data" / "transforms"
    place.mkdir(parents=True)
    (place / "mine").symlink_to(place / "gone")
    with pytest.raises(UserError, match="exists already and was not made by preparation"):
        prepared(capture)


def test_what_an_interrupted_preparation_left_is_no_scene(capture):
    prepared(capture)
    place = capture.parent / "data" / "transforms"
    (place / ".mine.x1y2").mkdir()
    assert [name for name, _ in find_scenes(str(place), Path("data"))] == ["transforms/mine/black_240"]


@pytest.mark.parametrize("place", ["Sequence_1", "scene", "above", "beside NICE-SLAM's"])
def test_the_camera_of_a_semantic_nerf_scene(replica_rooms, tmp_path, place):
    data = tmp_path / "data"
    shutil.copytree(replica_rooms / "Replica" / "train_000", data / "Replica" / "train_000")
    truth = open_scene("replica/train_000/Sequence_1/black_64", replica_rooms)
    height, width = truth.raw_size
    camera = {"fx": 0.6 * width, "fy": 0.7 * width, "cx": 0.48 * width, "cy": 0.52 * height, "w": width, "h": height}
    if place.startswith("beside"):
        (data / "Replica" / "room0" / "results").mkdir(parents=True)
    folder = {"Sequence_1": "train_000/Sequence_1", "scene": "train_000"}.get(place, "")
    (data / "Replica" / folder / "cam_params.json").write_text(json.dumps({"camera": {**camera, "scale": 2000.0}}))
    scene = open_scene("replica/train_000/Sequence_1/black_64", data)
    frame = truth.frame_ids[:1]
    found, expected = (s.views(frame, depth=True).to("cpu").depth for s in (scene, truth))
    if place.startswith("beside"):
        np.testing.assert_allclose(scene.Ks, truth.Ks)
    else:
        K = [[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]]
        np.testing.assert_allclose(scene.Ks[0], K)
        expected = expected / 2
    np.testing.assert_allclose(found, expected, atol=1e-3)


# What the check sees through


def set_depth(capture, change):
    rewrite(capture, "depth", ".npy", lambda path, values: np.save(path, change(values / 1000).astype(np.float32)))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda z: 1 / z, "inverse depth, or disparity"),
        (lambda z: 0.7 / z + 0.2, "inverse depth, or disparity"),
        (lambda z: 5 * (1 / 0.1 - 1 / z) / (1 / 0.1 - 1 / 10), "that of a depth buffer"),
        (lambda z: 12 * (z - 0.9), "stretched to the numbers of its files"),
        (lambda z: z[:, ::-1], "depth is mirrored against the poses"),
        (lambda z: z[::-1, ::-1], "depth is turned by 180 degrees against the poses"),
    ],
    ids=["inverse", "disparity", "buffer", "stretched", "mirrored", "turned"],
)
def test_what_depth_is_instead_is_named(capture, change, cause):
    set_depth(capture, change)
    assert f"likely cause: depth is {cause.removeprefix('depth is ')}" in checked(capture, 4)


def test_images_turned_against_their_poses_are_named(capture):
    turn = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    change_poses(capture, lambda matrix: matrix @ turn)
    assert "images are turned by 90 degrees against the poses" in checked(capture, 4)


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_another_focal_length_is_named(capture, factor):
    edit(capture, lambda content: content.update({key: factor * content[key] for key in ("fl_x", "fl_y")}))
    found = checked(capture, 4)
    assert "the focal length does not fit: frames agree if it is" in found
    assert float(found.split("if it is ")[1].split()[0]) == pytest.approx(1 / factor, rel=0.12)


@pytest.mark.parametrize(("right", "down"), [(0.1, 0), (-0.05, 0.1)])
def test_a_principal_point_of_images_before_they_were_cropped_is_named(capture, right, down):
    edit(capture, lambda content: content.update(cx=content["cx"] + right * 128, cy=content["cy"] + down * 96))
    found = checked(capture, 4)
    assert "the principal point does not fit" in found
    told = re.search(r"lies ([-+]\d+)% of the width to the right and ([-+]\d+)%", found)
    assert np.abs(np.array([*map(float, told.groups())]) + [100 * right, 100 * down]).max() <= 3


AXES = np.diag([1.0, -1, -1, 1])
MIRROR_Y, MIRROR_Z = np.diag([1.0, -1, 1, 1]), np.diag([1.0, 1, -1, 1])


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda m: m @ AXES, "poses have OpenCV axes (y down, z forward) instead of OpenGL's"),
        (np.linalg.inv, "poses are world-to-camera instead of camera-to-world"),
        (lambda m: np.linalg.inv(m @ AXES), "poses are world-to-camera with OpenCV axes"),
        (lambda m: np.block([[m[:3, :3].T, m[:3, 3:]], [m[3:]]]), "rotations are world-to-camera"),
        (lambda m: MIRROR_Z @ m @ MIRROR_Z, "coordinates are left-handed … row and of column z"),
        (lambda m: MIRROR_Y @ m @ MIRROR_Y, "coordinates are left-handed … row and of column y"),
    ],
    ids=["axes", "inverse", "both", "transposed", "unity", "unreal"],
)
def test_axes_of_a_capture_are_named_as_its_format_has_them(capture, change, cause):
    change_poses(capture, change)
    found = checked(capture, 4).partition("likely cause: ")[2]
    assert all(part in found for part in cause.split(" … "))


@pytest.mark.parametrize(("factor", "unit"), [(100, "centimetres"), (1000, "millimetres"), (3.28084, "feet")])
def test_positions_in_another_unit_are_named(capture, factor, unit):
    change_poses(capture, lambda m: np.block([[m[:3, :3], factor * m[:3, 3:]], [m[3:]]]))
    assert f"positions are in {unit}" in checked(capture, 4)


def change_every_other_image(capture, change):
    for number in range(0, FRAMES, 2):
        values = cv2.imread(str(image(capture, number)))
        cv2.imwrite(str(image(capture, number)), np.ascontiguousarray(change(values)))


def test_what_every_other_image_has_is_seen(capture):
    change_every_other_image(capture, lambda values: 255 - values)
    assert "colour does not fit depth and poses" in checked(capture, 4)


def test_images_of_one_colour_are_counted(capture):
    change_every_other_image(capture, np.zeros_like)
    assert "2 of the color images of 4 frames show a single colour" in checked(capture, 4)
