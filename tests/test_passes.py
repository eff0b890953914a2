"""The network's own forward against the plain one of the papers, in float64, float32 and under autocast; the engine
too.

Without a GPU the kernels run in Triton's interpreter (conftest.py), where Triton is installed.
"""

import copy
from dataclasses import replace

import pytest
import torch

from dataset.views import Cameras, Tensors, Views
from network.backend import Backend
from network.engine.requirements import reason_against
from network.engine.stage import EngineStage
from network.geometry import pixel_grid
from network.renderer import Renderer
from network.rendering import camera_rays
from network.samplers import importance_depths, uniform_depths
from network.sight import look
from network.stage import Stage
from network.surfaces import Layers
from tests.reference import plain

pytest.importorskip("triton", reason="the engine needs Triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZE = (32, 48)
CASES = [  # views, samples, rays, changes to the config, masked
    (2, 16, 3, {}, False),
    (3, 12, 3, {"dist_decoder_cfg": {"use_vis": False}}, False),
    (4, 8, 5, {"agg_net_cfg": {"ptrans_first": True}}, True),
    (5, 8, 3, {"agg_net_cfg": {"use_ptrans": False}}, False),
    (8, 12, 2, {"render_label": False, "loss": ["render"]}, False),
    (16, 8, 1, {}, False),
    (3, 8, 3, {"density_activation": "softplus", "density_bias": -2.0}, False),
    (2, 64, 1, {}, False),  # a ray fills the kernels' rows
]


def cameras(count: int, generator) -> Cameras:
    """They look about: of the points of a ray some lie behind them, and some are seen by none."""
    rotations = torch.linalg.qr(torch.eye(3) + 0.4 * torch.randn(count, 3, 3, generator=generator)).Q
    poses = torch.cat([rotations, 0.5 * torch.randn(count, 3, 1, generator=generator)], -1)
    Ks = torch.tensor([[40.0, 0, 23.5], [0, 41, 15.5], [0, 0, 1]]).repeat(count, 1, 1)
    return Cameras(poses, Ks, torch.tensor([[0.3, 8.0]]).repeat(count, 1), SIZE)


def scene(config, case, seed=0):
    """A network with random weights, the encoding of random references, and rays of two cameras."""
    views, samples, rays, changes, masked = case
    cfg = config(depth_sample_num=samples, fine_depth_sample_num=samples, **changes)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = Renderer(cfg).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    mask = None
    if masked:
        mask = torch.ones(views, 1, *SIZE)
        mask[:, :, :, 20:30] = 0
    references = Views(
        cameras(views, generator),
        torch.rand(views, 3, *SIZE, generator=generator),
        torch.rand(views, 1, *SIZE, generator=generator) * 4 + 1,
        mask=mask,
    )
    pixels = torch.rand(2, rays, 2, generator=generator) * torch.tensor([SIZE[1], SIZE[0]]).float()
    return network, references, camera_rays(cameras(2, generator), pixels)


def convert(value, function):
    """A dataclass of tensors with `function` of each."""
    return value._map(lambda part: convert(part, function) if isinstance(part, Tensors) else function(part))


def double(value):
    return convert(value, lambda x: x.double() if x.is_floating_point() else x)


def results(rendering):
    values = {name: getattr(rendering, name) for name in ("color", "logits", "depth", "hit_probability")}
    return {name: value for name, value in values.items() if value is not None}


def differentiate(network, render, encoding, rays, seed=3):
    """Outputs of the first pass by `render(stage, …)`, and gradients of a random combination of them, by name and of
    the features."""
    features = encoding.features.detach().clone().requires_grad_()
    depths = uniform_depths(rays.depth_range, network.sampler.coarse)
    values = results(render(network.stages[0], replace(encoding, features=features), rays, depths))
    generator = torch.Generator().manual_seed(seed)
    total = sum((v * torch.randn(v.shape, generator=generator).to(v.dtype)).sum() for v in values.values())
    network.zero_grad()
    total.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return values, {**gradients, "features": features.grad}


def relative(actual, expected) -> float:
    return ((actual.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("case", CASES)
def test_the_networks_own_pass_is_the_plain_one(config, case):
    network, references, rays = scene(config, case)
    oracle = copy.deepcopy(network).double()
    with torch.no_grad():
        encoding = network.encode(references)
    exact = double(encoding), double(rays)
    expected, expected_gradients = differentiate(oracle, plain.render, *exact)
    values, gradients = differentiate(oracle, Stage.__call__, *exact)
    assert values.keys() == expected.keys() and gradients.keys() == expected_gradients.keys()
    for name, value in values.items():
        torch.testing.assert_close(value, expected[name], atol=1e-10, rtol=1e-9)
    values, single = differentiate(network, Stage.__call__, encoding, rays)
    for name, value in values.items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-4, rtol=1e-4)
    largest = max(gradient.norm() for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        size = max(gradient.norm(), 1e-4 * largest)  # a bias before a softmax has no gradient but rounding
        assert (gradients[name] - gradient).norm() < 1e-8 * size, name
        assert (single[name] - gradient).norm() < 1e-3 * size, name


def test_rays_that_no_view_sees(config):
    network, references, rays = scene(config, CASES[0])
    away = replace(rays, centres=rays.centres + 1000, directions=torch.ones_like(rays.directions))
    depths = uniform_depths(away.depth_range, 16)
    with torch.no_grad():
        encoding = network.encode(references)
        for render in (plain.render, Stage.__call__):
            rendering = render(network.stages[0], encoding, away, depths)
            assert (rendering.color == 0).all() and (rendering.hit_probability == 0).all()
            assert not rendering.scored.any() and rendering.logits.isfinite().all()


def test_only_densities_are_rendered_where_nothing_else_is_asked_for(config):
    network, references, rays = scene(config, CASES[0])
    depths = uniform_depths(rays.depth_range, 16)
    with torch.no_grad():
        encoding = network.encode(references)
        for render in (plain.render, Stage.__call__):
            whole = render(network.stages[0], encoding, rays, depths)
            part = render(network.stages[0], encoding, rays, depths, density_only=True)
            assert part.color is None and part.logits is None
            assert torch.equal(part.hit_probability, whole.hit_probability)


def test_autocast_leaves_positions_alone(config):
    """In bfloat16 a pixel of a wide image would be off by more than one."""
    network, references, rays = scene(config, CASES[0])
    with torch.no_grad():
        expected = network.encode(references)
        with torch.autocast("cpu", torch.bfloat16):
            encoding = network.encode(references)
            sight = look(expected, rays, uniform_depths(rays.depth_range, 16))
        plain_sight = look(expected, rays, uniform_depths(rays.depth_range, 16))
    assert encoding.features.dtype == torch.bfloat16
    assert torch.equal(sight.near_end, plain_sight.near_end) and torch.equal(sight.color, plain_sight.color)


@pytest.mark.parametrize("case", CASES)
def test_the_engine_equals_the_plain_pass(config, case):
    network, references, rays = scene(config, case)
    oracle = copy.deepcopy(network).double()
    with torch.no_grad():
        encoding = network.encode(references)
        coarse = uniform_depths(rays.depth_range, network.sampler.coarse)
        hits = plain.render(network.stages[0], encoding, rays, coarse).hit_probability
        depths = importance_depths(coarse, hits, rays.depth_range, network.sampler.fine)
        expected = plain.render(oracle.stages[-1], double(encoding), double(rays), depths.double())
        network.to(DEVICE)
        encoding, rays, depths = (x.to(DEVICE) for x in (encoding, rays, depths))
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float16, 0.02)):
            stage = EngineStage.of(network.stages[-1], dtype)
            typed = replace(encoding, features=encoding.features.to(dtype))
            rendering = stage(typed, rays, depths)
            assert torch.equal(rendering.scored.cpu(), expected.scored)
            assert torch.equal(rendering.seen.cpu(), expected.seen)
            for name, value in results(expected).items():
                assert (getattr(rendering, name).cpu() - value).abs().max() < tolerance * max(1, value.abs().max()), (
                    name
                )
            density = stage(typed, rays, depths, density_only=True)
            assert density.color is None and torch.equal(density.hit_probability, rendering.hit_probability)


SURFACES = {
    "sampler": "surfaces", "use_hierarchical_sampling": False, "blend_by_angle": True, "reference_classes": True,
    "query_decoder": True, "density_activation": "softplus", "density_bias": -1.0,
}  # fmt: skip


def meet_wall(rays) -> torch.Tensor:
    """Depth at which rays meet a slanted wall, (R,)."""
    normal = torch.tensor([0.3, -0.2, 1.0])
    return (3 - rays.centres @ normal) / (rays.directions @ normal)


def before_wall(config, views: int, rays: int, masked: bool, changes: dict):
    """As `scene`, of a wall that the references' depth shows but for a stripe, with surfaces."""
    network, references, rays = scene(config, (views, 8, rays, {**SURFACES, **changes}, masked))
    grid = pixel_grid(*SIZE).expand(views, -1, -1)
    depth = meet_wall(camera_rays(references.cameras, grid)).view(views, 1, *SIZE).clamp_min(0)
    depth[:, :, 12:15] = 0
    encoding = network.encode(replace(references, depth=depth))
    found = torch.arange(len(rays)) > 1
    layers = Layers(torch.zeros(len(rays), 3), torch.zeros(len(rays), 3), found)
    behind = rays.centres - torch.tensor([0.0, 0.0, 1000.0])  # all cameras, which see none of it
    centres = torch.where(found[:, None], rays.centres, behind)
    return network, encoding, replace(rays, centres=centres, layers=layers)


@pytest.mark.parametrize(
    ("views", "samples", "masked", "changes"),
    [
        (2, 1, False, {}),
        (3, 5, True, {}),
        (8, 1, False, {"reference_classes": False, "query_decoder": False}),
        (5, 5, False, {"render_label": False, "loss": ["render"], "reference_classes": False}),
        (16, 3, False, {}),
    ],
)
def test_the_engine_renders_surfaces_as_the_modules_do(config, views, samples, masked, changes):
    with torch.no_grad():
        network, encoding, rays = before_wall(config, views, 4, masked, changes)
        around = torch.linspace(0.97, 1.06, samples) if samples > 1 else torch.tensor([1.004])
        depths = meet_wall(rays).abs().clamp(0.5, 9)[:, None] * around
        oracle = copy.deepcopy(network).double()
        expected = oracle.stages[0](double(encoding), double(rays), depths.double())
        assert expected.seen.any() and not expected.seen.all()
        network.to(DEVICE)
        encoding, rays, depths = (x.to(DEVICE) for x in (encoding, rays, depths))
        assert reason_against(network, encoding) is None
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float16, 0.02)):
            typed = replace(encoding, features=encoding.features.to(dtype))
            rendering = EngineStage.of(network.stages[0], dtype)(typed, rays, depths)
            assert torch.equal(rendering.seen.cpu(), expected.seen)
            assert torch.equal(rendering.scored.cpu(), expected.scored)
            values = {**results(expected), **expected.heads}
            for name, value in values.items():
                found = rendering.heads.get(name, getattr(rendering, name, None)).cpu()
                assert (found - value).abs().max() < tolerance * max(1, value.abs().max()), name


