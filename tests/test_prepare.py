"""Preparing data, from sources that are written here byte by byte."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from programs import run_program

from dataset.camera import Lens, undistort
from dataset.capture import read_pose
from dataset.database import open_scene
from dataset.labels import SCANNET_TABLE
from dataset.prepare.replica import prepare_replica
from dataset.prepare.scannet import prepare_scannet
from dataset.prepare.transforms import prepare_transforms
from dataset.replica import read_trajectory
from dataset.synthetic.generate import SIZES, Size, generate
from dataset.synthetic.raycast import Light
from utils.errors import UserError

REPOSITORY = Path(__file__).parent.parent
TABLE = "id\traw_category\tnyu40id\n1\twall\t1\n3\tfloor\t2\n"
POSES = [np.array([[0, -1, 0, 0.1 * i], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], float) for i in range(6)]


def images(count=6):
    rng = np.random.default_rng(0)
    colors = [cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (64, 48)) for _ in range(count)]
    depths = [rng.integers(500, 4000, (24, 32)).astype(np.uint16) for _ in range(count)]
    return colors, depths


def sens_bytes(color="jpeg", depth="zlib", shift=1000.0, frames=None, claimed=None):
    """A .sens file as the format says, and the blobs in it."""
    colors, depths = images()
    blobs = []
    for image in colors:
        encoded = {
            "raw": image.tobytes,
            "png": lambda i=image: cv2.imencode(".png", i[..., ::-1])[1].tobytes(),
            "jpeg": lambda i=image: cv2.imencode(".jpg", i[..., ::-1])[1].tobytes(),
        }[color]()
        blobs.append(encoded)
    out = struct.pack("<I", 4) + struct.pack("<Q", 3) + b"cam"
    for focal, cx, cy in ((50, 31.5, 23.5), (1, 0, 0), (25, 15.5, 11.5), (1, 0, 0)):
        matrix = np.eye(4, dtype="<f4")
        matrix[0, 0] = matrix[1, 1] = focal
        matrix[:2, 2] = cx, cy
        out += matrix.tobytes()
    out += struct.pack("<i", {"raw": 0, "png": 1, "jpeg": 2, "unknown": -1}[color])
    out += struct.pack("<i", {"raw": 0, "zlib": 1, "occi": 2}[depth])
    out += struct.pack("<IIII", 64, 48, 32, 24) + struct.pack("<f", shift)
    out += struct.pack("<Q", len(POSES) if claimed is None else claimed)
    for matrix, blob, values in zip(POSES, blobs, depths, strict=True):
        packed = values.astype("<u2").tobytes()
        packed = zlib.compress(packed) if depth == "zlib" else packed
        out += matrix.astype("<f4").tobytes() + struct.pack("<QQQQ", 1, 2, len(blob), len(packed)) + blob + packed
    return out + struct.pack("<Q", 1) + bytes(128), blobs


def release(tmp_path, scan="scene0000_00", sens=None, labels=range(6), folder="scans", members=()):
    """A release of one recording; `sens`: its content."""
    source = tmp_path / "release"
    place = source / folder / scan
    place.mkdir(parents=True)
    (source / SCANNET_TABLE).write_text(TABLE)
    (place / f"{scan}.sens").write_bytes(sens_bytes()[0] if sens is None else sens)
    (place / f"{scan}.txt").write_text("axisAlignment = 1 0 0 0\n")
    if labels is not None:
        with zipfile.ZipFile(place / f"{scan}_2d-label-filt.zip", "w") as archive:
            for number in labels:
                archive.writestr(
                    f"label-filt/{number}.png",
                    cv2.imencode(".png", np.full((48, 64), 1 + 2 * (number % 2), np.uint16))[1].tobytes(),
                )
            for name in members:
                archive.writestr(name, b"evil")
    return source


def prepared(source, tmp_path, **options):
    options = {"scans": None, "stride": 1, "workers": 1, **options}
    good = prepare_scannet(source, tmp_path / "data" / "scannet", **options)
    return tmp_path / "data" / "scannet" / "scene0000_00", good


def test_jpeg_is_written_byte_for_byte_and_the_loader_reads_all(tmp_path):
    folder, good = prepared(release(tmp_path), tmp_path)
    _, blobs = sens_bytes()
    assert good and [(folder / "color" / f"{i}.jpg").read_bytes() for i in range(6)] == blobs
    for number, values in enumerate(images()[1]):
        np.testing.assert_array_equal(cv2.imread(str(folder / "depth" / f"{number}.png"), cv2.IMREAD_UNCHANGED), values)
    scene = open_scene("scannet/scene0000_00/black_64", tmp_path / "data")
    np.testing.assert_allclose(scene.camera_to_world, POSES, atol=1e-6)
    assert scene.Ks[0, 0, 0] == 50 and len(scene) == 6 and scene.labels is not None
    assert scene.views(["1"], labels=True).labels.unique().tolist() == [1]


@pytest.mark.parametrize("color", ["raw", "png"])
@pytest.mark.parametrize("depth", ["raw", "zlib"])
def test_other_compressions(color, depth, tmp_path):
    folder, good = prepared(release(tmp_path, sens=sens_bytes(color, depth, shift=500.0)[0]), tmp_path)
    suffix = "png" if color == "png" else "jpg"
    image = cv2.imread(str(folder / "color" / f"2.{suffix}"))[..., ::-1]
    assert good and np.abs(image.astype(int) - images()[0][2]).mean() < 12 * (color == "raw") + 1e-9
    np.testing.assert_array_equal(cv2.imread(str(folder / "depth" / "2.png"), cv2.IMREAD_UNCHANGED), images()[1][2] * 2)


@pytest.mark.parametrize(
    ("sens", "message"),
    [
        (sens_bytes(depth="occi")[0], "compressed with occi"),
        (sens_bytes()[0].replace(b"\4\0\0\0", b"\3\0\0\0", 1), "not a .sens file of version 4"),
        (b"hello", "version 4"),
        (sens_bytes()[0][:100], "cut off in its header"),
        (b"", "cut off in its header"),
        (struct.pack("<IQ", 4, 2**60), "not a .sens file"),
    ],
)
def test_files_that_cannot_be_read(sens, message, tmp_path, capsys):
    _, good = prepared(release(tmp_path, sens=sens), tmp_path)
    assert not good and message in capsys.readouterr().out


def header(changes=(), sizes=(64, 48, 32, 24), shift=1000.0):
    """A .sens file whose header's matrices are changed: (place, row, column, value) each, of colour's intrinsics and
    extrinsics, and depth's."""
    data = bytearray(sens_bytes()[0])
    matrices = np.frombuffer(data, "<f4", 64, offset=4 + 8 + 3).reshape(4, 4, 4)
    for place, row, column, value in changes:
        matrices[place, row, column] = value
    data[15 + 256 + 8 : 15 + 256 + 28] = struct.pack("<4If", *sizes, shift)
    return bytes(data)


