"""Videos, geometry and their command, on tiny rooms. What is shown comes from random weights, or from the truth."""

import functools
import itertools
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.database import open_scene
from dataset.render_dataset import Needs
from dataset.views import Cameras
from network.geometry import pixel_grid, pixel_rays
from network.rendering import CLASSES, RenderedView
from network.view_renderer import ViewRenderer
from train.pictures import Picture
from train.run import build_network
from utils.colors import distinct_colors
from utils.errors import UserError
from utils.panels import HATCH, mark_unseen
from viewing import commands, fusion, paths, shades, video
from viewing.flicker import jumps
from viewing.fusion import PosedPictures, drop_disputed, extract_mesh, merge_points
from viewing.geometry import compare, measured, trusted_depth
from viewing.ply import Geometry, write_ply
from viewing.references import FADE, References, mixes
from viewing.session import Classes, Session, blend

CPU = torch.device("cpu")
ROOM = "scannet/test_000/black_64"


@pytest.fixture
def scene(rooms):
    return open_scene(ROOM, rooms)


def session_of(config, scene, **changes):
    network = build_network(config(**changes), CPU)
    classes = Classes((*scene.labels.names, "invalid"), scene.labels.colors)
    return Session(ViewRenderer(network), scene, Needs(depth=True), 3, classes)


def test_paths_stay_inside_the_capture_and_are_smooth(scene):
    centres = scene.camera_to_world[:, :3, 3]
    for kind in paths.KINDS:
        path = paths.make_path(kind, scene, 60).camera_to_world
        rotations = path[:, :3, :3]
        np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (60, 1, 1)), atol=1e-6)
        assert np.linalg.det(rotations).min() > 0.99
        assert (path[:, :3, 3] > centres.min(0) - 0.5).all() and (path[:, :3, 3] < centres.max(0) + 0.5).all()
        steps = np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1)
        assert steps.max() < 0.5, kind
        upright = rotations[:, :, 1] @ paths.up_of(scene.camera_to_world)
        assert (upright < 0).all()
        cameras = paths.path_cameras(paths.CameraPath(path), scene, None)
        seen = [References(scene, 3).overlap(cameras.one(i)).max().item() for i in range(0, 60, 5)]
        assert np.mean(seen) > 0.5, f"{kind} looks at what the capture shows"


def test_a_path_through_the_test_frames_meets_them(scene):
    rows = [scene.frame_ids.index(frame) for frame in scene.split().tests]
    path = paths.smooth_path(scene.camera_to_world[rows], 1000)
    for pose in scene.camera_to_world[rows]:
        assert np.abs(path - pose).max((1, 2)).min() < 0.02


def camera(**changes):
    return {"camera_to_world": np.diag([1.0, -1, -1, 1]).ravel().tolist(), "fov": 60, **changes}


def test_a_path_of_nerfstudio(tmp_path, scene):
    file = tmp_path / "path.json"
    moved = np.diag([1.0, -1, -1, 1])
    moved[:3, 3] = 1, 2, 3
    file.write_text(json.dumps({"camera_path": [camera(), camera(camera_to_world=moved.ravel().tolist())]}))
    path = paths.make_path(str(file), scene, 99)
    assert len(path) == 2
    np.testing.assert_allclose(path.camera_to_world[0], np.eye(4), atol=1e-9)
    cameras = paths.path_cameras(path, scene, None)
    np.testing.assert_allclose(cameras.centres()[1], [1, 2, 3], atol=1e-5)
    assert 2 * np.degrees(np.arctan(scene.size[0] / 2 / float(cameras.Ks[0, 1, 1]))) == pytest.approx(60, abs=1e-3)


