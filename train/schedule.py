"""The optimiser with its two parameter groups, and the learning rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from utils.config import Setting
from utils.errors import UserError

NEW_LAYERS = "_new"  # in the names of S-Ray's own layers
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
DEFAULTS = {
    "optimizer_type": Setting("adam", str, choices=tuple(OPTIMIZERS)),  # optimiser of torch.optim
    # exp_decay: lr_init x decay_rate ^ (step // decay_step); cosine: from lr_init to lr_min at total_step
    "lr_type": Setting("exp_decay", str, choices=("exp_decay", "cosine")),
    "lr_cfg": {
        "lr_init": Setting(1e-3, float, minimum=0),  # the highest learning rate
        "warmup_steps": Setting(0, int, minimum=0),  # number of steps over which the rate rises linearly
        "decay_step": Setting(5000, int, minimum=1),  # steps between two decays of exp_decay
        "decay_rate": Setting(0.2, float, minimum=0, maximum=1),  # factor of each decay of exp_decay
        "lr_min": Setting(5e-5, float, minimum=0),  # lowest learning rate, except during warm-up
        "scale_new": Setting(1.0, float, minimum=0),  # factor of the rate of S-Ray's own layers, which NeuRay lacks
        "optim_args": {"weight_decay": Setting(1e-5, float, minimum=0)},  # weight decay of the optimiser
    },
}


def build_optimizer(network: nn.Module, cfg) -> torch.optim.Optimizer:
    """Build a fused optimiser with two parameter groups in the published order: NeuRay's parameters, and S-Ray's
    own."""
    named = list(network.named_parameters())
    groups = [[parameter for name, parameter in named if (NEW_LAYERS in name) == new] for new in (False, True)]
    kind, options = OPTIMIZERS[cfg.optimizer_type], {"fused": True}
    rate = cfg.lr_cfg.lr_init
    if named[0][1].is_cuda:  # a recorded step reads the rate from the device
        rate = torch.tensor(rate, device=named[0][1].device)
        options |= {} if kind is torch.optim.SGD else {"capturable": True}
    return kind(
        [{"params": group, "lr": rate if isinstance(rate, float) else rate.clone()} for group in groups],
        lr=rate,
        weight_decay=cfg.lr_cfg.optim_args.weight_decay,
        **options,
    )


# options of a parameter group that follow from the config and the device, not from the checkpoint
COMPUTED = ("lr", "weight_decay", "decoupled_weight_decay", "fused", "foreach", "capturable")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load an optimiser's state, but keep its own options (`COMPUTED`). Raise UserError if the state does not fit."""
    try:
        own = [{key: group[key] for key in COMPUTED if key in group} for group in optimizer.param_groups]
        if any(("betas" in group) != ("betas" in optimizer.defaults) for group in state["param_groups"]):
            raise ValueError("Adam's and SGD's states have other entries")
        groups = [{**theirs, **ours} for theirs, ours in zip(state["param_groups"], own, strict=True)]
        optimizer.load_state_dict({**state, "param_groups": groups})
        for group, ours in zip(optimizer.param_groups, own, strict=True):
            group.update(ours)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("its optimiser's state does not fit this config; give the run another name") from None


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict:
    """Return the state dict of an optimiser, with learning rates as floats."""
    state = optimizer.state_dict()
    return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def learning_rate(step: int, cfg) -> float:
    """Return the learning rate of step `step`, counted from 0.

    exp_decay: lr_init x decay_rate ^ (step // decay_step), at least lr_min. cosine: half a cosine from lr_init to
    lr_min at total_step. Both rise linearly over the first `warmup_steps`.
    """
    rates = cfg.lr_cfg
    if cfg.lr_type == "cosine":
        fall = (1 + math.cos(math.pi * min(1, step / cfg.total_step))) / 2
        rate = rates.lr_min + (rates.lr_init - rates.lr_min) * fall
    else:
        rate = max(rates.lr_init * rates.decay_rate ** (step // rates.decay_step), rates.lr_min)
    return rate * min(1, (step + 1) / max(rates.warmup_steps, 1))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, scale_new: float) -> None:
    """Set the rate of the first parameter group, and `scale_new` times the rate in the second one."""
    for group, scale in zip(optimizer.param_groups, (1.0, scale_new), strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate * scale)
        else:
            group["lr"] = rate * scale