@pytest.mark.parametrize(
    ("sens", "message"),
    [
        (header([(0, 0, 0, np.nan)]), "intrinsics of color: should hold fx 0 cx"),
        (header([(0, 1, 1, 0)]), "intrinsics of color: should hold fx 0 cx"),
        (header([(2, 0, 0, -25)]), "intrinsics of depth: should hold fx 0 cx"),
        (header([(0, 0, 2, 15), (0, 1, 2, 11)]), "(15, 11) is not near the middle of images of 64x48"),
        (header([(1, 0, 0, np.nan)]), "extrinsics of color: should hold a rotation and shift"),
        (header([(3, 0, 0, -1)]), "extrinsics of depth: the matrix is a mirror image"),
        (header(sizes=(0, 0, 32, 24)), "colour of 0x0 and depth of 32x24"),
        (header(shift=np.nan), "a depth shift of nan makes no sense; download it again"),
    ],
)
def test_headers_of_no_camera_are_refused_before_anything_is_written(sens, message, tmp_path, capsys):
    folder, good = prepared(release(tmp_path, sens=sens), tmp_path)
    said = capsys.readouterr().out
    assert not good and "scene0000_00.sens: " in said and message in said and not (folder / "intrinsic").exists()


@pytest.mark.parametrize("shift", [1e-3, 10, 1e5, 1e9])
def test_a_depth_shift_that_makes_no_room_is_said(shift, tmp_path, capsys):
    _, good = prepared(release(tmp_path, sens=header(shift=shift)), tmp_path)
    said = capsys.readouterr().out
    assert not good and f"by the header's depth shift of {shift:g} its depth is" in said and "holds no frames" in said


