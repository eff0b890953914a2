"""Sampling, compositing, ray distributions and attention against closed forms and loops."""

import math

import numpy as np
import pytest
import torch

from network.attention import SelfAttention, first_places, sine_encoding
from network.compositing import composite, hit_probabilities
from network.cranet import weighted_mean_and_variance
from network.dist_decoder import RayDistribution, visibility_and_hit
from network.geometry import LAST_INTERVAL, interval_halves, inverse_depth_intervals
from network.rendering import Rays, Rendering
from network.samplers import importance_depths, uniform_depths
from train.run import build_network

RANGE = torch.tensor([0.5, 8.0], dtype=torch.float64)


def test_uniform_depths_are_uniform_in_inverse_depth():
    depths = uniform_depths(RANGE[None], 16)[0]
    assert depths[0] == pytest.approx(0.5) and depths[-1] == pytest.approx(8.0)
    steps = (1 / depths[:-1] - 1 / depths[1:]).numpy()
    np.testing.assert_allclose(steps, (2 - 1 / 8) / 15)


@pytest.mark.parametrize(("spacing", "function"), [("log", torch.log), ("linear", lambda z: z)])
def test_uniform_depths_in_log_and_linear_depth(spacing, function):
    depths = uniform_depths(RANGE[None], 16, spacing)[0]
    assert torch.allclose(depths[[0, -1]], RANGE)
    steps = function(depths).diff()
    assert torch.allclose(steps, steps.mean().expand_as(steps), rtol=1e-4)


def test_the_renderer_spaces_its_coarse_samples_as_the_config_says(config):
    network = build_network(config(sample_spacing="log", depth_sample_num=5), "cpu")
    seen = []

    def stage(_encoding, _rays, depths, *_):
        seen.append(depths)
        hits = torch.ones_like(depths) / depths.shape[1]
        return Rendering(None, {}, depths.mean(1), hits, depths, *torch.ones(2, len(depths), dtype=torch.bool))

    rays = Rays(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([[1.0, 16.0], [2.0, 32.0]]))
    network.render_rays(None, rays, stages=[stage])
    assert torch.allclose(seen[0], torch.tensor([[1.0, 2, 4, 8, 16], [2, 4, 8, 16, 32]]))


def test_intervals_are_equal_for_uniform_depths_and_the_last_is_far():
    intervals = inverse_depth_intervals(uniform_depths(RANGE[None], 16), RANGE[None])
    np.testing.assert_allclose(intervals[0, :-1], 1 / 15)
    assert intervals[0, -1] == LAST_INTERVAL


def test_importance_depths_equal_a_loop():
    rng = np.random.default_rng(0)
    depths = np.sort(rng.uniform(0.5, 8, (6, 12)), -1)
    hits = rng.random((6, 12)) ** 4
    result = importance_depths(
        torch.from_numpy(depths), torch.from_numpy(hits), RANGE.expand(len(depths), 2), 10
    ).numpy()
    near, far = -1 / 0.5, -1 / 8
    for r in range(6):
        t = (-1 / depths[r] - near) / (far - near)
        edges = [t[0], *((t[1:] + t[:-1]) / 2), t[-1]]
        weights = (hits[r] + 1e-5) / (hits[r] + 1e-5).sum()
        expected = []
        for i in range(10):
            u, below = (i + 0.5) / 10, 0.0
            for s, weight in enumerate(weights):
                if u < below + weight:
                    expected.append(edges[s] + (u - below) / weight * (edges[s + 1] - edges[s]))
                    break
                below += weight
        np.testing.assert_allclose(result[r], -1 / (np.array(expected) * (far - near) + near), rtol=1e-6)


