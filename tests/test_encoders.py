"""The encoders: in kernels as without (in Triton's interpreter where there is no GPU), upsampling, sizes, precision."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dataset.views import Views
from network.layers import Conv2d, PreActivationBlock, ResUNet, upsample
from network.ops.normalize import add_border
from network.renderer import Renderer
from tests.test_ops import ALL_KERNELS, with_gradients
from tests.test_passes import DEVICE, relative, scene
from utils.errors import UserError


@pytest.mark.parametrize("network", ["unet", "block"])
def test_encoders_in_kernels(network):
    torch.manual_seed(0)
    module = ResUNet(Conv2d(3, 16, 7, stride=2), (1, 1, 1)) if network == "unet" else PreActivationBlock(32)
    channels = 3 if network == "unet" else 32
    module, x = module.double(), torch.rand(1, channels, 32, 32, dtype=torch.float64)
    expected = with_gradients(module, x)
    with ALL_KERNELS.at_work(module):
        found = with_gradients(module.to(DEVICE, torch.float32), x.to(DEVICE).float())
    assert network == "block" or found[0].is_contiguous(memory_format=torch.channels_last)
    assert relative(found[0].cpu(), expected[0]) < 1e-5
    found, expected = (torch.cat([gradient.flatten().cpu() for gradient in of[1:]]) for of in (found, expected))
    assert relative(found, expected) < 1e-4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(2, 5), (7, 6)])
def test_upsampling_is_interpolation_with_a_border(size, layout):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    interpolated = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    expected = F.pad(interpolated, (1, 1, 1, 1), mode="reflect")
    result = upsample(add_border(x).contiguous(memory_format=layout))
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
