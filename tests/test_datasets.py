"""Scenes against the generator's truth, and what they say of bad files."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from dataset.database import held_out_scenes, list_scenes, open_scene, training_names
from dataset.labels import SCANNET_CLASSES, replica_labels, scannet_labels
from dataset.render_dataset import Needs, TestSet, TrainingSet, random_pixels
from dataset.scene import SceneName
from dataset.synthetic.generate import lost_frames
from dataset.synthetic.room import furnish
from dataset.view_selection import split_frames, training_references
from dataset.view_selection import test_references as references_for_test
from dataset.views import Cameras, Views
from network.geometry import pixel_grid, pixel_rays, project
from train import run
from utils.errors import UserError
from utils.images import write_image

ROOM = "scannet/train_000/black_64"
DEPTH = Needs(depth=True)


@pytest.fixture
def room(rooms, tmp_path):
    """A copy of one room that a test may break: the data root."""
    root = tmp_path / "data"
    shutil.copytree(rooms / "scannet" / "train_000", root / "scannet" / "train_000")
    shutil.copy(rooms / "scannet" / "scannetv2-labels.combined.tsv", root / "scannet")
    return root


def folder(root):
    return root / "scannet" / "train_000"


def disagreement(scene, first: str, second: str):
    """Lifts the pixels of one frame by their depth into another one; there, how often does the class differ, and the
    median difference of colour and of depth (m)? Only where they land on a surface at about that depth."""
    views = scene.views([first, second], depth=True, labels=True).to("cpu")
    cameras = views.cameras
    height, width = cameras.size
    centres, directions = pixel_rays(pixel_grid(height, width)[None], cameras.poses[:1], cameras.Ks[:1])
    points = centres[0] + directions[0] * views.depth[0].reshape(-1, 1)
    landed = project(points, cameras)
    inside = landed.valid[1] & (landed.depth[1] > 0)
    x, y = landed.pixels[1][inside].round().long().clamp_min(0).unbind(-1)
    x, y = x.clamp_max(width - 1), y.clamp_max(height - 1)
    depth_error = (views.depth[1, 0, y, x] - landed.depth[1][inside]).abs()
    visible = depth_error < 0.1
    assert visible.sum() > 300
    color = (views.images[0].flatten(1).T[inside] - views.images[1][:, y, x].T).abs().mean(-1)
    classes = views.labels[0].flatten()[inside] != views.labels[1, y, x]
    return classes[visible].float().mean().item(), color[visible].median().item(), depth_error.median().item()


@pytest.mark.parametrize("layout", ["scannet", "replica"])
@pytest.mark.parametrize("width", [64, 48])
def test_frames_agree_when_projected_into_each_other(layout, width, rooms, replica_rooms):
    root, name = (
        (rooms, "scannet/train_001") if layout == "scannet" else (replica_rooms, "replica/train_001/Sequence_1")
    )
    scene = open_scene(f"{name}/black_{width}", root)
    classes, color, depth = disagreement(scene, scene.frame_ids[4], scene.frame_ids[8])
    assert classes < 0.06 and color < 0.06 and depth < 0.04


def test_lost_poses_are_left_out_and_counted(rooms):
    scene = open_scene(ROOM, rooms)
    lost = lost_frames(48, seed=0)
    assert lost and scene.frame_ids == [str(i) for i in range(48) if i not in lost]
    assert scene.skipped == {"tracking lost": len(lost)}


def test_frames_sort_as_numbers_and_may_have_gaps(room):
    for number in (3, 4, 20):
        (folder(room) / "color" / f"{number}.jpg").unlink()
    frames = open_scene(ROOM, room).frame_ids
    assert frames == sorted(frames, key=int) and not {"3", "4", "20"} & set(frames) and len(frames) > 40


def test_resizing_keeps_types_holes_and_class_ids(room):
    path = folder(room) / "depth" / "5.png"
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    depth[:20, :30], depth[30:, 50:] = 0, 65535
    write_image(path, depth)
    views = open_scene("scannet/train_000/black_32", room).views(["5"], depth=True, labels=True)
    assert views.images.dtype == torch.uint8 and views.depth.dtype == torch.uint16 and views.labels.dtype == torch.uint8
    assert views.images.shape == (1, 3, 24, 32) and views.depth.shape == (1, 1, 24, 32)
    moved = views.to("cpu")
    assert (moved.depth[..., :9, :14] == 0).all() and (moved.depth[..., 16:, 26:] == 0).all()
    known = moved.depth[0, 0, 11:14, 2:]
    assert (known > 0.3).all() and known.max() < 12  # nearest: nothing between a surface and a hole
    assert moved.images.max() <= 1 and set(views.labels.unique().tolist()) <= set(range(21))


def test_labels_of_another_size_are_resized_to_the_image(room):
    for kind in ("depth", "label-filt"):
        for path in (folder(room) / kind).glob("*.png"):
            big = cv2.resize(
                cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (160, 120), interpolation=cv2.INTER_NEAREST_EXACT
            )
            write_image(path, big)
    scene = open_scene(ROOM, room)
    classes, _, depth = disagreement(scene, scene.frame_ids[4], scene.frame_ids[8])
    assert classes < 0.06 and depth < 0.04


def test_replica_camera_and_classes(replica_rooms):
    scene = open_scene("replica/train_000/Sequence_1/black_64", replica_rooms)
    np.testing.assert_allclose(scene.Ks[0], [[32, 0, 31.5], [0, 32, 23.5], [0, 0, 1]])
    assert scene.depth_range == (0.1, 6.0) and scene.labels.ignore == 51
    assert replica_labels(None).lookup[[3, 98, 0, 1]].tolist() == [0, 50, 51, 51]


def test_replica_folder_may_be_spelled_small(replica_rooms, tmp_path):
    shutil.copytree(replica_rooms / "Replica" / "val_000", tmp_path / "replica" / "val_000")
    assert len(open_scene("replica/val_000/Sequence_1/black_64", tmp_path)) == 48


def test_scannet_label_table_goes_by_nyu40(tmp_path):
    table = tmp_path / "labels.tsv"
    table.write_text("id\traw_category\tnyu40id\n1\twall\t1\n88\tx\t39\n7\ty\t13\n7\ty\t13\n")
    labels = scannet_labels(table)
    assert labels.names == tuple(SCANNET_CLASSES) and labels.ignore == 20
    assert labels.classes(np.array([[1, 88, 7, 0]]), table).tolist() == [[0, 19, 20, 20]]
    with pytest.raises(UserError, match=r"label ids 5, 99 are not in .*labels.tsv"):
        labels.classes(np.array([[5, 99, 1]]), tmp_path / "3.png")


def test_published_split():
    frames = [str(i) for i in range(1000)]
    split = split_frames(frames)
    assert split.references == [str(i) for i in range(0, 700, 5)] and split.tests == [str(i) for i in range(2, 202, 20)]


def test_test_references_are_the_nearest():
    centres = np.array([[0, 0, 5.0], [0, 0, 1], [0, 0, -2], [0, 0, 3]])
    assert references_for_test(centres, np.zeros(3), 3).tolist() == [1, 2, 3]


def test_training_references_come_from_the_nearest_and_rarely_include_the_query():
    centres = np.arange(60.0)[:, None] * [1, 0, 0]
    drawn = [training_references(centres, 30, (8, 9), np.random.default_rng(seed)) for seed in range(400)]
    assert all(len(set(row)) == 8 for row in drawn)
    assert max(abs(index - 30) for row in drawn for index in row) == 6  # of the 12 nearest
    assert min(max(abs(i - 30) for i in row) for row in drawn) == 4  # or of the 8 nearest
    with_itself = sum(30 in row for row in drawn)
    assert 0 < with_itself < 30


def blank_view(height, width, mask=None):
    cameras = Cameras(torch.eye(3, 4)[None], torch.eye(3)[None], torch.ones(1, 2), (height, width))
    return Views(cameras, mask=mask)


def test_random_pixels_are_distinct_and_inside_the_mask():
    rng = np.random.default_rng(0)
    pixels = random_pixels(blank_view(10, 20), 150, rng)[0]
    assert len({tuple(p) for p in pixels.tolist()}) == 150
    assert pixels[:, 0].max() <= 19 and pixels[:, 1].max() <= 9
    assert random_pixels(blank_view(4, 4), 50, rng).shape == (1, 50, 2)
    mask = torch.zeros(1, 1, 10, 20, dtype=torch.uint8)
    mask[..., 3:5, 7:9] = 1
    pixels = random_pixels(blank_view(10, 20, mask), 4, rng)[0]
    assert sorted(map(tuple, pixels.tolist())) == [(7, 3), (7, 4), (8, 3), (8, 4)]


def test_training_samples_depend_on_seed_and_index_alone(config):
    cfg = config()
    first, again, other = TrainingSet(cfg, 1, DEPTH), TrainingSet(cfg, 1, DEPTH), TrainingSet(cfg, 2, DEPTH)
    for index in (0, 5, 17):
        a, b = first[index], again[index]
        assert (a.scene, a.frame) == (b.scene, b.frame) and torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.references.images, b.references.images)
    samples = [(batch.scene, batch.frame) for batch in (first[i] for i in range(8))]
    assert len(set(samples)) > 4 and samples != [(batch.scene, batch.frame) for batch in (other[i] for i in range(8))]
    assert len({batch.scene for batch in (first[i] for i in range(12))}) == 2


def test_the_depth_of_training_queries_is_read_for_a_loss_on_it_or_where_depth_is_read_anyway(config):
    def reads(needs, **changes):
        batch = TrainingSet(config(**changes), 0, needs)[0]
        return batch.references.depth is not None, batch.query.depth is not None

    assert reads(Needs()) == (False, False) and reads(Needs(depth=True)) == (True, True)
    assert reads(Needs(supervision=True)) == (True, True)
    assert reads(Needs(), termination_loss_scale=0.1) == (False, True)


def test_depth_range_is_widened_in_some_samples(config):
    cfg = config(train_dataset_cfg={"train_ray_num": 4, "min_wn": 2, "max_wn": 3, "aug_depth_range_prob": 1.0})
    ranges = [TrainingSet(cfg, 0, DEPTH)[i].references.cameras.depth_range[0].tolist() for i in range(3)]
    assert (
        all(0.095 <= near <= 0.1 and 10 <= far <= 10.5 for near, far in ranges) and len({tuple(r) for r in ranges}) == 3
    )


def test_held_out_scenes_keep_their_test_frames_from_training(config, rooms):
    name = "scannet/val_000/black_64"
    tests = set(TestSet(open_scene(name, rooms), 3, DEPTH).split.tests)
    cfg = config(train_set_list=[name], val_set_list=[name])
    training = TrainingSet(cfg, 0, DEPTH, held_out_scenes([name.replace("64", "32")], rooms))
    assert tests and not tests & set(training.frames[0])
    assert tests <= set(TrainingSet(cfg, 0, DEPTH).frames[0])


def test_validation_frames_are_training_frames_that_nothing_is_trained_on(config, rooms):
    name = (rooms / "train.txt").read_text().split()[0]
    cfg = config(train_set_list=[name], val_set_list=[name], validation_frames=3)
    (validated,) = run.test_sets(cfg, validating=True)
    (tested,) = run.test_sets(cfg)
    training = TrainingSet(cfg, 0, DEPTH, held_out_scenes([name], rooms))
    chosen, own = set(validated.split.tests), tested.scene.split()
    assert len(chosen) == 3 and not chosen & set(own.tests) and tested.split == own
    assert not chosen & set(own.references)  # others suffice: references for tests may be trained on
    assert set(training.frames[0]) == set(tested.scene.training_frames(True)) - chosen


def test_test_set_renders_test_frames_from_the_pool(rooms):
    test = TestSet(open_scene("scannet/test_000/black_64", rooms), 4, DEPTH, reference_labels=True)
    assert len(test) == len(test.split.tests) > 1
    batch = test[1]
    assert batch.frame == test.split.tests[1] and batch.pixels is None and len(batch.references) == 4
    assert batch.references.depth is not None and batch.references.labels is not None and batch.query.labels is not None


def test_lists_of_scenes(tmp_path, config):
    one = tmp_path / "one.txt"
    one.write_text(f"{ROOM}\n")
    assert list_scenes(str(one), "val_set_list") == [ROOM]
    assert list_scenes([], "val_set_list") == []
    assert list_scenes([{"name": "x", "type": "gen", "cfg": {"val_database_name": ROOM}}], "val_set_list") == [ROOM]
    published = list_scenes("configs/scannetv2_val_split.txt", "val_set_list")
    assert published == ["scannet/scene0200_00/black_320", "scannet/scene0226_00/black_320"]
    with pytest.raises(UserError, match="lists no scenes"):
        one.write_text("\n# nothing\n")
        list_scenes(str(one), "val_set_list")
    with pytest.raises(UserError, match="no such file"):
        list_scenes("nowhere.txt", "val_set_list")


def test_published_training_lists(config):
    names = training_names(config(train_set_list=None))
    assert (
        len(names) == 198
        and "scannet/scene0001_00/black_320" not in names
        and "scannet/scene0160_00/black_320" not in names
    )
    single = {"train_database_types": ["scannet_single"], "type2sample_weights": {"scannet_single": 1}}
    assert training_names(config(train_set_list=None, train_dataset_cfg=single)) == ["scannet/scene0376_02/black_320"]
    tests = list_scenes("configs/splits/scannetv2_test_split.txt", "x")
    assert len(tests) == 10 and not set(tests) & set(list_scenes("configs/splits/scannetv2_val_split.txt", "x"))


@pytest.mark.parametrize(
    "name",
    ["scannet", "scannet/x", "scannet/x/320", "scannet//black_320", "scannet/../black_320", "", "scannet/x/black_9"],
)
def test_names_that_are_no_database_names(name):
    with pytest.raises(UserError, match=name or "''"):
        SceneName.parse(name)


def test_rooms_hold_many_classes_of_several_parts():
    parts = [part for seed in range(8) for part in furnish(seed).parts]
    counts = {label: sum(part.label == label for part in parts) for label in SCANNET_CLASSES}
    assert sum(count > 0 for count in counts.values()) >= 18
    assert all(counts[label] >= 6 for label in ("chair", "table", "sofa", "bed", "bookshelf", "toilet"))


# What is wrong with the files, and what is said of it.


def break_pose(root):
    (folder(root) / "pose" / "3.txt").write_text("1 0 0 0\n0 1 0 0\n")


def break_all_poses(root):
    for path in (folder(root) / "pose").iterdir():
        path.write_text(" ".join(["-inf"] * 16))


def truncate_image(root):
    path = folder(root) / "color" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-400])


def truncate_depth(root):
    path = folder(root) / "depth" / "2.png"
    path.write_bytes(path.read_bytes()[:-400])


def write_nonsense(root):
    (folder(root) / "color" / "2.jpg").write_bytes(b"no image")


def remove_scene(root):
    shutil.rmtree(folder(root))


def empty_scene(root):
    shutil.rmtree(folder(root) / "color")


def unknown_label(root):
    path = folder(root) / "label-filt" / "2.png"
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    values[0, 0] = 40000
    write_image(path, values)


def labels_of_other_frames(root):
    for path in sorted((folder(root) / "label-filt").iterdir()):
        path.rename(path.with_name(f"{int(path.stem) + 5000}.png"))


def label_of_another_shape(root):
    path = folder(root) / "label-filt" / "2.png"
    write_image(path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:20])


def color_of_another_size(root):
    path = folder(root) / "color" / "2.jpg"
    write_image(path, cv2.resize(cv2.imread(str(path)), (128, 96)))


def no_table(root):
    (root / "scannet" / "scannetv2-labels.combined.tsv").unlink()


def broken_table(root):
    (root / "scannet" / "scannetv2-labels.combined.tsv").write_text("a,b\n1,2\n")


def no_intrinsics(root):
    (folder(root) / "intrinsic" / "intrinsic_color.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_pose, r"pose/3.txt: should hold a 4x4 matrix, but has 8 numbers"),
        (break_all_poses, r"none of the 48 frames is usable \(tracking lost: 48\)"),
        (truncate_image, r"color/2.jpg: the image is truncated"),
        (truncate_depth, r"depth/2.png: the image is truncated"),
        (write_nonsense, r"color/2.jpg: not an image"),
        (remove_scene, r"there is no folder .*train_000"),
        (empty_scene, r"color has no images"),
        (unknown_label, r"label-filt/2.png: label ids 40000 are not in .*\.tsv"),
        (labels_of_other_frames, r"none of the 48 frames is usable \(.*no labels"),
        (label_of_another_shape, r"label-filt/2.png: is 64x20, but the frame's colour is 64x48"),
        (no_table, r"tsv: the label table is missing"),
        (broken_table, r"tsv: not ScanNet's label table"),
        (no_intrinsics, r"intrinsic_color.txt: there is no such file"),
    ],
)
def test_damage_is_told_in_one_line(damage, message, room):
    damage(room)
    with pytest.raises(UserError, match=message) as caught:
        open_scene(ROOM, room).views(["1", "2"], depth=True, labels=True)
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_is_left_out_and_counted(room):
    color_of_another_size(room)
    scene = open_scene(ROOM, room)
    assert "2" not in scene.frame_ids and scene.skipped["of another image size"] == 1


def test_too_few_frames_for_the_references(config, rooms, capsys):
    small = TestSet(open_scene("scannet/test_000/black_64", rooms), 40, DEPTH)
    assert len(small[0].references) == len(small.split.references) < 40
    assert "so that 40 cannot be used" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"usable training frames, but 61 are needed"):
        TrainingSet(config(train_dataset_cfg={"min_wn": 60, "max_wn": 61}), 0, DEPTH)


def test_unknown_database_type(rooms):
    with pytest.raises(UserError, match=r"unknown database type 'matterport'; there are scannet, replica"):
        open_scene("matterport/x/black_320", rooms)