@pytest.mark.parametrize("depth", ["raw", "zlib"])
def test_depth_of_another_size_than_the_header_s_is_said(depth, tmp_path, capsys):
    data = sens_bytes(depth=depth)[0].replace(struct.pack("<II", 32, 24), struct.pack("<II", 32, 23), 1)
    _, good = prepared(release(tmp_path, sens=data), tmp_path)
    assert not good and "its depth is not 32x23 pixels of 16 bits, as the header says" in capsys.readouterr().out


def test_every_changed_byte_of_packed_depth_is_noticed(tmp_path, capsys):
    data, packed = sens_bytes()[0], zlib.compress(images()[1][2].astype("<u2").tobytes())
    end = data.index(packed) + len(packed)
    _, good = prepared(release(tmp_path, sens=data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]), tmp_path)
    assert not good and "frames are damaged and left out: 2 (" in capsys.readouterr().out


def test_raw_colour_of_another_size_and_bad_poses_are_said_in_plain_words(tmp_path, capsys):
    short = sens_bytes("raw")[0].replace(struct.pack("<II", 64, 48), struct.pack("<II", 64, 47), 1)
    assert not prepared(release(tmp_path, sens=short), tmp_path)[1]
    assert "0 (its colour is not 64x47 pixels of 3 bytes, as the header says)" in capsys.readouterr().out
    mirrored = POSES[2] @ np.diag([-1.0, 1, 1, 1])
    sens = sens_bytes()[0].replace(POSES[2].astype("<f4").tobytes(), mirrored.astype("<f4").tobytes())
    assert not prepared(release(tmp_path / "other", sens=sens), tmp_path / "other")[1]
    said = capsys.readouterr().out
    assert "left out: 2 (the pose of frame 2 is a mirror image" in said and "download the recording again" in said


@pytest.mark.parametrize("missing", [1, 130])
def test_a_recording_cut_off_behind_its_frames_is_whole(missing, tmp_path, capsys):
    _, good = prepared(release(tmp_path, sens=sens_bytes()[0][:-missing]), tmp_path)
    assert good and "ends inside its IMU data, which is not read; all 6 frames are there" in capsys.readouterr().out


def test_colour_in_a_format_that_is_not_read_is_named(tmp_path, capsys):
    whole, blobs = sens_bytes()
    heic = (b"\0\0\0\x18ftypheic" + bytes(len(blobs[2])))[: len(blobs[2])]
    _, good = prepared(release(tmp_path, sens=whole.replace(blobs[2], heic)), tmp_path)
    assert not good and "left out: 2 (HEIC or AVIF is not read here" in capsys.readouterr().out
    place = 15 + 256
    unknown = whole[:place] + struct.pack("<i", -1) + whole[place + 4 :]
    assert not prepared(release(tmp_path / "other", sens=unknown), tmp_path / "other")[1]
    assert "colour compression -1 is not read (0 raw, 1 png, 2 jpeg are); export it" in capsys.readouterr().out


