"""Choice of the front end, which provides the geometry of the references.

front_ends/depth.py reads depth maps, front_ends/cost_volume.py sweeps planes over neighbouring views with MVSNet,
front_ends/learned_depth.py predicts depth maps from the references.
"""

from __future__ import annotations

from dataclasses import replace

from dataset.render_dataset import Needs
from network.front_ends import FrontEnd
from network.front_ends.cost_volume import CostVolumeInitNet
from network.front_ends.depth import DepthInitNet
from network.front_ends.learned_depth import LearnedDepthInitNet
from utils.config import Setting

FRONT_ENDS: dict[str, type[FrontEnd]] = {}
DEFAULTS = {
    # geometry of the references from depth maps, from MVSNet's cost volumes, or from depth that the network predicts
    "init_net_type": Setting("depth", str, choices=FRONT_ENDS.keys()),
    FrontEnd.SECTION: {},
}


def register(name: str, front_end: type[FrontEnd]) -> None:
    """Add a front end under a name that `init_net_type` accepts, and its keys to its section of the config."""
    FRONT_ENDS[name] = front_end
    DEFAULTS.setdefault(front_end.SECTION, {}).update(front_end.DEFAULTS)


register("depth", DepthInitNet)
register("cost_volume", CostVolumeInitNet)
register("learned_depth", LearnedDepthInitNet)


def needs(cfg) -> Needs:
    """Return the fields that the references of a batch must have for the network of a config."""
    return replace(
        FRONT_ENDS[cfg.init_net_type].needs(cfg), labels=cfg.reference_classes, known_labels=cfg.use_reference_labels
    )
