"""The kernels of the learned depth, in Triton's interpreter without a GPU, against what torch has."""

import pytest
import torch
import torch.nn.functional as F

from dataset.render_dataset import open_scene
from dataset.views import Cameras
from network import layers
from network.layers import Conv3d, normalize
from network.learned_depth import GROUPS, PlaneSweep, agreement, nearest_views, scaled_cameras
from tests.test_encoders import with_gradients
from tests.test_passes import DEVICE, relative

volumes = pytest.importorskip("network.kernels.volumes", reason="needs Triton")
sweep = pytest.importorskip("network.kernels.sweep")


def compare(function, twin, inputs, tolerance=1e-5):
    """Values and gradients of float32 `function` against those of float64 `twin`."""
    expected = with_gradients(twin, *[x.double() for x in inputs])
    for found, right in zip(with_gradients(function, *[x.to(DEVICE) for x in inputs]), expected, strict=True):
        assert found.isfinite().all() and relative(found.cpu(), right) < tolerance


@pytest.mark.parametrize(
    "c_in, c_out, dilation, size",
    [
        (4, 16, 1, (5, 6, 7)),
        (16, 16, 2, (6, 9, 5)),
        (16, 1, 1, (4, 3, 6)),
        (2, 3, 1, (1, 1, 2)),
        (16, 16, 2, (3, 20, 11)),
    ],
)
def test_convolutions_of_volumes(c_in, c_out, dilation, size):
    torch.manual_seed(0)
    inputs = torch.randn(2, c_in, *size), torch.randn(c_out, c_in, 3, 3, 3), torch.randn(c_out)

    def twin(x, weight, bias):
        return F.conv3d(x, weight, bias, padding=dilation, dilation=dilation)

    compare(lambda *inputs: volumes.convolve(*inputs, dilation), twin, inputs)


def test_a_gradient_whose_layout_is_another():
    """The gradient of a sum is one number that is repeated."""
    x, layer = torch.randn(2, 4, 3, 4, 5, requires_grad=True), Conv3d(4, 16)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    y = x.detach().to(DEVICE).requires_grad_()
    found = volumes.convolve(y, layer.weight.to(DEVICE), layer.bias.to(DEVICE), 1)
    assert relative(found.detach().cpu(), layer(x).detach()) < 1e-5
    (gradient,) = torch.autograd.grad(found.sum(), y)
    assert relative(gradient.cpu(), expected) < 1e-5


def test_normalised_volumes(monkeypatch):
    torch.manual_seed(0)
    layer = torch.nn.InstanceNorm3d(16, affine=True)
    torch.nn.init.normal_(layer.weight)
    x = 3 + 2 * torch.randn(2, 16, 3, 5, 7)
    twin = layer.double()
    expected = torch.relu(twin(x.double()))
    monkeypatch.setattr(layers, "has_kernels", lambda x: x.dtype != torch.float64)
    found = normalize(layer.to(DEVICE, torch.float32), x.to(DEVICE), "relu", border=False)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert relative(found.detach().cpu(), expected.detach()) < 1e-5


def room_cameras(rooms, count, size) -> Cameras:
    scene = open_scene("scannet/train_000/black_64", rooms)
    return scaled_cameras(scene.views(scene.frame_ids[:count], depth=False).to("cpu").cameras, size)


def test_agreement_of_views_on_planes(rooms):
    """Of four cameras one looks away, and pixels do not fill whole tiles."""
    torch.manual_seed(0)
    cameras = room_cameras(rooms, 4, (5, 7))
    cameras.poses[3, [0, 2]] *= -1
    depths = torch.linspace(0.3, 6, 20) * torch.tensor([1, 1.1, 0.9, 1.2])[:, None]
    neighbours = nearest_views(cameras)
    exact = Cameras(cameras.poses.double(), cameras.Ks.double(), cameras.depth_range.double(), cameras.size)

    def twin(features):
        result = agreement(features, GROUPS, exact, depths.double(), neighbours)
        assert 0.2 < (result != 0).double().mean() < 0.95  # some voxels are seen, and some are not
        return result

    def function(features):
        return sweep.agreement(features, GROUPS, cameras.to(DEVICE), depths.to(DEVICE), neighbours.to(DEVICE))

    compare(function, twin, [torch.randn(4, 32, *cameras.size)], 1e-4)


def test_a_plane_sweep_in_kernels(rooms, monkeypatch):
    torch.manual_seed(0)
    cameras = room_cameras(rooms, 2, (4, 5))
    plane_sweep, features = PlaneSweep(), torch.randn(2, 32, *cameras.size)
    torch.nn.init.normal_(plane_sweep.refine[-1].weight, std=0.01)
    expected = plane_sweep(features, cameras).detach()
    monkeypatch.setattr(layers, "has_kernels", lambda x: True)
    found = plane_sweep.to(DEVICE)(features.to(DEVICE), cameras.to(DEVICE)).detach()
    assert expected.std() > 0.01 and relative(found.cpu() - expected.mean(), expected - expected.mean()) < 1e-4


def test_one_view_agrees_with_nobody():
    cameras = Cameras(torch.eye(4)[None, :3], torch.eye(3)[None], torch.tensor([[0.1, 10.0]]), (4, 5))
    features, depths = torch.randn(1, 32, 4, 5), torch.ones(1, 3)
    neighbours = nearest_views(cameras)
    assert neighbours.shape == (1, 0)
    found = sweep.agreement(features.to(DEVICE), GROUPS, cameras.to(DEVICE), depths.to(DEVICE), neighbours.to(DEVICE))
    assert torch.equal(found.cpu(), torch.zeros(1, GROUPS, 3, 4, 5))
    assert torch.equal(agreement(features, GROUPS, cameras, depths, neighbours), found.cpu())


def test_volumes_pass_all_layers():
    torch.manual_seed(0)
    plane_sweep, x = PlaneSweep(), torch.randn(2, GROUPS, 6, 4, 5)
    for layer in plane_sweep.regularise:
        if isinstance(layer, torch.nn.InstanceNorm3d):
            torch.nn.init.normal_(layer.bias)
    torch.testing.assert_close(plane_sweep._regularised(x), plane_sweep.regularise(x)[:, 0])