def test_a_truncated_file_keeps_what_is_whole_and_says_where_it_ends(tmp_path, capsys):
    whole = sens_bytes()[0]
    folder, good = prepared(release(tmp_path, sens=whole[: len(whole) * 2 // 3], labels=None), tmp_path)
    frames = sorted(int(path.stem) for path in (folder / "pose").iterdir())
    assert not good and f"ends inside frame {len(frames)} of 6" in capsys.readouterr().out
    assert 2 <= len(frames) < 6 and len(open_scene("scannet/scene0000_00/black_64", tmp_path / "data")) == len(frames)
    # the whole file later adds the rest
    (tmp_path / "release" / "scans" / "scene0000_00" / "scene0000_00.sens").write_bytes(whole)
    first = (folder / "color" / "0.jpg").stat().st_mtime_ns
    _, good = prepared(tmp_path / "release", tmp_path)
    assert (
        good
        and len(list((folder / "pose").iterdir())) == 6
        and (folder / "color" / "0.jpg").stat().st_mtime_ns == first
    )


def test_frames_that_the_header_leaves_out_and_turned_sizes_are_said(tmp_path, capsys):
    source = release(tmp_path, sens=sens_bytes(claimed=4)[0])
    assert prepared(source, tmp_path)[1]
    assert "holds more than the 4 frames that its header says" in capsys.readouterr().out
    data = sens_bytes()[0]
    turned = data.replace(struct.pack("<II", 32, 24), struct.pack("<II", 24, 32), 1)
    (tmp_path / "turned").mkdir()
    assert not prepared(release(tmp_path / "turned", sens=turned), tmp_path / "turned")[1]
    assert "64x48 for colour and 24x32 for depth; one is turned" in capsys.readouterr().out


def test_a_blob_that_claims_to_be_huge_is_not_read(tmp_path):
    data = bytearray(sens_bytes()[0])
    start = data.index(struct.pack("<QQ", 1, 2)) + 16
    data[start : start + 8] = struct.pack("<Q", 2**50)
    _, good = prepared(release(tmp_path, sens=bytes(data)), tmp_path)
    assert not good


def test_a_complete_scene_is_skipped_and_a_changed_source_is_not(tmp_path, capsys):
    source = release(tmp_path)
    prepared(source, tmp_path)
    prepared(source, tmp_path)
    assert "complete already" in capsys.readouterr().out
    os.utime(source / "scans" / "scene0000_00" / "scene0000_00.sens", (1, 1))
    prepared(source, tmp_path)
    assert "1 were complete already" not in capsys.readouterr().out


def test_another_recording_is_not_mixed_with_what_is_there(tmp_path, capsys):
    source = release(tmp_path)
    folder, _ = prepared(source, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.name != ".prepared"}
    sens = source / "scans" / "scene0000_00" / "scene0000_00.sens"
    sens.write_bytes(sens.read_bytes().replace(b"cam", b"gam", 1))
    assert not prepared(source, tmp_path)[1]
    assert "holds frames of another recording than" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before


def test_a_label_of_the_same_length_is_written_anew(tmp_path):
    source = release(tmp_path)
    folder, _ = prepared(source, tmp_path)
    label = folder / "label-filt" / "0.png"
    right = label.read_bytes()
    label.write_bytes(bytes(len(right)))
    prepared(source, tmp_path, stride=2)
    assert label.read_bytes() == right


def test_stride_and_missing_labels_and_scenes_without_any(tmp_path, capsys):
    folder, good = prepared(release(tmp_path, labels=[0, 2]), tmp_path, stride=2)
    assert sorted(path.name for path in (folder / "color").iterdir()) == ["0.jpg", "2.jpg", "4.jpg"]
    assert not good and "1 frames have no label" in capsys.readouterr().out
    other = tmp_path / "other"
    other.mkdir()
    _, good = prepared(release(other, labels=None, folder="scans_test"), other)
    scene = open_scene("scannet/scene0000_00/black_64", other / "data")
    assert good and scene.labels is None and scene.has_depth and len(scene) == 6


def test_names_that_climb_out_of_the_folder_are_left_out(tmp_path, capsys):
    members = ["../../evil.png", "../label-filt/3.png", "label-filt/../../1.png", "/etc/evil.png", "label-filt/x.png"]
    prepared(release(tmp_path, members=members), tmp_path)
    assert f"{len(members)} members are not label-filt/<number>.png, left out" in capsys.readouterr().out
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("x.png"))


def test_members_of_an_archive_with_other_paths_are_one_line_or_honoured(tmp_path, capsys):
    source = release(tmp_path, labels=None)
    path = source / "scans" / "scene0000_00" / "scene0000_00_2d-label-filt.zip"
    label = cv2.imencode(".png", np.ones((48, 64), np.uint16))[1].tobytes()
    for prefix, good in (("some/where/", False), ("scene0000_00/label-filt/", True)):
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(6):
                archive.writestr(f"{prefix}{number}.png", label)
        folder, whole = prepared(source, tmp_path)
        assert whole == good and len(list((folder / "label-filt").glob("*.png")) if good else []) == 6 * good
        said = capsys.readouterr().out
        assert ("6 members are not label-filt/<number>.png, left out (some/where/0.png," in said) == (not good)


def test_members_of_one_number_and_members_that_are_no_png_are_said(tmp_path, capsys):
    source = release(tmp_path, labels=[0, 1, 2, 3], members=["label-filt/000003.png", "label-filt/4.png"])
    folder, good = prepared(source, tmp_path)
    said = capsys.readouterr().out
    assert not good and "1 members have the number of another one, left out (label-filt/000003.png)" in said
    assert "1 members are no PNG, left out (label-filt/4.png)" in said and "2 frames have no label" in said
    assert sorted(path.name for path in (folder / "label-filt").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    assert (cv2.imread(str(folder / "label-filt" / "3.png"), -1) == 3).all()


def test_missing_labels_are_mentioned(tmp_path, capsys):
    _, good = prepared(release(tmp_path, labels=None), tmp_path)
    assert good and "no labels (scene0000_00_2d-label-filt.zip is not there)" in capsys.readouterr().out


def test_recordings_without_frames_or_poses_are_a_problem(tmp_path, capsys):
    whole = sens_bytes()[0]
    count = whole.index(struct.pack("<f", 1000.0)) + 4
    _, good = prepared(release(tmp_path, sens=whole[:count] + struct.pack("<Q", 0)), tmp_path)
    assert not good and "holds no frames" in capsys.readouterr().out
    lost = whole
    for pose in POSES:
        lost = lost.replace(pose.astype("<f4").tobytes(), np.full((4, 4), -np.inf, "<f4").tobytes())
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / "release")
    _, good = prepared(release(tmp_path, sens=lost), tmp_path)
    assert not good and "no frame has a pose" in capsys.readouterr().out


def test_damaged_colour_in_a_recording_is_counted_and_named(tmp_path, capsys):
    whole, blobs = sens_bytes()
    at = whole.index(blobs[2]) + len(blobs[2]) // 2
    folder, good = prepared(release(tmp_path, sens=whole[:at] + b"\xff" * 60 + whole[at + 60 :]), tmp_path)
    assert not good and "frames are damaged and left out: 2 (" in capsys.readouterr().out
    assert not (folder / "pose" / "2.txt").exists() and (folder / "pose" / "3.txt").exists()


def test_a_scene_of_the_user_s_own_is_not_written_over(tmp_path, capsys):
    source = release(tmp_path)
    own = tmp_path / "data" / "scannet" / "scene0000_00"
    (own / "color").mkdir(parents=True)
    (own / "intrinsic").mkdir()
    (own / "intrinsic" / "intrinsic_color.txt").write_text("mine")
    _, good = prepared(source, tmp_path)
    assert not good and "was not made by preparation" in capsys.readouterr().out
    assert (own / "intrinsic" / "intrinsic_color.txt").read_text() == "mine" and not (own / "depth").exists()


def test_a_label_table_that_differs_is_not_written_over(tmp_path):
    source = release(tmp_path)
    (tmp_path / "data" / "scannet").mkdir(parents=True)
    (tmp_path / "data" / "scannet" / SCANNET_TABLE).write_text("mine")
    with pytest.raises(UserError, match="is another label table than"):
        prepared(source, tmp_path)


def test_a_damaged_archive_keeps_the_images(tmp_path, capsys):
    source = release(tmp_path)
    (source / "scans" / "scene0000_00" / "scene0000_00_2d-label-filt.zip").write_bytes(b"PK no zip")
    folder, good = prepared(source, tmp_path)
    assert not good and "is damaged" in capsys.readouterr().out and len(list((folder / "color").iterdir())) == 6


def test_sources_without_anything(tmp_path, monkeypatch):
    (tmp_path / SCANNET_TABLE).write_text(TABLE)
    with pytest.raises(UserError, match="has no scans/<scan>"):
        prepared(tmp_path, tmp_path)
    source = release(tmp_path)
    with pytest.raises(UserError, match="has no scene9999_00.sens"):
        prepared(source, tmp_path, scans=["scene9999_00"])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(UserError, match="GB are free"):
        prepared(source, tmp_path)
    (source / SCANNET_TABLE).unlink()
    (tmp_path / "data" / "scannet" / SCANNET_TABLE).unlink()
    with pytest.raises(UserError, match="label table is missing"):
        prepared(source, tmp_path)


def _limit_memory():
    resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))