def test_a_transforms_json_is_a_path_with_its_field_of_view(tmp_path):
    pose = np.diag([1.0, -1, -1, 1])
    pose[:3, 3] = 4, 5, 6
    content = {"fl_x": 50, "fl_y": 40, "cx": 32, "cy": 24, "w": 64, "h": 48, "applied_scale": 2.0}
    content["frames"] = [{"file_path": "nowhere.jpg", "transform_matrix": pose.tolist()}]
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps(content))
    path = paths.read_path(file)
    np.testing.assert_allclose(path.camera_to_world[0], [[1, 0, 0, 2], [0, 1, 0, 2.5], [0, 0, 1, 3], [0, 0, 0, 1]])
    assert path.field_of_view[0] == pytest.approx(2 * np.arctan(24 / 40))
    file.write_text(json.dumps({**content, "camera_model": "OPENCV_FISHEYE"}))
    with pytest.raises(UserError, match="fisheye"):
        paths.read_path(file)


def test_exported_cameras_are_moved_back_to_the_capture_s_frame(tmp_path, capsys):
    """nerfstudio's frame: positions are turned, shifted and scaled."""
    truth = np.eye(4)
    truth[:3, 3] = 1, 2, 3
    moved = np.array([[0, -1, 0, 0.5], [1, 0, 0, -1], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    exported = moved @ truth @ np.diag([1.0, -1, -1, 1])
    exported[:3, 3] *= 0.25
    file = tmp_path / "transforms_train.json"
    file.write_text(json.dumps([{"file_path": "a.jpg", "transform": exported[:3].tolist()}]))
    paths.read_path(file)
    assert "taken to be in the capture's own frame" in capsys.readouterr().err
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps({"transform": moved[:3].tolist(), "scale": 0.25}))
    path = paths.read_path(file)
    np.testing.assert_allclose(path.camera_to_world[0], truth, atol=1e-9)
    assert path.field_of_view is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no list `camera_path`"),
        ('{"camera_path": []}', "no list `camera_path`"),
        (json.dumps({"camera_path": [{"fov": 50}]}), "camera 0 should have 16 numbers"),
        (json.dumps({"camera_path": [camera(), camera(camera_to_world=[1.0] * 16)]}), "camera 1 is not a rotation"),
        (json.dumps({"camera_path": [camera(fov=200)]}), "fov of camera 0 is 200"),
        (json.dumps({"camera_path": ["x"]}), "camera 0 should have"),
        (json.dumps({"camera_path": [camera(fov=0.87)]}), "in radians, multiply it by 57.3"),
        (json.dumps({"camera_path": [camera()], "camera_type": "equirectangular"}), "camera_type equirectangular"),
        (json.dumps({"camera_path": [camera(camera_type="fisheye")]}), "camera_type fisheye"),
        (json.dumps({"camera_path": [camera(camera_to_world=[0.0] * 16)]}), "camera 0 has no pose"),
        (
            json.dumps({"camera_path": [camera(camera_to_world=np.diag([-1.0, 1, 1, 1]).ravel().tolist())]}),
            "camera 0 is a mirror image",
        ),
        (json.dumps({"frames": [{"file_path": "a"}]}), "frame 0 has no transform_matrix"),
        (json.dumps({"frames": [{"transform_matrix": np.eye(4).tolist()}]}), "w and h should be given"),
        (json.dumps([{"file_path": "a"}]), "camera 0 has no transform"),
    ],
)
def test_a_broken_path_is_named(tmp_path, content, message):
    file = tmp_path / "path.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        paths.read_path(file)


def test_references_look_where_the_camera_does(scene):
    references = References(scene, 3)
    assert len(references.pool) >= 3
    camera = scene.cameras([scene.frame_ids[7]])
    chosen = references.choose(camera)
    overlap = dict(zip(references.pool, references.overlap(camera).tolist(), strict=True))
    assert min(overlap[frame] for frame in chosen) > 0.2
    assert references.choose(camera, current=chosen) == chosen
    # the same ones, turned about on the spot, show nothing of it
    turned = references.cameras.poses.clone()
    rows = [references.pool.index(frame) for frame in chosen]
    turned[rows] = torch.diag(torch.tensor([-1.0, 1, -1])) @ turned[rows]
    references.cameras = replace(references.cameras, poses=turned)
    assert not set(references.choose(camera)) & set(chosen)


