"""References of different exposure, brought to one."""

from dataclasses import replace

import pytest
import torch

from dataset.database import open_scene
from dataset.render_dataset import Needs, TestSet
from network.exposure import balanced, exposure_gains, solve_positive
from network.rendering import Encoding
from network.surfaces import with_neighbours


@pytest.fixture(scope="module")
def batch(rooms):
    return TestSet(open_scene("scannet/test_000/black_64", rooms), 4, Needs(depth=True))[0].to("cpu")


def encoding(batch, factors):
    references = batch.references
    images = references.images * 0.6 * torch.tensor(factors)[:, None, None, None]
    return Encoding(references.cameras, images, torch.empty(4, 1, 1, 1), 0, surfaces=with_neighbours(references.depth))


def test_exposures_that_differ_are_undone_up_to_a_common_factor(batch):
    factors = [1.0, 1.3, 0.8, 1.1]
    given = encoding(batch, factors)
    gains = exposure_gains(given, batch.query.cameras)
    common = gains * torch.tensor(factors)
    assert (common / common.mean() - 1).abs().max() < 0.05
    images = balanced(given, batch.query.cameras).images
    ratios = (images / encoding(batch, [1.0] * 4).images.clamp_min(0.05)).flatten(1).median(1).values
    assert ratios.max() / ratios.min() < 1.05 and given.images.flatten(1).mean(1)[1] > images.flatten(1).mean(1)[1]


def test_equal_exposures_stay(batch):
    assert (exposure_gains(encoding(batch, [1.0] * 4), batch.query.cameras) - 1).abs().max() < 0.04


def test_what_shows_nothing_of_the_query_has_a_gain_that_changes_nothing_of_it(batch):
    given = encoding(batch, [1.0, 1.3, 0.8, 1.1])
    without = replace(given, surfaces=torch.cat([given.surfaces[:3], torch.zeros_like(given.surfaces[3:])]))
    gains = exposure_gains(without, batch.query.cameras)
    three = gains[:3] * torch.tensor([1.0, 1.3, 0.8])
    assert gains.isfinite().all() and (three / three.mean() - 1).abs().max() < 0.05
    nothing = replace(given, surfaces=torch.zeros_like(given.surfaces))
    assert (exposure_gains(nothing, batch.query.cameras) == 1).all()


def test_a_small_system_is_solved():
    torch.manual_seed(0)
    root = torch.randn(6, 6)
    matrix, right = root @ root.T + 1e-3 * torch.eye(6), torch.randn(6)
    torch.testing.assert_close(matrix @ solve_positive(matrix, right), right, rtol=1e-3, atol=1e-3)