def test_a_long_file_takes_little_memory_and_the_command_says_how_it_went(tmp_path):
    generate(tmp_path / "src", "release", Size({"train": 2}, 4, (24, 32), Light(1.0, 2, 1), 1))
    sens = tmp_path / "src" / "scans" / "train_000" / "train_000.sens"
    blob = sens_bytes()[1][0] + bytes(4_000_000)  # 300 frames of 4 MB: more than the limit below
    with open(sens, "wb") as file:
        file.write(sens_bytes()[0][: 4 + 8 + 3 + 4 * 64 + 8 + 16 + 4] + struct.pack("<Q", 300))
        depth = zlib.compress(bytes(24 * 32 * 2))
        for _ in range(300):
            file.write(
                np.eye(4, dtype="<f4").tobytes() + struct.pack("<4Q", 0, 0, len(blob), len(depth)) + blob + depth
            )
    command = [
        sys.executable,
        "-m",
        "dataset.prepare",
        "scannet",
        "--source",
        tmp_path / "src",
        "--out",
        tmp_path / "out",
        "--workers",
        "1",
    ]
    done = subprocess.run(
        list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True, preexec_fn=_limit_memory, timeout=200
    )
    assert "train_000: 300 frames" in done.stdout and done.returncode == 1, (
        done.stdout + done.stderr
    )  # labels are missing
    assert "train_001: 4 frames" in done.stdout and "Traceback" not in done.stderr