def test_the_choice_of_references_passes_smoothly(config, scene):
    """A picture changes no more from frame to frame than a fraction of what an exchange at once would change it."""
    session = session_of(config, scene)
    references = References(scene, 3)
    path = paths.CameraPath(paths.smooth_path(scene.camera_to_world[8:30], 6 * FADE + 1))
    cameras = paths.path_cameras(path, scene, 16)
    mixed = mixes(references, cameras)
    assert len({frames for mix in mixed for _, frames in mix}) > 1
    for mix in mixed:
        assert sum(weight for weight, _ in mix) == pytest.approx(1)
    abrupt = [[(1.0, max(mix)[1])] for mix in mixed]

    @functools.cache
    def picture(mix):
        return session.render(cameras.one(len(cameras) // 2), mix)

    def largest_jump(choices):
        """Of the picture of one and the same camera, when only the references change, where it is not guessed."""
        views = itertools.pairwise([picture(tuple(mix)) for mix in choices])
        return max((b.color - a.color).abs()[a.seen & b.seen].mean().item() for a, b in views)

    assert largest_jump(mixed) < 0.3 * largest_jump(abrupt)


def test_what_the_camera_s_movement_explains_is_no_jump_and_what_it_does_not_is():
    """A slanted, painted wall seen from the side by cameras that pass by."""
    count, size = 4, (48, 64)
    poses = torch.eye(4)[:3].repeat(count, 1, 1)
    poses[:, 0, 3] = -0.05 * torch.arange(count)
    K = torch.tensor([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]).repeat(count, 1, 1)
    cameras = Cameras(poses, K, torch.tensor([[0.5, 9.0]]).repeat(count, 1), size)
    grid = pixel_grid(*size)
    centres, directions = pixel_rays(grid.expand(count, -1, -1), cameras.poses, cameras.Ks)
    normal = torch.tensor([0.2, 0.1, 1.0])
    depth = (3 - centres @ normal)[:, None] / (directions @ normal)
    points = centres[:, None] + depth[..., None] * directions
    color = 0.5 + 0.2 * torch.sin(2 * points)
    ones = torch.ones(len(grid))
    views = [RenderedView(c, {}, d, ones, ones > 0) for c, d in zip(color, depth, strict=True)]
    smooth = jumps(views, cameras)
    assert smooth.shape == (3,) and smooth.max() < 0.1
    views[2] = replace(views[2], color=views[2].color + 10 / 255)
    np.testing.assert_allclose(jumps(views, cameras) - smooth, [0, 10, 10], atol=0.2)
    views[2] = replace(views[2], seen=ones < 0)
    assert np.isnan(jumps(views, cameras)).tolist() == [False, True, True], "what is guessed is not compared"


def test_views_are_blended_by_probability_and_what_is_guessed_does_not_count():
    def view(color, logits, seen):
        ones = torch.ones(1)
        return RenderedView(
            torch.full((1, 3), color), {CLASSES: torch.tensor([logits])}, ones, ones, torch.tensor([seen])
        )

    def mix(first_seen, second_seen):
        first, second = view(0.0, [0.0, 0.0], first_seen), view(1.0, [100.0, 0.0], second_seen)
        return blend([(0.25, first), (0.75, second)])

    for seen in (True, False):
        mixed = mix(seen, seen)
        torch.testing.assert_close(mixed.color, torch.full((1, 3), 0.75))
        torch.testing.assert_close(mixed.logits.exp(), torch.tensor([[0.875, 0.125]]))
        assert mixed.seen.item() == seen
    mixed = mix(True, False)
    assert mixed.color.tolist() == [[0, 0, 0]] and mixed.seen.item()


def truth(scene, frames) -> PosedPictures:
    """Return what a perfect network would have rendered."""
    views = scene.views(frames, depth=True, labels=True).to(CPU)
    classes = torch.nn.functional.one_hot(views.labels, 21)[..., :20].byte() * 255
    color = (views.images.permute(0, 2, 3, 1) * 255).byte()
    return PosedPictures(views.cameras, views.depth[:, 0].numpy(), color.numpy(), classes.numpy())


@pytest.mark.parametrize("fuse", [merge_points, extract_mesh])
def test_geometry_from_the_truth_is_the_truth(config, scene, fuse):
    frames = scene.frame_ids[:10]
    views = truth(scene, frames)
    drop_disputed(views, CPU)
    geometry = fuse(views, voxel=0.04, device=CPU)
    score = compare(geometry, *measured(scene, frames, 0.04, CPU), session_of(config, scene))
    assert score["accuracy_cm"] < 2.5 and score["f_score"] > 0.9 and score["miou"] > 0.7, score
    positions, classes = measured(scene, frames, 0.04, CPU)
    shifted = compare(geometry, positions + 0.2, classes, session_of(config, scene))
    assert shifted["accuracy_cm"] > 5 and shifted["f_score"] < 0.8


def test_a_mesh_is_whole_across_blocks_and_faces_the_cameras(scene, monkeypatch):
    views = truth(scene, scene.frame_ids[:8])
    monkeypatch.setattr(fusion, "BLOCK", 64)
    large = extract_mesh(views, 0.06, CPU)
    monkeypatch.setattr(fusion, "BLOCK", 16)
    small = extract_mesh(views, 0.06, CPU)
    assert len(large.faces) == len(small.faces)
    assert abs(len(large) - len(small)) <= 3, "a seam has its points twice"
    corners = large.positions[large.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    to_cameras = views.cameras.centres().mean(0).numpy() - corners.mean(1)
    assert ((normals * to_cameras).sum(1) > 0).mean() > 0.9


def test_what_one_view_alone_claims_is_dropped(scene):
    views = truth(scene, scene.frame_ids[:6])
    honest = (views.depth > 0).sum(axis=(1, 2))
    views.depth[2] *= 0.5
    drop_disputed(views, CPU)
    kept = (views.depth > 0).sum(axis=(1, 2)) / honest
    assert kept[2] < 0.3 and np.delete(kept, 2).min() > 0.6


def test_only_depth_that_is_sure_and_seen_is_trusted():
    view = RenderedView(
        torch.zeros(4, 3), {}, torch.tensor([2.0, 2.0, 2.0, 0.0]), torch.tensor([0.1, 0.5, 0.1, 0.1]),
        torch.tensor([True, True, False, True]),
    )  # fmt: skip
    assert trusted_depth(view).tolist() == [2, 0, 0, 0]


def test_a_ply_file_says_what_it_holds(tmp_path):
    classes = Classes(("wall", "shower curtain", "invalid"), distinct_colors(3))
    geometry = Geometry(
        np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5]]), np.array([[1, 2, 3]] * 3, np.uint8), np.array([0, 1, 1]),
        np.array([0.5, 0.25, 1.0]), np.array([[0, 1, 2]]),
    )  # fmt: skip
    write_ply(tmp_path / "mesh.ply", geometry, classes, {"scene": "a"})
    header, body = (tmp_path / "mesh.ply").read_bytes().split(b"end_header\n")
    assert b"comment class 1 shower curtain " in header and b"element vertex 3\n" in header
    kinds = [("p", "<f4", 3), ("c", "u1", 3), ("class", "u1"), ("probability", "<f4")]
    vertices = np.frombuffer(body[: 3 * 20], kinds)
    np.testing.assert_allclose(vertices["p"], geometry.positions)
    assert vertices["class"].tolist() == [0, 1, 1] and vertices["probability"].tolist() == [0.5, 0.25, 1]
    assert np.frombuffer(body[60:], [("n", "u1"), ("i", "<i4", 3)]).tolist()[0][1].tolist() == [0, 1, 2]
    beside = json.loads((tmp_path / "mesh.json").read_text())
    assert beside["classes"][1]["name"] == "shower curtain" and beside["scene"] == "a"


