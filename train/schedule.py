"""The optimiser with its two parameter groups, and the learning rate."""

from __future__ import annotations

import torch
from torch import nn

from utils.config import Setting
from utils.errors import UserError

NEW_LAYERS = "_new"  # in the names of S-Ray's own layers
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
DEFAULTS = {
    "optimizer_type": Setting("adam", str, choices=tuple(OPTIMIZERS)),
    "lr_type": Setting("exp_decay", str, choices=("exp_decay",)),
    "lr_cfg": {
        "lr_init": Setting(1e-3, float, minimum=0),
        "decay_step": Setting(5000, int, minimum=1),
        "decay_rate": Setting(0.2, float, minimum=0, maximum=1),
        "lr_min": Setting(5e-5, float, minimum=0),
        "scale_new": Setting(1.0, float, minimum=0),  # the new layers' rate, times this
        "optim_args": {"weight_decay": Setting(1e-5, float, minimum=0)},
    },
}


def build_optimizer(network: nn.Module, cfg) -> torch.optim.Optimizer:
    """Two groups in the published order: the parameters NeuRay has too, and the new ones. One kernel updates all."""
    named = list(network.named_parameters())
    groups = [[parameter for name, parameter in named if (NEW_LAYERS in name) == new] for new in (False, True)]
    return OPTIMIZERS[cfg.optimizer_type](
        [{"params": group} for group in groups],
        lr=cfg.lr_cfg.lr_init,
        weight_decay=cfg.lr_cfg.optim_args.weight_decay,
        fused=True,
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Loads what an optimiser has learned; how it computes stays as it is. Raises UserError if it is of another."""
    try:
        groups = [{**group, "fused": True, "foreach": False} for group in state["param_groups"]]
        optimizer.load_state_dict({**state, "param_groups": groups})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("its optimiser's state does not fit this config; give the run another name") from None


def learning_rate(step: int, lr_cfg) -> float:
    """lr_init x decay_rate ^ (step // decay_step), at least lr_min."""
    return max(lr_cfg.lr_init * lr_cfg.decay_rate ** (step // lr_cfg.decay_step), lr_cfg.lr_min)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, scale_new: float) -> None:
    for group, scale in zip(optimizer.param_groups, (1.0, scale_new), strict=True):
        group["lr"] = rate * scale