def test_release_of_synthetic_rooms_equals_their_scannet_layout(tmp_path):
    size = Size({"train": 1}, 5, (48, 64), Light(1.0, 2, 1), 1)
    generate(tmp_path / "src", "release", size)
    generate(tmp_path / "plain", "scannet", size)
    assert prepare_scannet(tmp_path / "src", tmp_path / "data" / "scannet", None, 1, 1)
    a, b = (open_scene("scannet/train_000/black_64", tmp_path / root) for root in ("data", "plain"))
    assert a.frame_ids == b.frame_ids
    left, right = (scene.views(scene.frame_ids, depth=True, labels=True).to("cpu") for scene in (a, b))
    assert (
        (left.images == right.images).all()
        and (left.depth == right.depth).all()
        and (left.labels == right.labels).all()
    )
    np.testing.assert_allclose(left.cameras.poses, right.cameras.poses, atol=1e-5)


# Own captures


@pytest.fixture
def capture(tmp_path):
    """A synthetic capture's folder."""
    generate(tmp_path / "raw", "transforms", Size({"train": 1}, 20, (48, 64), Light(1.0, 2, 1), 1))
    return tmp_path / "raw" / "transforms" / "train_000"


def change(capture, **values):
    path = capture / "transforms.json"
    content = json.loads(path.read_text())
    for key, value in values.items():
        content[key] = value
    path.write_text(json.dumps(content))