def looked_at(seen=True):
    probabilities = np.zeros((2, 2, 3), np.float32)
    probabilities[..., 0] = 1
    probabilities[0, 1] = [0.2, 0.5, 0.3]
    color = np.full((2, 2, 3), 100, np.uint8)
    return Picture(color, probabilities.argmax(-1), np.full((2, 2), 2.0), np.full((2, 2), seen), probabilities)


def test_ways_to_look():
    classes = Classes(("wall", "floor", "invalid"), np.array([[255, 0, 0], [0, 255, 0], [9, 9, 9]], np.uint8))
    view = looked_at()
    assert shades.paint(view, "classes", classes)[0].tolist() == [[255, 0, 0], [0, 255, 0]]
    hidden = shades.paint(view, "classes", classes, hidden=frozenset([1]))
    assert hidden[0, 1].tolist() == [shades.GREY] * 3 and hidden[0, 0].tolist() == [255, 0, 0]
    assert shades.paint(view, "overlay", classes, opacity=0.5)[0, 0].tolist() == [178, 50, 50]
    assert shades.paint(view, "overlay", classes, 0.5, frozenset([0]))[0, 0].tolist() == [100, 100, 100]
    doubt = shades.entropy(view)
    assert doubt[0, 0] < 0.01 and 0.9 < doubt[0, 1] < 1
    for mode in shades.modes(classes):
        view.seen[1, 1] = True
        whole = shades.paint(view, mode, classes)
        view.seen[1, 1] = False
        picture = shades.paint(view, mode, classes)
        assert picture[1, 1].tolist() == mark_unseen(picture, np.zeros((2, 2), bool))[1, 1].tolist()
        assert np.array_equal(picture[0], whole[0]) and whole.shape == (2, 2, 3)
    assert "**floor** 50%" in shades.describe(view, 0.9, 0.1, classes) and "2.00 m" in shades.describe(view, 0, 0, None)
    assert "no reference" in shades.describe(looked_at(seen=False), 0, 0, classes)


