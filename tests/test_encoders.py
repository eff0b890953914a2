"""Layers of the encoders: their kernels against what torch has, in Triton's interpreter without a GPU, and upsampling."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dataset.views import Views
from network import layers
from network.layers import Conv2d, PreActivationBlock, ResUNet, norm, normalize, upsample
from network.renderer import Renderer
from tests.test_passes import DEVICE, relative, scene
from utils.errors import UserError

pytest.importorskip("network.kernels.normalization", reason="needs Triton")


@pytest.fixture
def in_kernels(monkeypatch):
    """Float32 maps go through our kernels on a CPU too; float64 ones never do."""
    monkeypatch.setattr(layers, "in_kernels", lambda x: x.dtype != torch.float64)


def with_gradients(function, *inputs):
    """The result, and the gradients of a fixed sum of it with respect to the inputs and to a module's parameters."""
    parameters = function.parameters() if isinstance(function, torch.nn.Module) else ()
    inputs = [x.detach().requires_grad_() for x in inputs]
    result = function(*inputs)
    weights = torch.linspace(-1, 2, result.numel(), dtype=torch.float64).sin().view(result.shape).to(result)
    return [result, *torch.autograd.grad((result * weights).sum(), [*inputs, *parameters])]


@pytest.mark.parametrize("shape", [(2, 16, 7, 9), (3, 64, 2, 3), (1, 16, 50, 45), (1, 128, 3, 2)])
@pytest.mark.parametrize(
    "activation, border, added",
    [("relu", True, True), ("relu", False, True), ("relu", True, False), ("elu", False, False), (None, True, False)],
)
def test_normalisation_in_kernels(in_kernels, shape, activation, border, added):
    torch.manual_seed(0)
    layer = norm(shape[1]).double()
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    size = [side + 2 * border for side in shape[2:]]
    inputs = [3 + 2 * torch.randn(shape, dtype=torch.float64)]
    inputs += [torch.randn(*shape[:2], *size, dtype=torch.float64)] if added else []

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, plus=None):
            return normalize(self.layer, x, activation, plus, border)

    module = Layer()
    expected = with_gradients(module, *inputs)
    module = module.to(DEVICE, torch.float32)
    for found, right in zip(with_gradients(module, *[x.to(DEVICE).float() for x in inputs]), expected, strict=True):
        assert relative(found.cpu(), right) < 1e-4


@pytest.mark.parametrize("activation", ["relu", "elu", None])
def test_what_is_no_number_stays_so_in_kernels(in_kernels, activation):
    layer, x = norm(16).to(DEVICE), torch.randn(2, 16, 5, 6, device=DEVICE)
    x[1, 3, 2, 2] = torch.nan
    y = normalize(layer, x, activation)
    assert y[1, 3].isnan().all() and y.isnan().sum() == y[1, 3].numel()


@pytest.mark.parametrize("network", ["unet", "block"])
def test_encoders_in_kernels(in_kernels, network):
    torch.manual_seed(0)
    module = ResUNet(Conv2d(3, 16, 7, stride=2), (1, 1, 1)) if network == "unet" else PreActivationBlock(32)
    channels = 3 if network == "unet" else 32
    module, x = module.double(), torch.rand(1, channels, 32, 32, dtype=torch.float64)
    expected = with_gradients(module, x)
    found = with_gradients(module.to(DEVICE, torch.float32), x.to(DEVICE).float())
    assert relative(found[0].cpu(), expected[0]) < 1e-5
    found, expected = (torch.cat([gradient.flatten().cpu() for gradient in of[1:]]) for of in (found, expected))
    assert relative(found, expected) < 1e-4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(2, 5), (7, 6)])
def test_upsampling_is_interpolation_with_a_border(size, layout):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    interpolated = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    expected = F.pad(interpolated, (1, 1, 1, 1), mode="reflect")
    result = upsample(layers.add_border(x).contiguous(memory_format=layout))
    assert result.is_contiguous(memory_format=layout)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("size", [(16, 40), (40, 9)])
def test_images_too_small_to_reflect(config, size):
    network, references, _ = scene(config, (2, 8, 1, {}, False))
    cameras = replace(references.cameras, size=size)
    small = Views(cameras, torch.rand(2, 3, *size), torch.rand(2, 1, *size))
    with pytest.raises(UserError, match=f"{size[1]}x{size[0]} are too small"):
        network.encode(small)


def test_references_are_encoded_in_float32_under_autocast(config):
    network, references, _ = scene(config, (2, 8, 1, {}, False))
    assert isinstance(network, Renderer)
    with torch.no_grad():
        expected = network.encode(references).features
        with torch.autocast("cpu", torch.bfloat16):
            found = network.encode(references).features
    assert torch.equal(found, expected.bfloat16())
