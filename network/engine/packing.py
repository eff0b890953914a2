"""The weights of a stage as the views' kernel reads them: matrices and vectors by number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from network.cranet import CRANet
from network.dist_decoder import DistDecoder
from network.ops.language import tl
from network.stage import Stage

OWN = 3 + 32  # of what a view shows: colour and image features
STATISTICS = 4 * OWN  # mean and variance over the views by trust, then with all views alike
TRUST = 8  # channels of neuray_fc

SLOT, WIDE = tl.constexpr(64 * 64), tl.constexpr(64)  # of one layer: its matrix (inputs, outputs), its vector

# A decoder's first and second layer, and its last; a mean and variance stand one behind the other.
MEAN_DECODER, VAR_DECODER, WEIGHT_DECODER, VISIBILITY_DECODER = (tl.constexpr(3 * i) for i in range(4))
EMBED, TRUST_FIRST, TRUST_LAST = (tl.constexpr(12 + i) for i in range(3))
DIRECTION_COLOR, DIRECTION_FEATURES = tl.constexpr(15), tl.constexpr(16)
TRUSTED_COLOR, TRUSTED_FEATURES, UNIFORM_COLOR, UNIFORM_FEATURES = (tl.constexpr(17 + 2 * i) for i in range(4))
BASE_COLOR, BASE_FEATURES, BASE_EMBED, BASE_LAST = (tl.constexpr(25 + i) for i in range(4))
VIS_FIRST, VIS_RESIDUAL, VIS_NUMBER, VIS2_FIRST, VIS2_LAST = (tl.constexpr(29 + i) for i in range(5))
GEOMETRY_MEAN, GEOMETRY_VARIANCE, GEOMETRY_LAST = (tl.constexpr(34 + i) for i in range(3))
RGB_FIRST, RGB_SECOND, RGB_LAST = (tl.constexpr(37 + i) for i in range(3))
DIRECTION, RGB_DIRECTION = tl.constexpr(40), tl.constexpr(41)
MATRICES = tl.constexpr(42)
# Vectors that are no bias of a matrix but weights of single inputs.
EMBED_HIT, EMBED_VISIBLE, GEOMETRY_SHARE, RGB_VISIBILITY = (tl.constexpr(42 + i) for i in range(4))
VECTORS = 46
COLOR = tl.constexpr(4)  # the first of the three columns that are colour, among what a view sees (`projection.py`)


@dataclass(frozen=True)
class Weights:
    """matrices (MATRICES, SLOT), and as many again of what they lack where products are to float32's precision, float16;
    vectors (VECTORS, WIDE), in the type of activations. surfaces: the references' depth says where rays end, no decoder."""

    matrices: torch.Tensor
    vectors: torch.Tensor
    use_vis: bool
    surfaces: bool


class _Table:
    """Matrices and vectors by number, before they are laid side by side."""

    def __init__(self):
        self.matrices: dict[int, torch.Tensor] = {}
        self.vectors: dict[int, torch.Tensor] = {}

    def layer(
        self, number: tl.constexpr, weight: torch.Tensor, bias: torch.Tensor | None = None, outputs: int | None = None
    ) -> None:
        """Pack a layer (out, in), with zeros to `outputs`, and to a multiple of 16 inputs."""
        weight = F.pad(weight, (0, -weight.shape[1] % 16, 0, (outputs or len(weight)) - len(weight)))
        self.matrices[number.value] = weight.T
        if bias is not None:
            self.vector(number, bias)

    def vector(self, number: tl.constexpr, values: torch.Tensor) -> None:
        self.vectors[number.value] = values

    @staticmethod
    def side_by_side(parts: dict[int, torch.Tensor], count: int, width: int) -> torch.Tensor:
        packed = torch.zeros(count, width)
        for number, values in parts.items():
            packed[number, : values.numel()] = values.detach().float().cpu().reshape(-1)
        return packed


def pack(stage: Stage, dtype: torch.dtype) -> Weights:
    """Return the weights of a stage, for activations of `dtype`: float16, or float32 for products to its precision."""
    table = _Table()
    if stage.dist_decoder is not None:
        _pack_decoders(table, stage.dist_decoder)
    _pack_embedding(table, stage)
    _pack_views(table, stage.agg_net.agg_impl)
    _pack_samples(table, stage.agg_net.agg_impl)
    device = next(stage.agg_net.parameters()).device
    matrices = table.side_by_side(table.matrices, MATRICES.value, SLOT.value)
    packed = matrices.half()
    if dtype == torch.float32:
        packed = torch.cat([packed, (matrices - packed.float()).half()])
    vectors = table.side_by_side(table.vectors, VECTORS, WIDE.value).to(dtype)
    use_vis = getattr(stage.dist_decoder, "vis_decoder", None) is not None
    return Weights(packed.to(device), vectors.to(device), use_vis, stage.dist_decoder is None)