@pytest.fixture
def command(rooms, tmp_path, config, monkeypatch):
    """Runs run_rendering.py's `main` on a model of random weights."""
    cfg = config()
    torch.save({"network_state_dict": build_network(cfg, CPU).state_dict()}, tmp_path / "model.pth")

    def run(mode, *arguments, scene=ROOM, overrides=()):
        common = [
            f"data_root={rooms}", "cache=false", f"output_root={tmp_path}", "device=cpu", "depth_sample_num=8",
            "fine_depth_sample_num=8", "train_dataset_cfg.min_wn=3", "train_dataset_cfg.max_wn=4", "ray_mask_point_num=2",
            *overrides,
        ]  # fmt: skip
        cfg = ["--cfg", "configs/cra/test_cra_synthetic.yaml", "--model-path", str(tmp_path / "model.pth")]
        monkeypatch.setattr(sys, "argv", ["run_rendering.py", mode, *cfg, "--scene", str(scene), *arguments, *common])
        commands.rendering()
        return tmp_path / "test_cra_synthetic" / "renderings" / ROOM.replace("/", "_")

    return run


def test_a_video_and_going_on_with_it(command, monkeypatch, capsys):
    options = ["--seconds", "1", "--fps", "3", "--width", "32"]
    folder = command("video", *options)
    data = (folder / "interp.mp4").read_bytes()
    assert data[4:8] == b"ftyp"
    frames = sorted((folder / "interp" / "color").glob("*.png"))
    assert len(frames) == 3
    frames[1].unlink()
    rendered, render = [], Session.render
    monkeypatch.setattr(Session, "render", lambda self, camera, mix: rendered.append(1) or render(self, camera, mix))
    command("video", *options)
    assert len(rendered) == 1, "only the missing frame is rendered again"
    command("video", *options, overrides=["renderer=plain"])
    assert len(rendered) == 4, "other settings start anew"
    command("video", *options, "--path", "orbit", "--out", str(folder / "orbit.webp"))
    assert (folder / "orbit.webp").read_bytes()[:4] == b"RIFF"


