"""The check of data: a good scene passes, and each way to break it is recognised and named."""

import base64
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from programs import run_program

from dataset.check.__main__ import check_scene, find_scenes
from dataset.check.consistency import check_consistency
from dataset.check.inventory import spread, take_inventory
from dataset.check.order import find_order
from dataset.check.page import verdict
from dataset.check.warping import choose_pairs, warp
from dataset.database import open_scene
from dataset.registration import DepthCamera
from dataset.synthetic.generate import Size, generate
from dataset.synthetic.raycast import Light
from utils.errors import UserError
from utils.images import write_image

REPOSITORY = Path(__file__).parent.parent
NAME = "scannet/train_000/black_96"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("check")
    generate(root, "scannet", Size({"train": 1}, 30, (96, 128), Light(0.6, 4, 2), 1))
    return root


@pytest.fixture
def data(good, tmp_path):
    shutil.copytree(good / "scannet", tmp_path / "scannet")
    return tmp_path


def poses(data, change):
    for path in (data / "scannet" / "train_000" / "pose").iterdir():
        matrix = np.loadtxt(path)
        if np.isfinite(matrix).all():
            np.savetxt(path, change(matrix))


def intrinsics(data, change):
    for sensor in ("color", "depth"):
        path = data / "scannet" / "train_000" / "intrinsic" / f"intrinsic_{sensor}.txt"
        matrix = np.loadtxt(path)
        matrix[:3, :3] = change(matrix[:3, :3])
        np.savetxt(path, matrix)


def depth(data, factor):
    for path in (data / "scannet" / "train_000" / "depth").iterdir():
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write_image(path, (values * factor).clip(0, 65535).astype(np.uint16))


def test_a_good_scene_passes(good):
    report = check_scene(NAME, good, 0)
    assert verdict(report) == [] and report.consistency.agreement > 0.7
    assert report.consistency.depth_disagreement < 0.01 and report.consistency.color_disagreement < 0.03
    inventory = report.inventory
    assert inventory.frames == 29 and inventory.skipped == {"tracking lost": 1} and inventory.gaps == 0
    assert (
        inventory.depth_valid == 1 and inventory.sizes["color"] == {(128, 96): 29} and 0.5 < inventory.path_length < 4
    )
    assert sum(inventory.classes.values()) == 29 * 96 * 128 and inventory.classes["wall"] > inventory.classes["door"]


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda data: poses(data, lambda m: m @ np.diag([1.0, -1, -1, 1])), "OpenGL axes"),
        (lambda data: poses(data, np.linalg.inv), "world-to-camera instead of camera-to-world"),
        (lambda data: intrinsics(data, lambda K: K[[1, 0, 2]][:, [1, 0, 2]]), "width and height are swapped"),
        (lambda data: depth(data, 0.1), "centimetres"),
        (lambda data: depth(data, 5), "1/5000 m"),
    ],
    ids=["axes", "inverse", "swapped", "centimetres", "tum"],
)
def test_what_is_wrong_is_named(damage, cause, data):
    damage(data)
    report = check_scene(NAME, data, 4)
    assert report.consistency.geometry_is_wrong
    (line,) = verdict(report)
    assert cause in line