def test_transforms_equal_scannet_of_the_same_room(capture, tmp_path):
    generate(tmp_path / "plain", "scannet", Size({"train": 1}, 20, (48, 64), Light(1.0, 2, 1), 1))
    a = open_scene("transforms/train_000/black_64", tmp_path / "raw")
    b = open_scene("scannet/train_000/black_64", tmp_path / "plain")
    frames = b.frame_ids  # those not lost
    left, right = (scene.views(frames, depth=True, labels=True).to("cpu") for scene in (a, b))
    np.testing.assert_allclose(left.cameras.poses, right.cameras.poses, atol=1e-5)
    np.testing.assert_allclose(left.cameras.Ks, right.cameras.Ks, atol=1e-4)
    assert (left.depth == right.depth).all() and (left.labels == right.labels).all()
    assert a.labels.names == b.labels.names


def test_opengl_axes_and_scale():
    gl = np.eye(4)
    gl[:3, 3] = (2, 4, 6)
    matrix = read_pose(gl.tolist(), 2.0, Path("t.json"), "x")
    np.testing.assert_allclose(matrix, [[1, 0, 0, 1], [0, -1, 0, 2], [0, 0, -1, 3], [0, 0, 0, 1]])


def test_lists_of_file_names_are_honoured_and_otherwise_every_eighth_tests(capture, tmp_path):
    scene = open_scene("transforms/train_000/black_64", tmp_path / "raw")
    assert (
        scene.split().tests == ["4", "12"]
        and "4" not in scene.split().references
        and len(scene.split().references) == 18
    )
    change(
        capture,
        train_filenames=["images/0.jpg", "images/2.jpg"],
        val_filenames=["images/5.jpg"],
        test_filenames=["images/10.jpg", "images/3.jpg"],
    )
    scene = open_scene("transforms/train_000/black_64", tmp_path / "raw")
    assert scene.split() == (["0", "2"], ["10", "3"]) and scene.training_frames(False) == ["0", "2"]


def test_preparing_a_pinhole_capture_copies_bytes_and_finds_the_depth_range(capture, tmp_path):
    prepare_transforms(capture, tmp_path / "data" / "transforms", "mine")
    target = tmp_path / "data" / "transforms" / "mine"
    assert (target / "images" / "3.jpg").read_bytes() == (capture / "images" / "3.jpg").read_bytes()
    scene = open_scene("transforms/mine/black_64", tmp_path / "data")
    depth = scene.views(scene.frame_ids, depth=True).to("cpu").depth
    near, far = scene.depth_range
    assert near < depth[depth > 0].min() + 0.1 and depth.max() - 0.3 < far < depth.max() * 1.2
    assert "mask" not in scene._files


def test_an_opencv_camera_is_refused_as_it_is_and_undistorted_by_preparation(capture, tmp_path):
    change(capture, camera_model="OPENCV", k1=0.25, k2=0.05, p1=0.002, p2=-0.001)
    with pytest.raises(UserError, match="is distorted; .*dataset.prepare transforms"):
        open_scene("transforms/train_000/black_64", tmp_path / "raw")
    prepare_transforms(capture, tmp_path / "data" / "transforms", "mine")
    views = open_scene("transforms/mine/black_64", tmp_path / "data").views(["3"], depth=True, labels=True)
    assert views.mask is not None and 0.5 < views.mask.float().mean() < 1
    assert views.mask[0, 0, 24, 32] == 1 and (views.depth[0, 0][views.mask[0, 0] == 0].to(int) == 0).all()


