"""Operations: their kernels, in Triton's interpreter without a GPU, against their torch versions in float64."""

import pytest
import torch
import torch.nn.functional as F

from dataset.database import open_scene
from dataset.views import Cameras
from network.backend import Backend
from network.front_ends.learned_depth import GROUPS, PlaneSweep
from network.geometry import nearest_views, read_map, scaled_cameras
from network.layers import Conv3d
from network.ops import Kernels, attention, volumes
from network.ops.normalize import normalize, normalize_kernel
from network.ops.reading import read_rows
from network.ops.sweep import agreement, agreement_kernel
from tests.test_passes import DEVICE, relative

pytest.importorskip("triton", reason="kernels need Triton")
ALL_KERNELS = Backend(torch.device(DEVICE), kernels=Kernels(maps=True, volumes=True, attention=True))


def with_gradients(function, *inputs):
    """The result, and the gradients of a fixed sum of it with respect to the inputs and to a module's parameters."""
    parameters = function.parameters() if isinstance(function, torch.nn.Module) else ()
    inputs = [x.detach().requires_grad_() for x in inputs]
    result = function(*inputs)
    weights = torch.linspace(-1, 2, result.numel(), dtype=torch.float64).sin().view(result.shape).to(result)
    return [result, *torch.autograd.grad((result * weights).sum(), [*inputs, *parameters])]


def compare(function, twin, inputs, tolerance=1e-5):
    """Values and gradients of float32 `function` against those of float64 `twin`."""
    expected = with_gradients(twin, *[x.double() for x in inputs])
    for found, right in zip(with_gradients(function, *[x.to(DEVICE) for x in inputs]), expected, strict=True):
        assert found.isfinite().all() and relative(found.cpu(), right) < tolerance


@pytest.mark.parametrize(
    "c_in, c_out, dilation, size",
    [
        (4, 16, 1, (5, 5, 5)),
        (16, 16, 2, (5, 5, 5)),
        (16, 1, 1, (4, 3, 6)),
        (2, 3, 1, (1, 1, 2)),
        (16, 16, 2, (2, 7, 11)),  # more voxels than a tile has
    ],
)
def test_convolutions_of_volumes(c_in, c_out, dilation, size):
    torch.manual_seed(0)
    inputs = torch.randn(2, c_in, *size), torch.randn(c_out, c_in, 3, 3, 3), torch.randn(c_out)

    compare(
        lambda *inputs: volumes.convolve_kernel(*inputs, dilation),
        lambda *inputs: volumes.convolve(*inputs, dilation),
        inputs,
    )


def test_the_gradient_of_weights_over_parts_of_several_tiles(monkeypatch):
    """As in volumes of more than ten thousand voxels."""
    monkeypatch.setattr(volumes, "PARTS", 4)
    torch.manual_seed(0)
    inputs = torch.randn(2, 2, 2, 7, 11), torch.randn(3, 2, 3, 3, 3), torch.randn(3)
    compare(lambda *x: volumes.convolve_kernel(*x, 1), lambda *x: volumes.convolve(*x, 1), inputs)


def test_a_gradient_whose_layout_is_another():
    """The gradient of a sum is one number that is repeated."""
    x, layer = torch.randn(2, 4, 3, 4, 5, requires_grad=True), Conv3d(4, 16)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    y = x.detach().to(DEVICE).requires_grad_()
    found = volumes.convolve_kernel(y, layer.weight.to(DEVICE), layer.bias.to(DEVICE), 1)
    assert relative(found.detach().cpu(), layer(x).detach()) < 1e-5
    (gradient,) = torch.autograd.grad(found.sum(), y)
    assert relative(gradient.cpu(), expected) < 1e-5


WAYS = [("relu", True, True), ("relu", False, True), ("relu", True, False), ("elu", False, False), (None, True, False)]
SHAPES = [(2, 16, 7, 9), (3, 64, 2, 3), (1, 128, 3, 2), (2, 5, 4, 4)]
LARGE = (1, 16, 50, 45)  # so large that a part has several tiles


