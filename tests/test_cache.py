"""The cache: the same bytes, noticed changes, several processes, bounds, and doing without."""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import pytest
import torch

from dataset import cache as cache_module
from dataset.cache import Cache, list_entries
from dataset.database import open_scene
from dataset.scannet import read_matrix
from utils import logging
from utils.errors import UserError
from utils.images import write_image

ROOM = "scannet/train_000/black_32"
FIELDS = ("images", "depth", "labels")


@pytest.fixture
def data(rooms, tmp_path):
    shutil.copytree(rooms / "scannet", tmp_path / "data" / "scannet")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 1e9)


def views(scene, frames=None):
    return scene.views(frames or scene.frame_ids[:10], depth=True, labels=True)


def assert_equal(a, b):
    for field in FIELDS:
        assert torch.equal(getattr(a, field).to(torch.int64), getattr(b, field).to(torch.int64)), field
        assert getattr(a, field).dtype == getattr(b, field).dtype


def forbid_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError("a frame was decoded again")

    monkeypatch.setattr("dataset.scene.Scene._decode", decode)


def test_bytes_equal_those_without_a_cache_and_are_decoded_once(data, cache, monkeypatch):
    plain = views(open_scene(ROOM, data))
    assert_equal(views(open_scene(ROOM, data, cache)), plain)
    forbid_decoding(monkeypatch)
    again = open_scene(ROOM, data, cache)
    assert_equal(views(again), plain)
    np.testing.assert_array_equal(again.camera_to_world, open_scene(ROOM, data).camera_to_world)
    assert again.frame_ids == open_scene(ROOM, data).frame_ids and again.skipped == open_scene(ROOM, data).skipped


def test_poses_are_not_read_again(data, cache, monkeypatch):
    open_scene(ROOM, data, cache)

    def read(path, *shapes):
        return pytest.fail("a pose was read again") if path.parent.name == "pose" else read_matrix(path, *shapes)

    monkeypatch.setattr("dataset.scannet.read_matrix", read)
    assert len(open_scene(ROOM, data, cache)) > 40


@pytest.mark.parametrize("what", ["color/2.jpg", "pose/2.txt"])
def test_a_changed_file_is_noticed(data, cache, what):
    before = views(open_scene(ROOM, data, cache), ["2"])
    path = data / "scannet" / "train_000" / what
    if what.startswith("color"):
        write_image(path, 255 - cv2.imread(str(path)))
    else:
        text = "1 0 0 9  0 1 0 8  0 0 1 7  0 0 0 1"
        path.write_text(text.ljust(path.stat().st_size))  # of the same size: only its time tells
    after = views(open_scene(ROOM, data, cache), ["2"])
    changed = after.images if what.startswith("color") else after.cameras.poses
    assert not torch.equal(changed, before.images if what.startswith("color") else before.cameras.poses)
    assert len(list_entries(cache.root)) == 1  # the old version is gone


def _fill(data, cache, seed):
    scene = open_scene(ROOM, data, cache)
    for frame in np.random.default_rng(seed).permutation(scene.frame_ids):
        views(scene, [str(frame)])
    return True


def test_several_processes_fill_one_entry(data, cache, monkeypatch):
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        assert all(pool.map(_fill, [data] * 3, [cache] * 3, range(3)))
    plain = open_scene(ROOM, data)
    expected = views(plain, plain.frame_ids)
    forbid_decoding(monkeypatch)
    assert_equal(views(open_scene(ROOM, data, cache), plain.frame_ids), expected)
    assert len(list_entries(cache.root)) == 1


