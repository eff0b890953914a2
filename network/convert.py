"""Conversion of weights from one file format to another, and inspection of a file.

python -m network.convert inspect FILE            print network, classes, front end, step and metric
python -m network.convert checkpoint FILE OUT     convert a checkpoint (ours, S-Ray's, NeuRay's) to OUT.safetensors and OUT.yaml
python -m network.convert ship FILE OUT           convert a checkpoint of ours to OUT.safetensors to hand on: half precision,
                                                  with the keys of the network, without paths, scenes and schedule
python -m network.convert mvsnet FILE OUT         convert MVSNet's published checkpoint to OUT.safetensors

example: python -m network.convert inspect data/model/sray_plus/model.safetensors
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from network import renderer
from network.weights import SAFETENSORS, Checkpoint, infer_config, load_checkpoint, read_mvsnet, read_pickle
from utils.cli import command_parser, run_command
from utils.errors import UserError
from utils.files import atomic_write, write_text
from utils.logging import say


def main() -> None:
    parser = command_parser("python -m network.convert", __doc__)
    parser.add_argument("action", choices=("inspect", "checkpoint", "ship", "mvsnet"), help="see above")
    parser.add_argument("file", type=Path, help="checkpoint: .pth, .ckpt or .safetensors")
    parser.add_argument("out", type=Path, nargs="?", help="file to write, with any suffix; not for inspect")
    args = parser.parse_args()
    if args.action == "inspect":
        say("\n".join(f"{key:<12} {value}" for key, value in inspect(args.file).items()))
        return
    if args.out is None:
        raise UserError(f"{args.action}: OUT, the file to write, is missing")
    out = args.out.with_suffix(SAFETENSORS)
    if args.action == "mvsnet":
        _write(read_mvsnet(args.file), {}, out)
    elif args.action == "ship":
        ship(args.file, out)
    else:
        checkpoint = load_checkpoint(args.file)
        config = checkpoint.config or infer_config(checkpoint.network)
        _write(checkpoint.network, _about(checkpoint, config), out)
        write_text(out.with_suffix(".yaml"), yaml.safe_dump(config, sort_keys=False))
    say(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB")


def ship(path: Path, out: Path) -> None:
    """Write the weights of a checkpoint in half precision, with what its config says of the network.

    Raise UserError for a checkpoint without a config, or with values that are not finite in half precision.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.config is None:
        raise UserError(f"{checkpoint.path}: has no config inside; without it the weights could not be used")
    network = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in checkpoint.network.items()
    }
    lost = [name for name, tensor in network.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if lost:
        raise UserError(f"{checkpoint.path}: {lost[0]} has values that are not finite in half precision")
    _write(network, _about(checkpoint, portable(checkpoint.config)), out)


def portable(config: dict) -> dict:
    """Return the keys of a config that define the network and the number of its references, without paths or
    schedule."""
    kept = {
        key: config[key]
        for key in (*renderer.DEFAULTS, "depth_range")
        if key in config and key not in renderer.UNTRAINED_KEYS
    }
    count = config["train_dataset_cfg"]["min_wn"]
    return {**kept, "train_dataset_cfg": {"min_wn": count, "max_wn": count + 1}}


def _about(checkpoint: Checkpoint, config: dict) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    about = {"step": str(checkpoint.step), "best_para": repr(checkpoint.best), "config": json.dumps(config)}
    return about | ({"classes": json.dumps(checkpoint.classes)} if checkpoint.classes else {})


def inspect(path: Path) -> dict[str, str]:
    """Return a description of a file: title -> text."""
    if path.suffix != SAFETENSORS:
        content = read_pickle(path)
        if isinstance(content, dict) and "network_state_dict" not in content and "state_dict" in content:
            return {"file": f"{path}: MVSNet weights", "parameters": _count(read_mvsnet(path))}
    checkpoint = load_checkpoint(path)
    if any(name.startswith("cost_regularization.") for name in checkpoint.network):
        return {"file": f"{path}: MVSNet weights", "parameters": _count(checkpoint.network)}
    shown = infer_config(checkpoint.network)
    semantic = "num_classes" in shown
    shown |= {key: checkpoint.config[key] for key in shown if key in (checkpoint.config or {})}
    return {
        "file": f"{path}: {'S-Ray' if semantic else 'NeuRay (no semantic layers)'}",
        "classes": str(shown["num_classes"]) + _named(checkpoint.classes) if semantic else "none",
        "front end": shown["init_net_type"],
        "attention": _attention(shown["agg_net_cfg"]),
        "passes": "coarse and fine" if shown["use_hierarchical_sampling"] else "coarse",
        "step": str(checkpoint.step),
        "best metric": f"{checkpoint.best:.4f}",
        "config": "inside" if checkpoint.config else "not inside (inferred above)",
        "parameters": _count(checkpoint.network),
    }


def _named(classes: tuple[str, ...] | None) -> str:
    return f": {', '.join(classes)}" if classes else ", without names"


def _attention(section: dict) -> str:
    """Return the attention of `agg_net_cfg` in words; the order shows in a config alone."""
    if not section["use_ptrans"]:
        return "none"
    order = {True: ", views first", False: ", rays first", None: ""}[section.get("ptrans_first")]
    return f"Cross-Reprojection Attention{order}"


def _count(tensors: dict[str, torch.Tensor]) -> str:
    return f"{sum(tensor.numel() for tensor in tensors.values()):,} in {len(tensors)} tensors"


def _write(tensors: dict[str, torch.Tensor], about: dict[str, str], path: Path) -> None:
    with atomic_write(path) as temporary:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={"format": "pt", **about},
        )


if __name__ == "__main__":
    run_command(main)