@pytest.mark.parametrize(
    "shape, activation, border, added",
    [(shape, *way) for shape in SHAPES for way in WAYS] + [(LARGE, *WAYS[0]), (LARGE, *WAYS[3])],
)
def test_normalisation_of_maps(shape, activation, border, added):
    torch.manual_seed(0)
    size = [side + 2 * border for side in shape[2:]]
    inputs = [3 + 2 * torch.randn(shape), torch.randn(shape[1]), torch.randn(shape[1])]
    inputs += [torch.randn(*shape[:2], *size)] if added else []

    def by(function):
        return lambda x, weight, bias, plus=None: function(x, weight, bias, 1e-5, activation, border, plus)

    compare(by(normalize_kernel), by(normalize), inputs, 1e-4)


def test_normalisation_of_volumes():
    torch.manual_seed(0)
    inputs = [3 + 2 * torch.randn(2, 16, 3, 5, 7), torch.randn(16), torch.randn(16)]

    def by(function):
        return lambda *inputs: function(*inputs, 1e-5, "relu", False, None)

    compare(by(normalize_kernel), by(normalize), inputs, 1e-4)
    assert by(normalize_kernel)(*[x.to(DEVICE) for x in inputs]).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("activation", ["relu", "elu", None])
@pytest.mark.parametrize("function", [normalize, normalize_kernel])
def test_what_is_no_number_stays_so(function, activation):
    x = torch.randn(2, 16, 5, 6, device=DEVICE)
    x[1, 3, 2, 2] = torch.nan
    y = function(x, torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE), 1e-5, activation, True, None)
    assert y[1, 3].isnan().all() and y.isnan().sum() == y[1, 3].numel()


@pytest.mark.parametrize("along", [True, False])
@pytest.mark.parametrize("shape", [(6, 64), (5, 37), (8, 33), (2, 128), (16, 9), (1, 1)])
def test_attention(shape, along):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(*shape, 48, generator=generator)
    periods = shape[0] // 2 if along and shape[0] % 2 == 0 else shape[0]
    mask = (torch.rand(periods, shape[1], generator=generator) > 0.3).float()
    gradient = torch.randn(*shape, 16, generator=generator)
    exact = qkv.double().requires_grad_()
    expected = attention.attention(exact, mask.double(), 4, along)
    (expected_gradient,) = torch.autograd.grad(expected, exact, gradient.double())
    types = [(torch.float32, 1e-5)] + [(torch.bfloat16, 0.02)] * (DEVICE == "cuda")
    for dtype, tolerance in types:
        found, mask_there, gradient_there = [x.to(DEVICE, dtype) for x in (qkv, mask, gradient)]
        result = attention.attention_kernel(found.requires_grad_(), mask_there, 4, along)
        assert relative(result.detach().cpu(), expected.detach()) < tolerance
        (ours,) = torch.autograd.grad(result, found, gradient_there)
        # of one sequence queries and keys have no gradient but rounding
        size = max(x.norm() for x in expected_gradient.chunk(3, -1))
        for part, right in zip(ours.cpu().double().chunk(3, -1), expected_gradient.chunk(3, -1), strict=True):
            assert (part - right).norm() < tolerance * size


@pytest.mark.parametrize("heads, width, along", [(2, 6, True), (3, 4, False), (1, 16, True)])
def test_attention_of_other_heads_is_that_of_torch(heads, width, along):
    """Our kernel does not take them."""
    qkv = torch.randn(5, 7, 3 * heads * width, dtype=torch.float64)
    assert not attention.kernel_takes(qkv, heads, along)
    found = attention.attention(qkv, torch.ones(5, 7, dtype=torch.float64), heads, along)
    query, key, value = qkv.chunk(3, -1)
    if not along:
        query, key, value, found = (x.transpose(0, 1) for x in (query, key, value, found))
    parts = [x.unflatten(-1, (heads, width)).transpose(1, 2) for x in (query, key, value)]
    expected = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected)