def draws(count, seed):
    return torch.rand(1, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_importance_depths_fall_where_the_hit_is():
    depths = uniform_depths(RANGE[None], 32)
    hits = torch.zeros_like(depths)
    hits[0, 10] = 1
    drawn = importance_depths(depths, hits, RANGE[None], 64, draws(64, 0))
    between = (drawn > depths[0, 9]) & (drawn < depths[0, 11])
    assert between.float().mean() > 0.95 and torch.equal(drawn, drawn.sort(-1).values)


def test_random_depths_follow_the_generator_and_carry_no_gradient():
    depths, hits = uniform_depths(RANGE[None], 8), torch.rand(1, 8, dtype=torch.float64, requires_grad=True)
    first, again, other = (importance_depths(depths, hits, RANGE[None], 8, draws(8, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and not first.requires_grad


def test_hit_probabilities_of_constant_density_decay_geometrically():
    density = torch.full((1, 20), 0.3, dtype=torch.float64)
    alpha = 1 - math.exp(-0.3)
    np.testing.assert_allclose(hit_probabilities(density)[0], [alpha * (1 - alpha) ** i for i in range(20)], rtol=1e-8)


def test_an_opaque_sample_hides_all_behind_it_and_negative_density_is_none():
    density = torch.tensor([[-3.0, 0, 1e3, 5]])
    hit = hit_probabilities(density)
    np.testing.assert_allclose(hit, [[0, 0, 1, 0]], atol=1e-6)
    values = torch.arange(8.0).reshape(1, 4, 2)
    np.testing.assert_allclose(composite(hit, values), values[:, 2], atol=1e-5)


@pytest.mark.parametrize("with_visibility", [True, False])
def test_visibility_and_hit_equal_a_loop(with_visibility):
    views, rays, samples = 2, 3, 5
    random = torch.rand(views, rays, samples, 6, dtype=torch.float64)
    distribution = RayDistribution(
        random[..., :2], random[..., 2:4] * 5, random[..., 4:5], random[..., 5:6] if with_visibility else None
    )
    inverse = torch.rand(views, rays, samples, dtype=torch.float64)
    intervals = torch.rand(rays, samples, dtype=torch.float64)
    before, after = interval_halves(intervals)
    ends = [x.flatten(1) for x in (inverse - before, inverse + after)]
    rows = [None if x is None else x.flatten(1, 2) for x in distribution]
    visibility, hit = (x.unflatten(1, (rays, samples)) for x in visibility_and_hit(RayDistribution(*rows), *ends))
    for v in range(views):
        for r in range(rays):
            for s in range(samples):
                low = inverse[v, r, s] - intervals[r, max(s - 1, 0)] / 2
                high = inverse[v, r, s] + intervals[r, s] / 2
                seen = struck = 0
                for k, weight in enumerate((random[v, r, s, 4], 1 - random[v, r, s, 4])):

                    def cdf(x, v=v, r=r, s=s, k=k):
                        value = 1 / (
                            1 + math.exp(-2 * (x - random[v, r, s, k]) * random[v, r, s, 2 + k] * 5)
                        )  # tanh as a logistic
                        return value * (random[v, r, s, 5] if with_visibility else 1)

                    seen += weight * (1 - cdf(low))
                    struck += weight * (cdf(high) - cdf(low))
                assert visibility[v, r, s] == pytest.approx(float(seen)) and hit[v, r, s] == pytest.approx(
                    float(struck)
                )


def test_attention_equals_a_loop():
    torch.manual_seed(0)
    attention = SelfAttention(16, along=True).double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    result = attention(x, mask)
    q, k, v = (layer(x) for layer in (attention.w_qs, attention.w_ks, attention.w_vs))
    for b in range(2):
        for i in range(5):
            heads = []
            for h in range(4):
                part = slice(4 * h, 4 * h + 4)
                logits = [float((q[b, i, part] @ k[b, j, part]).detach()) / 2 if mask[b, i] else -1e9 for j in range(5)]
                weights = np.exp(np.array(logits) - max(logits))
                weights /= weights.sum()
                heads.append(sum(w * v[b, j, part] for j, w in enumerate(weights)))
            y = attention.fc(torch.cat(heads)) + x[b, i]
            y = (y - y.mean()) / (y.var(unbiased=False) + 1e-6).sqrt()
            np.testing.assert_allclose(
                result[b, i].detach(), (y * attention.layer_norm.weight + attention.layer_norm.bias).detach(), atol=1e-9
            )


def test_sine_encoding_equals_its_formula():
    table = sine_encoding(10, 6)
    for p in range(10):
        for j in range(6):
            angle = p / 10000 ** (2 * (j // 2) / 6)
            assert table[p, j] == pytest.approx(math.cos(angle) if j % 2 else math.sin(angle), abs=1e-6)


def test_weighted_statistics_use_the_weights_as_they_are():
    x, w = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [0.25]])
    mean, variance = weighted_mean_and_variance(x, w)
    assert mean.item() == 1.25 and variance.item() == pytest.approx(0.5 * 0.25**2 + 0.25 * 1.75**2)


def test_more_samples_than_the_table_has_are_encoded_too():
    table = sine_encoding(8, 6)
    for length in (3, 8, 9, 20):
        assert torch.equal(first_places(table, length), sine_encoding(length, 6))