def test_undistortion_equals_a_loop():
    """An image whose values are its own pixel coordinates shows where each pixel was read."""
    K, coefficients = (
        np.array([[50.0, 0, 31], [0, 52, 24], [0, 0, 1]]),
        np.array([-0.2, 0.03, 0.001, -0.002, 0, 0, 0, 0]),
    )
    rows, columns = np.mgrid[:48, :64].astype(np.float32)
    lens = Lens("OPENCV", coefficients)
    read = [undistort(values, K, lens, False, (48, 64)) for values in (columns, rows)]
    k1, k2, p1, p2 = coefficients[:4]
    for y in range(8, 40, 5):
        for x in range(8, 56, 7):
            a, b = (x - 31) / 50, (y - 24) / 52
            r = a * a + b * b
            radial = 1 + k1 * r + k2 * r * r
            expected = (
                50 * (a * radial + 2 * p1 * a * b + p2 * (r + 2 * a * a)) + 31,
                52 * (b * radial + p1 * (r + 2 * b * b) + 2 * p2 * a * b) + 24,
            )
            assert [image[y, x] for image in read] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": []}, "has no list of frames"),
        ({"fl_x": None}, "fl_x should be a number"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model EQUIRECTANGULAR is not supported"),
        ({"frames": [{"transform_matrix": []}]}, "frame 0 has no file_path"),
    ],
)
def test_captures_that_cannot_be_used(values, message, capture, tmp_path):
    change(capture, **values)
    with pytest.raises(UserError, match=message):
        prepare_transforms(capture, tmp_path / "out", "mine")


def test_a_broken_transforms_json(capture, tmp_path):
    (capture / "transforms.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        open_scene("transforms/train_000/black_64", tmp_path / "raw")
    change_matrix = {
        "frames": [{"file_path": "images/0.jpg", "transform_matrix": [[1, 2], [3, 4]]}],
        "fl_x": 40,
        "fl_y": 40,
        "cx": 32,
        "cy": 24,
    }
    (capture / "transforms.json").write_text(json.dumps(change_matrix))
    with pytest.raises(UserError, match="transform_matrix of images/0.jpg should be 4x4"):
        open_scene("transforms/train_000/black_64", tmp_path / "raw")


def test_replica_is_verified_in_both_spellings(replica_rooms, tmp_path):
    out = tmp_path / "data" / "Replica"
    done = run_program("-m", "dataset.prepare", "replica", "--source", replica_rooms, "--out", out)
    assert done.returncode == 0 and done.stdout.count("48 frames") == 4, done.stdout + done.stderr
    assert len(open_scene("replica/train_000/Sequence_1/black_64", tmp_path / "data")) == 48
    assert SIZES["tiny"].frames == 48


def test_replica_sequences_are_linked_and_one_that_cannot_be_used_is_said(replica_rooms, tmp_path, capsys):
    source, out = tmp_path / "downloads", tmp_path / "data" / "Replica"
    for room in ("train_000", "val_000"):
        shutil.copytree(replica_rooms / "Replica" / room, source / "Replica" / room)
    (source / "Replica" / "val_000" / "Sequence_1" / "traj_w_c.txt").write_text("1 0 0\n")
    (out / "val_000").mkdir(parents=True)
    (out / "val_000" / "mine.txt").write_text("keep me")
    assert not prepare_replica(source, out)
    assert (out / "train_000").is_symlink() and len(
        open_scene("replica/train_000/Sequence_1/black_64", out.parent)
    ) == 48
    assert [path.name for path in (out / "val_000").iterdir()] == ["mine.txt"], "what is there stays"
    said = capsys.readouterr()
    assert "train_000/Sequence_1: 48 frames" in said.out and "val_000" in said.out + said.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0 0 1 0 0 0 0 1\n", "line 1: should hold 16 numbers"),
        ("\n\nfoo " + "0 " * 15, "line 3: should hold 16 numbers"),
        ("\n", "the trajectory is empty"),
    ],
)
def test_a_trajectory_of_replica_that_is_none(tmp_path, text, message):
    (tmp_path / "traj_w_c.txt").write_text(text)
    with pytest.raises(UserError, match=f"traj_w_c.txt.*{message}"):
        read_trajectory(tmp_path / "traj_w_c.txt")