@pytest.mark.gpu
def test_attention_is_an_operation_with_a_gradient():
    qkv = torch.randn(8, 64, 48, device="cuda", requires_grad=True)
    torch.library.opcheck(attention._operation, (qkv, torch.ones(8, 64, device="cuda"), True))


@pytest.mark.parametrize("map_size", [(8, 12), (1, 5), (32, 48)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_reading_rows_is_sampling_a_grid(map_size, align_corners):
    torch.manual_seed(0)
    size = (32, 48)
    maps = torch.randn(3, 5, *map_size, dtype=torch.float64, requires_grad=True)
    pixels = torch.rand(3, 40, 2, dtype=torch.float64) * torch.tensor([60.0, 40]) - 4
    pixels[0, 0] = torch.nan
    mask = (torch.rand(3, 40, 1) > 0.2).double()
    expected = read_map(maps, pixels.nan_to_num(-1e9), size, align_corners) * mask
    found = read_rows(maps.permute(0, 2, 3, 1), pixels, mask, size, align_corners)
    torch.testing.assert_close(found[:, 1:], expected[:, 1:])
    assert found.isfinite().all()
    gradients = [torch.autograd.grad(x[:, 1:].sin().sum(), maps, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients)


def room_cameras(rooms, count, size) -> Cameras:
    scene = open_scene("scannet/train_000/black_64", rooms)
    return scaled_cameras(scene.views(scene.frame_ids[:count], depth=False).to("cpu").cameras, size)


def test_agreement_of_views_on_planes(rooms):
    """Of three cameras one looks away, and neither pixels nor planes fill whole tiles."""
    torch.manual_seed(0)
    cameras = room_cameras(rooms, 3, (5, 7))
    cameras.poses[2, [0, 2]] *= -1
    depths = torch.linspace(0.3, 6, 18) * torch.tensor([1, 1.1, 0.9])[:, None]
    neighbours = nearest_views(cameras)
    exact = Cameras(cameras.poses.double(), cameras.Ks.double(), cameras.depth_range.double(), cameras.size)

    def twin(features):
        result = agreement(features, GROUPS, exact, depths.double(), neighbours)
        assert 0.2 < (result != 0).double().mean() < 0.95  # some voxels are seen, and some are not
        return result

    def function(features):
        return agreement_kernel(features, GROUPS, cameras.to(DEVICE), depths.to(DEVICE), neighbours.to(DEVICE))

    compare(function, twin, [torch.randn(3, 32, *cameras.size)], 1e-4)


def test_a_plane_sweep_in_kernels(rooms):
    torch.manual_seed(0)
    cameras = room_cameras(rooms, 2, (3, 3))
    plane_sweep, features = PlaneSweep(32), torch.randn(2, 32, *cameras.size)
    torch.nn.init.normal_(plane_sweep.refine[-1].weight, std=0.01)
    expected = plane_sweep(features, cameras).detach()
    with ALL_KERNELS.at_work(plane_sweep):
        found = plane_sweep.to(DEVICE)(features.to(DEVICE), cameras.to(DEVICE)).detach()
    assert expected.std() > 0.01 and relative(found.cpu() - expected.mean(), expected - expected.mean()) < 1e-4


def test_one_view_agrees_with_nobody():
    cameras = Cameras(torch.eye(4)[None, :3], torch.eye(3)[None], torch.tensor([[0.1, 10.0]]), (4, 5))
    features, depths = torch.randn(1, 32, 4, 5), torch.ones(1, 3)
    neighbours = nearest_views(cameras)
    assert neighbours.shape == (1, 0)
    found = agreement_kernel(features.to(DEVICE), GROUPS, cameras.to(DEVICE), depths.to(DEVICE), neighbours.to(DEVICE))
    assert torch.equal(found.cpu(), torch.zeros(1, GROUPS, 3, 4, 5))
    assert torch.equal(agreement(features, GROUPS, cameras, depths, neighbours), found.cpu())