def test_depth_that_is_not_registered_to_colour_is_told_by_its_edges(data):
    """As of a depth camera with 1.12 times the focal length whose principal point is 4 pixels elsewhere."""
    K = np.loadtxt(data / "scannet" / "train_000" / "intrinsic" / "intrinsic_color.txt")
    other = K[:3, :3].copy()
    other[:2, :2] *= 1.12
    other[0, 2] += 4
    for path in (data / "scannet" / "train_000" / "depth").iterdir():
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write_image(path, DepthCamera(K[:3, :3], values.shape, np.eye(4)).register(values, other, values.shape, path))
    report = check_scene(NAME, data, 4)
    (line,) = verdict(report)
    found = re.search(r"fits ([\d.]+) times as large and moved by ([-+\d.]+)% .* and ([-+\d.]+)% down", line)
    assert "depth is not registered to colour" in line
    scale, right, down = map(float, found.groups())
    assert scale == pytest.approx(1 / 1.12, abs=0.02) and right == pytest.approx(-4 / 1.12 / 1.28, abs=1.2)
    assert down == pytest.approx(0, abs=1.2)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A room whose frames are 6 degrees and 10 cm apart."""
    root = tmp_path_factory.mktemp("walk")
    generate(root, "scannet", Size({"train": 1}, 60, (96, 128), Light(0.6, 4, 2), 1))
    for path in (root / "scannet" / "train_000").glob("*/*"):
        if path.stem.isdigit() and int(path.stem) % 2:
            path.unlink()
    return root


@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize(
    ("kind", "suffix", "told"), [("pose", ".txt", "pose"), ("color", ".jpg", "colour"), ("depth", ".png", "depth")]
)
def test_what_is_of_the_neighbouring_frame_is_named(walk, tmp_path, kind, suffix, told, way):
    shutil.copytree(walk / "scannet", tmp_path / "scannet")
    folder = tmp_path / "scannet" / "train_000" / kind
    numbers = sorted(int(path.stem) for path in folder.iterdir())
    contents = [(folder / f"{number}{suffix}").read_bytes() for number in numbers]
    for place, number in enumerate(numbers):
        (folder / f"{number}{suffix}").write_bytes(contents[min(max(place + way, 0), len(numbers) - 1)])
    assert find_order(open_scene(NAME, walk)) == (None, None)
    lines = "; ".join(verdict(check_scene(NAME, tmp_path, 4)))
    assert f"each frame has the {told} of the frame {'after' if way == 1 else 'before'} it" in lines


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (
            lambda names: sorted(names),
            "poses are in the order of the frames' names as text (0, 1, 10, 11, …, 2), frames by number",
        ),
        (lambda names: [sorted(names).index(name) for name in names], "frames are in the order of their names as text"),
        (lambda names: names[::-1], "poses are in reverse order"),
    ],
)
def test_poses_in_another_order_than_frames_are_named(walk, tmp_path, order, told):
    shutil.copytree(walk / "scannet", tmp_path / "scannet")
    folder = tmp_path / "scannet" / "train_000" / "pose"
    names = sorted((path.stem for path in folder.iterdir()), key=int)
    contents = [(folder / f"{name}.txt").read_bytes() for name in names]
    for name, other in zip(names, order(names), strict=True):
        place = other if isinstance(other, int) else names.index(other)
        (folder / f"{name}.txt").write_bytes(contents[place])
    lines = "; ".join(verdict(check_scene(NAME, tmp_path, 4)))
    assert f"likely cause: {told}" in lines


@pytest.mark.parametrize("every", [2, 5])
def test_red_and_blue_that_are_swapped_in_some_frames_are_said(data, every):
    for path in (data / "scannet" / "train_000" / "color").iterdir():
        if int(path.stem) % every == 0:
            write_image(path, cv2.imread(str(path)))  # which has them the other way round
    (line,) = verdict(check_scene(NAME, data, 4))
    assert "red and blue are swapped in some frames, and not in others" in line


@pytest.mark.parametrize(("bits", "unit"), [(2, "1/4000 m"), (3, "1/8000 m"), (4, "1/16000 m")])
def test_depth_whose_bits_are_shifted_is_named(data, bits, unit):
    depth(data, 2**bits)
    (line,) = verdict(check_scene(NAME, data, 4))
    assert f"not in millimetres but in {unit}" in line and f"shifted by {bits} bits" in line


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_intrinsics_of_another_size_are_refused(factor, data):
    intrinsics(data, lambda K: np.diag([factor, factor, 1]) @ K)
    assert "are the intrinsics of another image size?" in check_scene(NAME, data, 4).error


def test_shuffled_poses_are_wrong_without_a_cause(data):
    rng = np.random.default_rng(0)
    paths = sorted((data / "scannet" / "train_000" / "pose").iterdir())
    contents = [path.read_text() for path in paths]
    for path, number in zip(paths, rng.permutation(len(paths)), strict=True):
        path.write_text(contents[number])
    consistency = check_consistency(choose_pairs(open_scene(NAME, data), 12))
    assert consistency.geometry_is_wrong and consistency.cause is None


def test_a_warp_lands_where_the_generator_says(good):
    pair = choose_pairs(open_scene(NAME, good), 3)[1]
    moved = warp(pair)
    truth = pair.depths[1][moved.rows, moved.columns]
    assert len(moved.source) > 2000 and np.median(np.abs(truth - moved.depth)) < 0.02


def test_unreadable_files_unknown_ids_holes_and_gaps_are_counted(data):
    folder = data / "scannet" / "train_000"
    (folder / "color" / "4.jpg").write_bytes((folder / "color" / "4.jpg").read_bytes()[:500])
    labels = cv2.imread(str(folder / "label-filt" / "6.png"), cv2.IMREAD_UNCHANGED)
    labels[:2, :5] = 4321
    write_image(folder / "label-filt" / "6.png", labels)
    values = cv2.imread(str(folder / "depth" / "7.png"), cv2.IMREAD_UNCHANGED)
    values[:] = 0
    write_image(folder / "depth" / "7.png", values)
    for number in (10, 11, 20):
        (folder / "color" / f"{number}.jpg").unlink()
    inventory = take_inventory(open_scene(NAME, data), 0)
    assert len(inventory.unreadable) == 1 and "4.jpg" in inventory.unreadable[0][0]
    assert inventory.unknown_ids == {4321: 10} and inventory.gaps == 2
    assert inventory.depth_valid == pytest.approx(1 - 1 / inventory.frames)


def test_spread():
    assert (
        spread(list("abcdef"), 3) == ["a", "c", "f"]
        and spread(list("ab"), 5) == ["a", "b"]
        and spread(list("abc"), 0) == list("abc")
    )


def test_folders_and_names(good, replica_rooms):
    assert [name for name, _ in find_scenes(str(good / "scannet"), Path("data"))] == ["scannet/train_000/black_240"]
    assert find_scenes(str(good / "scannet" / "train_000"), Path("x")) == [("scannet/train_000/black_240", good)]
    assert len(find_scenes(str(replica_rooms / "Replica"), Path("x"))) == 4
    with pytest.raises(UserError, match="holds no scenes"):
        find_scenes(str(good.parent), Path("data"))


def test_the_command_and_its_page(good, data, tmp_path):
    depth(data, 0.1)
    page = tmp_path / "check.html"
    done = run_program("-m", "dataset.check", NAME, "scannet/nowhere/black_96", "--data-root", data, "--html", page)
    assert done.returncode == 1 and "centimetres" in done.stdout and "there is no folder" in done.stdout
    page = page.read_text()
    assert "centimetres" in page and "src='http" not in page and "href" not in page
    pictures = re.findall(r"base64,([^']+)'", page)
    assert len(pictures) == 4 and cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0]), np.uint8), 1).shape[1] > 400