def test_a_frame_that_was_being_written_when_its_process_died_is_decoded_again(data, cache, monkeypatch):
    scene = open_scene(ROOM, data, cache)
    write = cache_module._write_at

    def dies_before_the_flag(path, offset, content):
        if path.name.endswith(".there"):
            raise KeyboardInterrupt
        write(path, offset, content[: len(content) // 2])

    monkeypatch.setattr(cache_module, "_write_at", dies_before_the_flag)
    with pytest.raises(KeyboardInterrupt):
        views(scene, ["2"])
    monkeypatch.setattr(cache_module, "_write_at", write)
    assert_equal(views(open_scene(ROOM, data, cache), ["2"]), views(open_scene(ROOM, data), ["2"]))


def test_the_size_is_bounded_and_the_longest_unused_goes_first(data, cache):
    names = [f"scannet/{room}/black_32" for room in ("train_000", "train_001", "val_000")]
    one = None
    for age, name in enumerate(names):
        scene = open_scene(name, data, Cache(cache.root, 2.5 * one) if one else cache)
        views(scene, scene.frame_ids)
        entry = next(entry for entry in list_entries(cache.root) if name.split("/")[1] in entry.path.name)
        one = one or entry.bytes
        os.utime(entry.path, (age, age))
    assert [entry.path.name.split("_black")[0] for entry in list_entries(cache.root)] == [
        "scannet_train_001",
        "scannet_val_000",
    ]


def _open_and_wait(data, cache, opened, go_on):
    scene = open_scene("scannet/train_000/black_32", data, cache)
    views(scene, scene.frame_ids)
    opened.set()
    assert go_on.wait(60)
    views(scene, scene.frame_ids)  # the files are still there


def test_what_another_process_has_open_is_not_removed(data, cache, capsys):
    logging.forget()
    context = get_context("spawn")
    opened, go_on = context.Event(), context.Event()
    other = context.Process(target=_open_and_wait, args=(data, cache, opened, go_on))
    other.start()
    assert opened.wait(60)
    (held,) = list_entries(cache.root)
    small = Cache(cache.root, 1.8 * held.bytes)
    scene = open_scene("scannet/train_001/black_32", data, small)
    assert_equal(views(scene), views(open_scene("scannet/train_001/black_32", data)))
    assert [entry.path for entry in list_entries(cache.root)] == [held.path]
    assert "beside the entries in use; it is not cached" in capsys.readouterr().err
    go_on.set()
    other.join(60)
    assert other.exitcode == 0
    scene = open_scene("scannet/train_001/black_32", data, small)  # nobody holds it any more
    assert "train_001" in list_entries(cache.root)[0].path.name and len(list_entries(cache.root)) == 1
    assert_equal(views(scene), views(open_scene("scannet/train_001/black_32", data)))


def test_scenes_of_one_name_below_two_data_roots_keep_their_entries(data, cache, tmp_path):
    other = shutil.copytree(data, tmp_path / "other")
    for root in (data, other, data, other):
        views(open_scene(ROOM, root, cache))
    assert len(list_entries(cache.root)) == 2


def test_another_reading_of_the_same_files_is_another_entry(data, cache):
    views(open_scene(ROOM, data, cache), ["2"])
    table = {"raw": 0, "nyu40": 0}
    for ids in table:
        try:
            table[ids] = open_scene(ROOM, data, cache, label_ids=ids).views(["2"], labels=True).labels.sum()
        except UserError:
            table[ids] = -1
    assert table["raw"] != table["nyu40"]


def test_a_scene_that_can_never_fit_is_used_without(data, tmp_path, capsys):
    logging.forget()
    assert_equal(views(open_scene(ROOM, data, Cache(tmp_path / "small", 1e3))), views(open_scene(ROOM, data)))
    assert "more than cache_max_gb" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said_and_done_without(data, tmp_path, capsys):
    logging.forget()
    (tmp_path / "file").write_text("")
    scene = open_scene(ROOM, data, Cache(tmp_path / "file" / "cache", 1e9))
    assert_equal(views(scene), views(open_scene(ROOM, data)))
    assert "no cache can be kept there" in capsys.readouterr().err


def test_a_full_disk_is_said_and_done_without(data, cache, capsys, monkeypatch):
    logging.forget()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_write_at", full)
    assert_equal(views(open_scene(ROOM, data, cache)), views(open_scene(ROOM, data)))
    assert capsys.readouterr().err.count("No space left") == 1


def test_listing_and_clearing(data, cache, monkeypatch, capsys):
    views(open_scene(ROOM, data, cache))
    monkeypatch.setattr("sys.argv", ["cache", "list", "--root", str(cache.root)])
    cache_module.main()
    assert "scannet_train_000_black_32" in capsys.readouterr().out and list_entries(cache.root)
    monkeypatch.setattr("sys.argv", ["cache", "clear", "--root", str(cache.root)])
    cache_module.main()
    assert not list_entries(cache.root)


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"", lambda data: data[:40] + data[60:]])
def test_a_damaged_list_of_frames_is_read_from_the_scene_again(data, cache, damage):
    """As a full disk or a loss of power may leave it."""
    truth = open_scene(ROOM, data)
    views(open_scene(ROOM, data, cache))
    (listed,) = list_entries(cache.root)
    path = listed.path / cache_module.FRAMES_FILE
    path.write_bytes(damage(path.read_bytes()))
    scene = open_scene(ROOM, data, cache)
    assert scene.frame_ids == truth.frame_ids
    np.testing.assert_array_equal(scene.camera_to_world, truth.camera_to_world)
    assert_equal(views(scene), views(truth))