def test_a_network_without_classes(command, tmp_path, config, monkeypatch):
    """Colour and depth alone: in films, on the page, in geometry."""
    changes = {"render_label": False, "loss": ["render"]}
    torch.save({"network_state_dict": build_network(config(**changes), CPU).state_dict()}, tmp_path / "model.pth")
    overrides = ["render_label=false", "loss=[render]"]
    folder = command("video", "--seconds", "1", "--fps", "2", "--width", "32", overrides=overrides)
    assert sorted(path.name for path in (folder / "interp").iterdir()) == ["color", "depth", "settings.json"]
    assert shades.modes(None) == ["colour", "depth"]
    folder = command("mesh", "--views", "3", "--voxel", "0.05", "--score", overrides=overrides)
    header = (folder / "mesh.ply").read_bytes().split(b"end_header")[0]
    assert b"property uchar red" in header and b"class" not in header
    assert "miou" not in json.loads((folder / "mesh.json").read_text())["score"]


def test_a_path_away_from_everything(command, tmp_path, capsys):
    far = np.diag([1.0, -1, -1, 1])
    far[:3, 3] = 500, 0, 0
    file = tmp_path / "far.json"
    file.write_text(json.dumps({"camera_path": [camera(camera_to_world=far.ravel().tolist())]}))
    with pytest.raises(UserError, match="no reference shows anything"):
        command("video", "--path", str(file))


def test_a_path_that_leaves_the_capture_is_rendered_and_told(command, scene, tmp_path, capsys):
    pose = scene.camera_to_world[2] @ np.diag([1.0, -1, -1, 1])
    away = pose.copy()
    away[:3, :3] = away[:3, :3] @ np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]])
    away[:3, 3] += 30
    file = tmp_path / "out.json"
    entries = [camera(camera_to_world=p.ravel().tolist()) for p in (pose, away)]
    file.write_text(json.dumps({"camera_path": entries}))
    folder = command("video", "--path", str(file), "--width", "32")
    assert "100% of its frame 1" in capsys.readouterr().err
    shown = [video.read_color(folder / "out" / "color" / f"0000{number}.png") for number in range(2)]
    assert set(np.unique(shown[1])) == set(HATCH) and np.isin(shown[0], HATCH).all(-1).mean() < 0.5
    assert not video.read_map(folder / "out" / "depth" / "00001.png").any()


def test_no_ffmpeg(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="no ffmpeg"):
        command("video", "--seconds", "1", "--fps", "1", "--width", "32")


def as_the_room_is(session, camera, mix):
    """Return what a perfect network renders of a frame of the capture."""
    scene = session.scene
    poses = scene.cameras(scene.frame_ids).poses
    frame = scene.frame_ids[int((poses - camera.poses).abs().amax((1, 2)).argmin())]
    views = scene.views([frame], depth=True, labels=True).to(CPU)
    logits = torch.nn.functional.one_hot(views.labels.flatten(), 21).float() * 20
    depth = views.depth.flatten()
    return RenderedView(views.images[0].flatten(1).T, {CLASSES: logits}, depth, depth * 0.01, depth > 0)


