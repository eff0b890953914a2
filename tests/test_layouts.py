"""Relatives of the layouts that are read: Blender's files, other releases of ScanNet and Replica, other numbers; and
folders of other programs, which are named."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from captures import ROOM, assert_same, both, edit_frames, to_nyu40

from dataset.check.__main__ import find_scenes
from dataset.database import open_scene
from dataset.prepare.replica import prepare_replica
from dataset.prepare.scannet import prepare_scannet
from dataset.prepare.transforms import prepare_transforms
from utils import logging
from utils.errors import UserError
from utils.images import write_image


def test_blender_s_files(capture, truth):
    content = json.loads((capture / "transforms.json").read_text())
    parts = {"train": content["frames"][:16], "val": content["frames"][16:18], "test": content["frames"][18:]}
    (capture / "transforms.json").unlink()
    for split, frames in parts.items():
        frames = [{**f, "file_path": "./" + f["file_path"].removesuffix(".jpg")} for f in frames]
        angle = 2 * np.arctan(content["w"] / 2 / content["fl_x"])
        part = {"camera_angle_x": angle, "frames": frames, "semantic_classes": content["semantic_classes"]}
        (capture / f"transforms_{split}.json").write_text(json.dumps(part))
    for scene in both(capture):
        assert scene.split().tests == [str(n) for n in range(18, 24)] and len(scene.split().references) == 16
        a, b = (s.views(["3"], depth=True).to("cpu") for s in (scene, truth))
        assert (a.images == b.images).all() and torch.allclose(a.cameras.poses, b.cameras.poses, atol=1e-5)
        assert a.cameras.Ks[0, 0, 0] == pytest.approx(float(b.cameras.Ks[0, 0, 0]), rel=1e-4)
        assert a.cameras.Ks[0, 0, 2] == 31.5


def test_backslashes_in_paths(capture, truth):
    keys = ("file_path", "depth_file_path", "semantic_path")
    edit_frames(capture, lambda frame: frame.update({key: frame[key].replace("/", "\\") for key in keys}))
    for scene in both(capture):
        assert_same(scene, truth)


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
    assert_same(open_scene(ROOM, room), open_scene(ROOM, scannet_base))


@pytest.mark.parametrize(("kind", "suffix"), [("depth", ".npz"), ("depth", ".exr"), ("label-filt", ".jpg")])
def test_maps_that_are_not_read_are_no_scene_without_maps(room, kind, suffix):
    for path in [*(room / "scannet" / "train_000" / kind).iterdir()]:
        path.rename(path.with_suffix(suffix))
    with pytest.raises(UserError, match=rf"has no maps named 0.png, 1.png, … but 0\{suffix} \("):
        open_scene(ROOM, room)


def test_labels_are_those_of_the_folder_that_holds_some(room, scannet_base):
    scene = room / "scannet" / "train_000"
    (scene / "label-filt").rename(scene / "label")
    (scene / "label-filt").mkdir()
    assert_same(open_scene(ROOM, room), open_scene(ROOM, scannet_base))


@pytest.mark.parametrize(
    ("name", "told"),
    [("depth", "has no depth; folders that are not read: depths"), (None, "folders that are not read: masks")],
)
def test_folders_that_are_not_read_are_said(room, name, told, capsys):
    scene = room / "scannet" / "train_000"
    (scene / "instance-filt").mkdir()
    open_scene(ROOM, room)
    assert "not read" not in capsys.readouterr().err
    (scene / "instance-filt").rmdir()
    if name:
        (scene / name).rename(scene / f"{name}s")
    else:
        (scene / "masks").mkdir()
    open_scene(ROOM, room)
    assert told in capsys.readouterr().err


def test_replica_s_maps_that_are_not_read(replica_rooms, tmp_path, capsys):
    scene = tmp_path / "Replica" / "val_000"
    shutil.copytree(replica_rooms / "Replica" / "val_000", scene)
    (scene / "Sequence_1" / "semantic_class").rename(scene / "Sequence_1" / "semantic_instance")
    open_scene("replica/val_000/Sequence_1/black_64", tmp_path)
    assert "has no labels; folders that are not read: semantic_instance" in capsys.readouterr().err
    for path in [*(scene / "Sequence_1" / "depth").iterdir()]:
        path.rename(path.with_suffix(".exr"))
    with pytest.raises(UserError, match="has no maps named depth_0.png, depth_1.png, … but depth_0.exr"):
        open_scene("replica/val_000/Sequence_1/black_64", tmp_path)


def test_two_images_of_one_number_are_refused(room):
    folder = room / "scannet" / "train_000" / "color"
    shutil.copy(folder / "3.jpg", folder / "0003.JPG")
    with pytest.raises(UserError, match="have the same number"):
        open_scene(ROOM, room)


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


def test_a_line_missing_in_a_trajectory_is_refused_and_images_that_were_left_out_are_not(
    replica_rooms, tmp_path, capsys
):
    logging.forget()
    copy = shutil.copytree(replica_rooms / "Replica" / "val_000", tmp_path / "Replica" / "val_000") / "Sequence_1"
    path = copy / "traj_w_c.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:7] + lines[8:]))
    with pytest.raises(UserError, match="there are 47 poses; which images have none is not known"):
        open_scene("replica/val_000/Sequence_1/black_64", tmp_path)
    path.write_text("\n".join(lines))
    for kind in ("rgb", "depth", "semantic_class"):
        (copy / kind / f"{kind}_47.png").unlink()
    assert len(open_scene("replica/val_000/Sequence_1/black_64", tmp_path)) == 47
    assert "pose i is taken for image i" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["intrinsic/distortion_color.txt", "distortion.txt"])
def test_a_file_of_lens_distortion_beside_scannet_s_layout_is_refused(room, scannet_base, place):
    path = room / "scannet" / "train_000" / place
    path.write_text("k1 k2 p1 p2\n0 0 0.0 0\n")
    assert_same(open_scene(ROOM, room), open_scene(ROOM, scannet_base))
    for content in ("0.1 -0.2 0 0", "[0, 0, 1e-4, 0]", "k1: 0.1, k2: 0"):
        path.write_text(content)
        with pytest.raises(UserError, match=f"{path.name}: lens distortion is not read"):
            open_scene(ROOM, room)


# Folders of other programs and datasets

LAYOUTS = {
    "TUM RGB-D or a relative": ("rgb.txt", "depth.txt", "groundtruth.txt", "rgb/1.5.png", "depth/1.5.png"),
    "ICL-NUIM": ("rgb/1.png", "depth/1.png", "associations.txt", "livingRoom1.gt.freiburg"),
    "ARKitScenes": ("lowres_wide/1.png", "lowres_depth/1.png", "lowres_wide.traj", "lowres_wide_intrinsics/1.pincam"),
    "ScanNet++": ("dslr/nerfstudio/transforms.json", "dslr/colmap/cameras.txt", "dslr/resized_images/DSC1.JPG"),
    "ScanNet++'s phone": ("iphone/rgb.mkv", "iphone/pose_intrinsic_imu.json"),
    "Replica of NICE-SLAM": ("cam_params.json", "room0/traj.txt", "room0/results/frame000000.jpg"),
    "Replica of Semantic-NeRF": ("Sequence_1/traj_w_c.txt", "Sequence_1/rgb/rgb_0.png"),
    "7-Scenes": ("seq-01/frame-000000.color.png", "seq-01/frame-000000.pose.txt"),
    "a ScanNet release": ("scans/scene0000_00/scene0000_00.sens",),
    "a ScanNet scene": ("color/0.jpg", "pose/0.txt", "intrinsic/intrinsic_color.txt"),
    "COLMAP's model": ("sparse/0/cameras.bin", "images/1.jpg"),
    "Metashape's project or export": ("cameras.xml", "images/0.jpg"),
    "RealityCapture's export": ("internal_external.csv", "0.jpg"),
    "Stray Scanner's recording": ("rgb.mp4", "odometry.csv", "camera_matrix.csv", "depth/000000.png"),
    "Hypersim": ("_detail/metadata_cameras.csv", "images/scene_cam_00_final_hdf5/frame.0000.color.hdf5"),
    "Redwood or Open3D": ("rgb/00000.jpg", "depth/00000.png", "trajectory.log"),
    "a packed capture": ("kitchen.zip",),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("use", ["transforms", "scannet", "replica", "check", "scene"])
def test_a_folder_of_another_program_is_named_in_one_line(layout, use, tmp_path):
    for name in LAYOUTS[layout]:
        (tmp_path / "it" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "it" / name).touch()
    uses = {
        "transforms": lambda: prepare_transforms(tmp_path / "it", tmp_path / "out", "mine"),
        "scannet": lambda: prepare_scannet(tmp_path / "it", tmp_path / "out", None, 1, 1),
        "replica": lambda: prepare_replica(tmp_path / "it", tmp_path / "out"),
        "check": lambda: find_scenes(str(tmp_path / "it"), tmp_path),
        "scene": lambda: open_scene(str(tmp_path / "it"), tmp_path),
    }
    if use in {"a ScanNet release": "scannet", "Replica of NICE-SLAM": "replica"}.get(layout, ""):
        return  # which is what it is for
    with pytest.raises(UserError, match=f"it(/[a-z0-9-]+)? seems to be {re.escape(layout)}: ") as error:
        uses[use]()
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_an_unknown_folder_is_not_guessed_at(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"holds no transforms.json \(nor Blender's transforms_train.json\)$"):
        prepare_transforms(tmp_path, tmp_path / "out", "mine")


def test_nice_slam_s_layout_without_a_camera_is_said(replica_rooms, tmp_path, capsys):
    source, target = replica_rooms / "Replica" / "val_000" / "Sequence_1", tmp_path / "Replica" / "room0"
    (target / "results").mkdir(parents=True)
    shutil.copy(source / "traj_w_c.txt", target / "traj.txt")
    for number in range(48):
        shutil.copy(source / "rgb" / f"rgb_{number}.png", target / "results" / f"frame{number:06d}.png")
    open_scene("replica/room0/black_64", tmp_path)
    assert "there is no cam_params.json; images are taken to be 90 degrees wide" in capsys.readouterr().err