def _pack_decoders(table: _Table, decoder: DistDecoder) -> None:
    """Pack the last layers in four columns: both components at the near end of a sample, then both at its far end."""
    numbers = MEAN_DECODER, VAR_DECODER, WEIGHT_DECODER, VISIBILITY_DECODER
    networks = decoder.mean_decoder, decoder.var_decoder, decoder.aw_decoder, decoder.vis_decoder
    for number, network in zip(numbers, networks, strict=True):
        if network is None:
            continue
        table.layer(number, network[0].weight, network[0].bias)
        table.layer(tl.constexpr(number.value + 1), network[2].weight, network[2].bias)
        weight, bias = network[4].weight, network[4].bias
        if number is WEIGHT_DECODER:  # the second component weighs 1 - sigmoid(x), which is sigmoid(-x)
            weight, bias = torch.cat([weight, -weight]), torch.cat([bias, -bias])
        times = 4 // len(weight)
        table.layer(tl.constexpr(number.value + 2), weight.repeat(times, 1), bias.repeat(times), 16)


def _pack_embedding(table: _Table, stage: Stage) -> None:
    impl, embed = stage.agg_net.agg_impl, stage.agg_net.prob_embed
    table.layer(EMBED, embed[0].weight[:, :32], embed[0].bias)
    table.vector(EMBED_HIT, embed[0].weight[:, 32])
    table.vector(EMBED_VISIBLE, embed[0].weight[:, 33])
    weight, bias = _folded_embedding(impl, embed[2])
    table.layer(TRUST_FIRST, weight[:TRUST], bias[:TRUST], 16)
    table.layer(TRUST_LAST, impl.neuray_fc[2].weight, impl.neuray_fc[2].bias, 16)
    table.layer(BASE_EMBED, weight[TRUST:], bias[TRUST:])


def _folded_embedding(impl: CRANet, last: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `prob_embed`'s last layer and those that read it, neuray_fc's and base_fc's first, as one layer: all are
    linear."""
    readers = torch.cat([impl.neuray_fc[0].weight, impl.base_fc[0].weight[:, STATISTICS + OWN :]])
    biases = torch.cat([impl.neuray_fc[0].bias, impl.base_fc[0].bias])
    with torch.autocast(readers.device.type, enabled=False):
        return readers @ last.weight, readers @ last.bias + biases


def _pack_views(table: _Table, impl: CRANet) -> None:
    """Return what is computed for each view."""
    first, last = linear_layers(impl.ray_dir_fc)
    table.layer(DIRECTION, first.weight, first.bias)
    at_color = COLOR.value, 16 - 3 - COLOR.value
    table.layer(DIRECTION_COLOR, F.pad(last.weight[:3], (0, 0, *at_color)), F.pad(last.bias[:3], at_color))
    table.layer(DIRECTION_FEATURES, last.weight[3:], last.bias[3:])
    first, last = linear_layers(impl.base_fc)
    table.layer(BASE_COLOR, F.pad(first.weight[:, STATISTICS : STATISTICS + 3], (COLOR.value, 0)))
    table.layer(BASE_FEATURES, first.weight[:, STATISTICS + 3 : STATISTICS + OWN])
    table.layer(BASE_LAST, last.weight, last.bias)
    first, last = linear_layers(impl.vis_fc)
    table.layer(VIS_FIRST, first.weight, first.bias)
    table.layer(VIS_RESIDUAL, last.weight[:32], last.bias[:32])
    table.layer(VIS_NUMBER, last.weight[32:], last.bias[32:], 16)
    first, last = linear_layers(impl.vis_fc2)
    table.layer(VIS2_FIRST, first.weight, first.bias)
    table.layer(VIS2_LAST, last.weight, last.bias, 16)
    first, second, last = linear_layers(impl.rgb_fc)
    table.layer(RGB_FIRST, first.weight[:, :32], first.bias)
    table.vector(RGB_VISIBILITY, first.weight[:, 32])
    table.layer(RGB_DIRECTION, first.weight[:, 33:])
    table.layer(RGB_SECOND, second.weight, second.bias, 16)
    table.layer(RGB_LAST, last.weight, last.bias, 16)


def _pack_samples(table: _Table, impl: CRANet) -> None:
    """Return what is computed of statistics over the views: base_fc's part of them, and geometry_fc."""
    statistics = impl.base_fc[0].weight[:, :STATISTICS].split(OWN, 1)  # mean and variance by trust, then uniform
    numbers = (TRUSTED_COLOR, TRUSTED_FEATURES), (UNIFORM_COLOR, UNIFORM_FEATURES)
    for index, part in enumerate(statistics):
        color, features = numbers[index // 2]
        table.layer(tl.constexpr(color.value + index % 2), F.pad(part[:, :3], (COLOR.value, 0)))
        table.layer(tl.constexpr(features.value + index % 2), part[:, 3:])
    first, last = linear_layers(impl.geometry_fc)
    table.layer(GEOMETRY_MEAN, first.weight[:, :32], first.bias)
    table.layer(GEOMETRY_VARIANCE, first.weight[:, 32:64])
    table.vector(GEOMETRY_SHARE, first.weight[:, 64])
    table.layer(GEOMETRY_LAST, last.weight, last.bias)


def linear_layers(network: torch.nn.Sequential) -> list[torch.nn.Linear]:
    """Return the linear layers between the activations, in order."""
    return [layer for layer in network if isinstance(layer, torch.nn.Linear)]