@pytest.mark.parametrize("mode", ["pointcloud", "mesh"])
def test_geometry_by_command(command, monkeypatch, capsys, mode):
    monkeypatch.setattr(Session, "render", as_the_room_is)
    folder = command(mode, "--views", "10", "--voxel", "0.05", "--depth", "rendered", "--score")
    score = json.loads((folder / f"{mode}.json").read_text())["score"]
    assert score["f_score"] > 0.8 and score["miou"] > 0.6 and "F-score at 5 cm" in capsys.readouterr().out
    assert (folder / f"{mode}.ply").read_bytes().startswith(b"ply\n")
    assert not list(folder.glob(".views.*")), "nothing is left behind"
    picture = video.read_color(folder / f"{mode}.png")
    assert picture.shape[1] == 1280 and 0.05 < (picture < 250).any(-1).mean() < 1


def test_depth_of_the_frames_themselves(command, config, scene, tmp_path, capsys):
    """With a sensor the geometry is right even if the network knows nothing."""
    folder = command("mesh", "--views", "6", "--voxel", "0.05", "--score")
    assert json.loads((folder / "mesh.json").read_text())["score"]["f_score"] > 0.8
    session = session_of(config, scene, init_net_type="learned_depth")
    session.needs = Needs()
    depth = session.frame_depth("6", ("0", "11", "16"))
    assert depth.shape == scene.size and (depth > 0).all()


def test_bad_input_of_geometry(command):
    with pytest.raises(UserError, match="written as .ply"):
        command("mesh", "--out", "a.obj")
    with pytest.raises(UserError, match="--views should be at least 2"):
        command("mesh", "--views", "1")
    with pytest.raises(UserError, match="--path is for video and labels, and has no effect in mesh"):
        command("mesh", "--path", "orbit")
    with pytest.raises(UserError, match="there is no such camera path"):
        command("video", "--path", "nowhere.json")
    with pytest.raises(UserError, match="--voxel 1e-06: should be 0.002 to 1"):
        command("mesh", "--voxel", "1e-6")
    with pytest.raises(UserError, match="100,000 are the most"):
        command("video", "--seconds", "1e6")
    with pytest.raises(UserError, match="a film ends in one of"):
        command("video", "--out", "a.avi")


def test_a_model_of_other_classes(command):
    with pytest.raises(UserError, match="classes"):
        command("mesh", overrides=["num_classes=7"])


def test_a_folder_of_posed_images(command, rooms, tmp_path):
    """Nothing but images and their poses: no depth, no labels, no place below data_root."""
    scene = open_scene(ROOM, rooms)
    folder = tmp_path / "my capture"
    frames = []
    for frame in scene.frame_ids[:12]:
        pose = scene.camera_to_world[scene.frame_ids.index(frame)] @ np.diag([1.0, -1, -1, 1])
        target = folder / "images" / f"{frame}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(video.imageio.imwrite("<bytes>", scene.views([frame]).images[0].permute(1, 2, 0).numpy(),
                                                 extension=".png"))  # fmt: skip
        frames.append({"file_path": f"images/{frame}.png", "transform_matrix": pose.tolist()})
    K = scene.cameras(scene.frame_ids[:1]).Ks[0]
    height, width = scene.size
    capture = {
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": width / 2,
        "cy": height / 2,
        "w": width,
        "h": height,
    }
    (folder / "transforms.json").write_text(json.dumps({**capture, "frames": frames}))
    with pytest.raises(UserError, match="has no depth"):
        command("video", scene=folder)
    cfg = ["init_net_type=learned_depth"]
    torch.save({"network_state_dict": build_network(_learned(rooms), CPU).state_dict()}, tmp_path / "model.pth")
    out = tmp_path / "flight.mp4"
    command("video", "--seconds", "1", "--fps", "2", "--out", str(out), scene=f"{folder}/black_64", overrides=cfg)
    assert out.stat().st_size > 500


def _learned(rooms):
    from train.settings import SCHEMA
    from utils.config import check_config

    samples = {"depth_sample_num": 8, "fine_depth_sample_num": 8}
    return check_config({"init_net_type": "learned_depth", **samples}, SCHEMA)
