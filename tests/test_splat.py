"""The splat of references into another view against loops, and the baseline made of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.database import open_scene
from dataset.render_dataset import Needs, TestSet
from dataset.views import Cameras
from network.ops.splat import blend_colors, merge_depth, nearest_known, see_surface, splat_depth, vote_labels
from train.baselines import COPIED, SPLATTED, WARPED, baselines
from train.evaluator import hard_regions
from train.metrics import depth_error, psnr
from train.pictures import first_picture


@pytest.fixture(scope="module")
def batch(rooms):
    test = TestSet(open_scene("scannet/test_000/black_64", rooms), 4, Needs(depth=True), reference_labels=True)
    return test[0].to("cpu")


def splat_by_loops(depth: np.ndarray, K: np.ndarray, pose: np.ndarray, query: Cameras) -> np.ndarray:
    height, width = query.size
    result = np.zeros((height, width))
    query_K, query_pose = query.Ks[0].double().numpy(), query.poses[0].double().numpy()
    for y, x in np.argwhere(depth > 0):
        point = pose[:, :3].T @ (np.linalg.inv(K) @ [x, y, 1] * depth[y, x] - pose[:, 3])
        u, v, z = query_K @ (query_pose[:, :3] @ point + query_pose[:, 3])
        if z <= 0:
            continue
        left, top = int(np.floor(u / z)), int(np.floor(v / z))
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= row < height and 0 <= column < width and (result[row, column] == 0 or z < result[row, column]):
                result[row, column] = z
    return result


def test_splats_equal_a_loop_also_with_holes_other_sizes_and_what_is_behind(batch):
    references = batch.references
    depth = references.depth.clone()
    depth[:, :, 10:20, 5:30] = 0
    turned = batch.query.cameras.poses.clone()
    turned[:, [0, 2]] *= -1  # half a turn: nearly everything is behind
    larger = replace(
        batch.query.cameras, size=(56, 80), Ks=batch.query.cameras.Ks * torch.tensor([1.2, 1.1, 1])[:, None]
    )
    for query in (batch.query.cameras, larger, replace(batch.query.cameras, poses=turned)):
        splats = splat_depth(depth, references.cameras, query)
        for view, splat in enumerate(splats.numpy()):
            K, pose = (x[view].double().numpy() for x in (references.cameras.Ks, references.cameras.poses))
            expected = splat_by_loops(depth[view, 0].numpy(), K, pose, query)
            same = np.isclose(splat, expected, rtol=1e-4)  # a pixel that lands on a border may round to either side
            assert same.mean() > 0.999
            assert (splat > 0).any() == (expected > 0).any()


def test_a_view_splatted_into_itself_is_its_depth_or_nearer(batch):
    query = batch.query
    splat = splat_depth(query.depth, query.cameras, query.cameras)[0]
    assert ((splat - query.depth[0, 0]) < 1e-4).all() and (splat > 0).all()


def test_the_nearest_known_pixel_is_that_of_a_search():
    rng = np.random.default_rng(0)
    known = rng.random((37, 53)) < 0.03
    found = nearest_known(torch.from_numpy(known)).numpy()
    places = np.argwhere(known)
    for y, x in np.argwhere(~known):
        least = np.linalg.norm(places - [y, x], axis=1).min()
        row, column = divmod(found[y, x], 53)
        assert known[row, column] and np.hypot(row - y, column - x) <= least + 1
    assert (found[known] == np.flatnonzero(known)).all()
    assert (nearest_known(torch.zeros(3, 4, dtype=torch.bool)).flatten() == torch.arange(12)).all()


def test_merging_keeps_the_nearest_fills_holes_and_drops_lone_pixels():
    splats = torch.zeros(2, 6, 8)
    splats[0, :, :4], splats[1, :, 2:] = 3.0, 2.0
    splats[0, :, 6:] = splats[1, :, 6:] = 0  # seen by neither
    splats[0, 3, 1] = 0.5
    expected = torch.full((6, 8), 2.0)
    expected[:, :2] = 3
    assert (merge_depth(splats) == expected).all()
    assert (merge_depth(torch.zeros(2, 4, 4)) == 0).all()


def test_what_a_reference_shows_counts_only_where_its_depth_agrees(batch):
    references, query = batch.references, batch.query
    sighting = see_surface(references, query.cameras, query.depth[0, 0])
    total = sighting.weights.sum(0)
    assert torch.allclose(total[sighting.seen], torch.ones(())) and sighting.seen.float().mean() > 0.8
    nearer = see_surface(references, query.cameras, query.depth[0, 0] * 0.9)
    assert nearer.seen.float().mean() < 0.2
    unknown = see_surface(replace(references, depth=references.depth * 0), query.cameras, query.depth[0, 0])
    assert not unknown.seen.any() and (blend_colors(references, unknown) == 0).all()
    assert (vote_labels(references.labels, unknown, 20) == 20).all()


def test_votes_follow_the_weights_and_not_what_is_ignored(batch):
    references = replace(batch.references, labels=torch.zeros_like(batch.references.labels))
    sighting = see_surface(references, batch.query.cameras, batch.query.depth[0, 0])
    references.labels[2:] = 3
    references.labels[0] = 5  # ignored
    winner = vote_labels(references.labels, sighting, 5)
    weights = sighting.weights
    expected = torch.where(weights[2] + weights[3] > weights[1], 3, 0)
    expected[weights[1:].sum(0) == 0] = 5
    assert (winner == expected).all()


def test_the_splat_is_the_best_baseline_in_colour_classes_and_depth(batch):
    pictures, truth = baselines(batch, 20), first_picture(batch.query)
    assert list(pictures) == [COPIED, WARPED, SPLATTED]
    quality = [psnr(picture.color, truth.color) for picture in pictures.values()]
    errors = [depth_error(picture.depth, truth.depth) for picture in pictures.values()]
    hits = [(picture.classes == truth.classes).mean() for picture in pictures.values()]
    assert quality[2] > max(quality[:2]) and errors[2] < 0.02 < errors[0] and hits[2] > 0.85 and hits[2] > hits[0]
    assert list(baselines(replace(batch, references=replace(batch.references, depth=None)), 20)) == [COPIED]


def test_what_a_mask_hides_is_not_splatted(batch):
    mask = torch.ones_like(batch.references.depth)
    mask[1:] = 0
    hidden = baselines(replace(batch, references=replace(batch.references, mask=mask)), 20)[SPLATTED]
    first = replace(batch.references, depth=batch.references.depth * mask)
    assert (hidden.depth == baselines(replace(batch, references=first), 20)[SPLATTED].depth).all()


def test_hard_pixels_are_told_from_the_depth_there_is_and_hidden_ones_are_not_among_them(batch):
    regions = hard_regions(batch)
    splats = splat_depth(batch.references.depth, batch.references.cameras, batch.query.cameras)
    assert (regions["holes"] == (splats.amax(0) == 0).numpy()).all() and regions["edges"].any()
    first = replace(batch.references, depth=batch.references.depth * 0)
    first.depth[0] = batch.references.depth[0]
    alone = hard_regions(replace(batch, references=first, query=replace(batch.query, depth=None)))
    assert list(alone) == ["holes"] and alone["holes"].sum() > regions["holes"].sum()
    mask = torch.zeros_like(batch.query.depth)
    mask[..., 20:, :] = 1
    masked = hard_regions(replace(batch, query=replace(batch.query, mask=mask), references=first))
    assert not masked["holes"][:20].any() and (masked["holes"][20:] == alone["holes"][20:]).all()
    assert list(hard_regions(replace(batch, references=replace(batch.references, depth=None)))) == ["edges"]
