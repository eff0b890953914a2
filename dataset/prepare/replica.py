"""Replica as rendered for Semantic-NeRF: nothing to convert, but to be verified, and found under data/."""

from __future__ import annotations

import os
from pathlib import Path

from dataset.render_dataset import open_scene
from utils.errors import UserError
from utils.logging import say

SEQUENCE_PARTS = ("rgb", "depth", "semantic_class")


def prepare_replica(source: Path, out: Path) -> bool:
    """Verifies each <scene>/Sequence_N below `source` and links the scenes into `out` if that is another folder.

    Accepts the folder itself, or one that holds Replica/ or replica/. Returns False if any sequence is not usable.
    """
    roots = [path for path in (source, source / "Replica", source / "replica") if path.is_dir()]
    sequences = [path for root in roots for path in sorted(root.glob("*/Sequence_*")) if path.is_dir()]
    if not sequences:
        raise UserError(f"{source}: has no <scene>/Sequence_1; give the folder that holds Replica's scenes")
    good = True
    for sequence in sequences:
        _link(sequence.parent, out / sequence.parent.name)
        try:
            scene = open_scene(f"replica/{sequence.parent.name}/{sequence.name}/black_320", out.parent)
            absent = [part for part in SEQUENCE_PARTS if not (sequence / part).is_dir()]
            scene.views(scene.frame_ids[:1], depth=True, labels=True)
            say(
                f"{sequence.parent.name}/{sequence.name}: {len(scene)} frames"
                + (f", no {', '.join(absent)}" if absent else "")
            )
        except UserError as error:
            good = False
            say(f"{sequence.parent.name}/{sequence.name}: {error}")
    return good


def _link(scene: Path, target: Path) -> None:
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(scene.resolve(), target)
