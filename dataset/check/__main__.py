"""Checks scenes: `python -m dataset.check scannet/scene0000_00/black_320 …`, or a folder such as data/scannet."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from dataset.capture import capture_file
from dataset.check.consistency import check_consistency
from dataset.check.hints import find_hints
from dataset.check.inventory import take_inventory
from dataset.check.labelling import check_labels
from dataset.check.order import find_order, find_permutation
from dataset.check.outliers import find_outliers
from dataset.check.page import SceneReport, describe, verdict, write_page
from dataset.check.warping import choose_pairs
from dataset.database import SCENE_KINDS, open_scene, scene_name
from dataset.exports import seems_to_be
from dataset.replica import find_sequences
from dataset.scannet import LABEL_IDS
from dataset.scene import SceneName
from utils.cli import command_parser, run_command
from utils.errors import UserError
from utils.logging import say

PAIRS, SHOWN_PAIRS = 12, 4
WIDTH = 240  # of the images that are compared


def main() -> None:
    parser = command_parser(
        "python -m dataset.check",
        "Check scenes for missing or damaged files, and for poses, depth and labels that\n"
        "disagree with each other. Ends with exit code 1 if anything is wrong.",
        "python -m dataset.check scannet/scene0000_00/black_320",
        "python -m dataset.check data/scannet --sample 20",
    )
    parser.add_argument("scenes", nargs="+", metavar="SCENE", help="database name, or a folder that holds scenes")
    parser.add_argument(
        "--data-root", type=Path, default=Path("data"), help="folder of the datasets (default: %(default)s)"
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=100,
        help="number of frames of each scene to decode, 0 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--label-ids",
        choices=LABEL_IDS,
        default="auto",
        help="ids in ScanNet's label maps; auto finds out (default: %(default)s)",
    )
    parser.add_argument(
        "--html", type=Path, default=Path("check.html"), help="page with pictures to write (default: %(default)s)"
    )
    args = parser.parse_args()
    named = [entry for text in args.scenes for entry in find_scenes(text, args.data_root)]
    reports = [
        check_scene(name, root, args.sample, args.label_ids) for name, root in tqdm(named, desc="scenes", unit="scene")
    ]
    for report in reports:
        say_report(report)
    write_page(reports, args.html)
    say(f"\npictures: {args.html}")
    sys.exit(1 if any(report.error or verdict(report) for report in reports) else 0)


def find_scenes(text: str, data_root: Path) -> list[tuple[str, Path]]:
    """Return (database name, data root) of a name, of a capture's folder, or of all scenes in a folder data/<type> or
    of one scene in it."""
    folder = Path(text)
    if not folder.is_dir():
        return [(text, data_root)]
    for level in (folder, folder.parent, folder.parent.parent):
        kind = level.name.lower()
        if kind in SCENE_KINDS and (kind == "transforms" or capture_file(folder) is None):
            below = (
                [folder]
                if level != folder
                else sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
            )
            below = [sequence for path in below for sequence in (find_sequences(path) or [path])]
            if not below:
                break
            return [(f"{kind}/{path.relative_to(level).as_posix()}/black_{WIDTH}", level.parent) for path in below]
    if SceneName.of_folder(text) is not None:
        return [(text, data_root)]
    raise UserError(
        f"{text}: holds no scenes; give a folder such as data/scannet ({', '.join(SCENE_KINDS)}), or database names"
        f"{seems_to_be(folder)}"
    )


def check_scene(name: str, data_root: Path, sample: int, label_ids: str = "auto") -> SceneReport:
    """Check one scene. A scene that cannot be opened has the error in its report."""
    try:
        parsed = scene_name(name)
        place = str(parsed.folder(data_root)) if Path(parsed.path).is_absolute() else name.rpartition("/")[0]
        scene = open_scene(f"{place}/black_{WIDTH}", data_root, label_ids=label_ids)
        inventory = take_inventory(scene, sample)
        pairs = choose_pairs(scene, PAIRS) if scene.has_depth else []
        order = find_order(scene) if scene.has_depth else (None, None)
        labelling = check_labels(scene, pairs)
    except UserError as error:
        return SceneReport(name, str(error))
    shown = tuple(pairs[:: max(1, len(pairs) // SHOWN_PAIRS)][:SHOWN_PAIRS])
    hints = find_hints(scene, inventory, label_ids)
    consistency = check_consistency(pairs, parsed.kind == "transforms", *order)
    if consistency is not None and consistency.geometry_is_wrong:
        consistency = replace(consistency, cause=find_permutation(scene) or consistency.cause)
    elif consistency is not None:
        hints = (*hints, *find_outliers(scene, sample))
    return SceneReport(name, None, inventory, consistency, shown, scene.labels, hints, labelling)


def say_report(report: SceneReport) -> None:
    say(f"\n{report.name}")
    if report.error is not None:
        say(f"  {report.error}")
        return
    for key, value in describe(report.inventory).items():
        say(f"  {key:<24} {value}")
    total = sum(report.inventory.classes.values())
    common = sorted(report.inventory.classes.items(), key=lambda item: -item[1])[:8]
    if total:
        say(f"  {'classes':<24} " + ", ".join(f"{name} {count / total:.0%}" for name, count in common if count))
    if report.consistency is not None:
        c = report.consistency
        say(
            f"  {'frames agree':<24} {c.agreement:.0%} of pixels (best pairs {c.best_agreement:.0%}); "
            f"depth to {c.depth_disagreement:.1%}, colour to {c.color_disagreement:.3f}, its detail to {c.detail:.2f} of 1"
        )
    if report.labelling is not None:
        say(
            f"  {'labels agree':<24} {report.labelling.agreement:.0%} of pixels (best pairs {report.labelling.best_agreement:.0%})"
        )
    for line in verdict(report):
        say(f"  warning: {line}")


if __name__ == "__main__":
    run_command(main)
