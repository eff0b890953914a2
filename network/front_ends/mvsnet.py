"""MVSNet (Yao et al., 2018) in the small form that NeuRay uses: a cost volume of each view from its neighbours.

Batch norm and leaky ReLU, zero padding throughout. Names are those of the published weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dataset.views import Cameras
from network.geometry import pixel_grid

PLANES = 64
FEATURE_STRIDE = 4  # features are at a quarter of the image's size
VOLUME_STRIDE = 8  # the regularisation halves the volume three times
MIN_DEPTH = 1e-4


def _batch_norm(kind, channels: int) -> nn.Module:
    """Return a batch norm without `num_batches_tracked`, which the published weights lack and a fixed momentum does not
    need."""
    layer = kind(channels)
    layer.num_batches_tracked = None
    return layer


class _ConvBlock(nn.Module):
    """Convolution without bias, batch norm, leaky ReLU; `conv` is nn.Conv2d or nn.Conv3d."""

    def __init__(self, conv, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = _batch_norm(nn.BatchNorm2d if conv is nn.Conv2d else nn.BatchNorm3d, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.bn(self.conv(x)), 0.01)


class _Features(nn.Module):
    """Images (N, 3, h, w) -> (N, 32, h/4, w/4)."""

    def __init__(self):
        super().__init__()
        self.conv0 = _ConvBlock(nn.Conv2d, 3, 8)
        self.conv1 = _ConvBlock(nn.Conv2d, 8, 8)
        self.conv2 = _ConvBlock(nn.Conv2d, 8, 16, 5, 2)
        self.conv3 = _ConvBlock(nn.Conv2d, 16, 16)
        self.conv4 = _ConvBlock(nn.Conv2d, 16, 16)
        self.conv5 = _ConvBlock(nn.Conv2d, 16, 32, 5, 2)
        self.conv6 = _ConvBlock(nn.Conv2d, 32, 32)
        self.feature = nn.Conv2d(32, 32, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(self.conv0(x))
        x = self.conv4(self.conv3(self.conv2(x)))
        return self.feature(self.conv6(self.conv5(x)))


def _upsample(in_channels: int, out_channels: int) -> nn.Sequential:
    up = nn.ConvTranspose3d(in_channels, out_channels, 3, 2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(up, _batch_norm(nn.BatchNorm3d, out_channels), nn.LeakyReLU(0.01))


class _Regularisation(nn.Module):
    """A 3D U-Net over the variance volume (N, 32, D, H, W) -> (N, 1, D, H, W); D, H, W multiples of 8."""

    def __init__(self):
        super().__init__()
        self.conv0 = _ConvBlock(nn.Conv3d, 32, 8)
        self.conv1 = _ConvBlock(nn.Conv3d, 8, 16, stride=2)
        self.conv2 = _ConvBlock(nn.Conv3d, 16, 16)
        self.conv3 = _ConvBlock(nn.Conv3d, 16, 32, stride=2)
        self.conv4 = _ConvBlock(nn.Conv3d, 32, 32)
        self.conv5 = _ConvBlock(nn.Conv3d, 32, 64, stride=2)
        self.conv6 = _ConvBlock(nn.Conv3d, 64, 64)
        self.conv7 = _upsample(64, 32)
        self.conv9 = _upsample(32, 16)
        self.conv11 = _upsample(16, 8)
        self.prob = nn.Conv3d(8, 1, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        full = self.conv0(x)
        half = self.conv2(self.conv1(full))
        quarter = self.conv4(self.conv3(half))
        x = self.conv6(self.conv5(quarter))
        x = quarter + self.conv7(x)
        x = half + self.conv9(x)
        return self.prob(full + self.conv11(x))


class MVSNet(nn.Module):
    """Scores PLANES depths for each pixel of each view."""

    def __init__(self):
        super().__init__()
        self.feature = _Features()
        self.cost_regularization = _Regularisation()

    def forward(
        self,
        images: torch.Tensor,
        cameras: Cameras,
        source_images: torch.Tensor,
        source_cameras: Cameras,
        index: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Match normalised images (V, 3, h, w) with those of their sources (N, 3, h, w); index (V, n): the sources of
        each.

        Return the probability of each plane (V, PLANES, h/4, w/4) and the planes' depths (V, PLANES) in metres.
        h and w are multiples of 32.
        """
        features, source_features = self.feature(images), self.feature(source_images)
        planes = plane_depths(cameras.depth_range)
        matrices, source_matrices = _feature_matrices(cameras), _feature_matrices(source_cameras)
        volumes = [
            variance_volume(features[v], source_features[index[v]], matrices[v], source_matrices[index[v]], planes[v])
            for v in range(len(images))
        ]
        scores = torch.cat([self.cost_regularization(volume[None]) for volume in volumes])[:, 0]
        return torch.softmax(scores.nan_to_num(), 1), planes


def plane_depths(depth_range: torch.Tensor) -> torch.Tensor:
    """Return PLANES depths a view (V, PLANES), uniform in 1/z from near to far (V, 2)."""
    steps = torch.linspace(0, 1, PLANES, device=depth_range.device, dtype=depth_range.dtype)
    near, far = (1 / depth_range).unbind(1)
    return 1 / (near[:, None] * (1 - steps) + far[:, None] * steps)


def _feature_matrices(cameras: Cameras) -> torch.Tensor:
    """Return the matrices from the world to pixels of the features, (V, 4, 4)."""
    rows = cameras.Ks @ cameras.poses
    last = torch.zeros_like(rows[:, :1])
    last[..., 3] = 1
    return torch.cat([rows[:, :2] / FEATURE_STRIDE, rows[:, 2:], last], 1)


def variance_volume(
    features: torch.Tensor,
    source_features: torch.Tensor,
    matrix: torch.Tensor,
    source_matrices: torch.Tensor,
    planes: torch.Tensor,
) -> torch.Tensor:
    """Return the variance over a view (C, H, W) and its sources (n, C, H, W) warped to it by each plane: (C, PLANES, H,
    W)."""
    total = features[:, None].expand(-1, PLANES, -1, -1)
    squares = total**2
    for source, source_matrix in zip(source_features, source_matrices, strict=True):
        warped = warp_to_planes(source, source_matrix @ torch.linalg.inv_ex(matrix)[0], planes)
        total, squares = total + warped, squares + warped**2
    count = len(source_features) + 1
    return squares / count - (total / count) ** 2


def warp_to_planes(source: torch.Tensor, transform: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """Warp a source (C, H, W) to a view by the homography of each plane: (C, D, H, W), 0 outside of the source.

    transform: (4, 4) from (x z, y z, z, 1) of the view to the same of the source.
    """
    height, width = source.shape[-2:]
    pixels = pixel_grid(height, width, source.device).to(source.dtype)
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    rays = homogeneous @ transform[:3, :3].T
    moved = rays * planes[:, None, None] + transform[:3, 3]  # (D, H W, 3)
    at = moved[..., :2] / moved[..., 2:].clamp_min(MIN_DEPTH)
    grid = torch.stack([at[..., 0] * (2 / (width - 1)) - 1, at[..., 1] * (2 / (height - 1)) - 1], -1)
    read = F.grid_sample(source[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=True)
    return read[0].unflatten(-1, (height, width))