@pytest.mark.gpu
def test_rays_along_a_border_in_the_fused_pass(config):
    """Rounding decides whether a view sees their samples; whatever it decides must hold everywhere."""
    network, references, _ = scene(config, (2, 64, 1, {}, False))
    border = torch.rand(2, 512, 2) * torch.tensor([SIZE[1], SIZE[0]]).float()
    border[0, :, 0] = -0.5
    border[1, :, 1] = SIZE[0] - 0.5
    network, references, border = network.cuda(), references.to("cuda"), border.cuda()
    backend = Backend(torch.device("cuda"), compile_from=0)
    rays = camera_rays(references.cameras, border)
    with torch.no_grad():
        encoding = network.encode(references)
        depths = uniform_depths(rays.depth_range, 64)
        plainly = network.stages[0](encoding, rays, depths)
        fused = backend.stages(network)[0](encoding, rays, depths)
    for name, value in results(fused).items():
        assert value.isfinite().all() and value.abs().max() < 10 * results(plainly)[name].abs().max(), name


def test_the_engine_takes_densities_of_a_softplus(config):
    network, references, _ = scene(config, CASES[6])
    assert isinstance(network.agg_net.agg_impl.out_geometry_fc[-1], torch.nn.Softplus)
    assert reason_against(network, network.encode(references)) is None
