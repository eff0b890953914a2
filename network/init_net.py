"""Front ends: what a network knows of the geometry of its references, chosen by `init_net_type`.

Each turns `Views` and their image features into `Geometry`. depth_init_net.py reads depth maps, cost_volume.py
sweeps planes over neighbouring views with MVSNet, learned_depth.py predicts depth maps from the references.
One that does not read image features (`reads_image_features`) runs next to the network that makes them.
"""

from __future__ import annotations

from torch import nn

from dataset.render_dataset import Needs
from network.cost_volume import SOURCES, CostVolumeInitNet
from network.depth_init_net import DepthInitNet
from network.learned_depth import LearnedDepthInitNet
from utils.config import Setting

DEFAULTS = {
    "init_net_type": Setting("depth", str, choices=("depth", "cost_volume", "learned_depth")),
    "init_net_cfg": {"fill_holes": False},  # depth of 0 is unknown; False: it is near, as in the published code
    "mvsnet": {  # of cost_volume
        "frozen": True,
        "weights": Setting(None, str),  # the published mvsnet_pl.ckpt, or safetensors of it
    },
}


def build_init_net(cfg) -> nn.Module:
    """The front end that `init_net_type` names."""
    if cfg.init_net_type == "depth":
        return DepthInitNet(cfg.init_net_cfg.fill_holes)
    if cfg.init_net_type == "cost_volume":
        return CostVolumeInitNet(cfg.mvsnet.frozen)
    return LearnedDepthInitNet()


def needs(cfg) -> Needs:
    """What the references of a batch must have for the front end of a config."""
    if cfg.init_net_type == "depth":
        return Needs(depth=True)
    if cfg.init_net_type == "cost_volume":
        return Needs(sources=SOURCES, supervision=not cfg.mvsnet.frozen)
    return Needs(supervision=True)
