"""Preparation of Replica as rendered for Semantic-NeRF, vMAP or NICE-SLAM: verification, and links below data/."""

from __future__ import annotations

import os
from pathlib import Path

from dataset.database import open_scene
from dataset.exports import seems_to_be
from dataset.replica import find_sequences
from utils.errors import UserError
from utils.logging import say


def prepare_replica(source: Path, out: Path) -> bool:
    """Verify each sequence below `source` (Semantic-NeRF's, vMAP's or NICE-SLAM's) and link the scenes into `out` if
    that is another folder.

    Accepts the folder itself, or one that holds Replica/ or replica/. Return False if any sequence is not usable.
    """
    roots = [path for path in (source, source / "Replica", source / "replica") if path.is_dir()]
    scenes = [path for root in roots for path in sorted(root.iterdir()) if path.is_dir()]
    sequences = [(scene, sequence) for scene in scenes for sequence in find_sequences(scene)]
    if not sequences:
        raise UserError(
            f"{source}: has no <scene>/Sequence_1 (nor <scene>/imap/00, <scene>/results); "
            f"give the folder that holds Replica's scenes{seems_to_be(source)}"
        )
    good = True
    for scene, sequence in sequences:
        _link(scene, out / scene.name)
        for beside in ("cam_params.json", "info_semantic.json"):
            if (scene.parent / beside).is_file():
                _link(scene.parent / beside, out / beside)
        good &= _verify(f"{scene.name}/{sequence.relative_to(scene).as_posix()}".removesuffix("/."), out.parent)
    return good


def _verify(name: str, data_root: Path) -> bool:
    """Print the number of frames and missing kinds of a sequence. Return False if it is not usable."""
    try:
        scene = open_scene(f"replica/{name}/black_320", data_root)
        scene.views(scene.frame_ids[:1], depth=True, labels=True)
    except UserError as error:
        say(f"{name}: {error}")
        return False
    absent = [kind for kind in ("depth", "labels") if kind not in scene.kinds]
    say(f"{name}: {len(scene)} frames" + (f", no {', no '.join(absent)}" if absent else ""))
    return True


def _link(scene: Path, target: Path) -> None:
    """Link a scene's folder, or a file beside it. An existing one is kept."""
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(scene.resolve(), target)
