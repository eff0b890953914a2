"""Trained networks on real captures, and on rooms of a kind that they were not trained on.

python -m benchmarks.real --models NAME=CHECKPOINT … [--captures data/real/kitchen data/real/hololens] [--rooms KIND=LIST …]
    [--width 320] [--frames 8] --out FOLDER [key=value …]

Captures are those of `benchmarks.captures`. Every network renders their held-out frames from the references with their
depth, and from the same without (where it can), beside what needs no network: the nearest reference copied and warped,
and the splat of all. Classes are compared with those drawn by hand, in nine of them, by one confusion matrix over a
capture. --rooms: lists of test rooms, as `python -m dataset.synthetic` writes them; to train on one kind and test on
the other, give a network trained on each and both lists. FOLDER gets real.md, real.json and panels/. Checkpoints must
hold their config; key=value changes it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import provenance
from dataset.database import configured_scene, list_scenes
from dataset.labels import SCANNET_CLASSES, SCANNET_COLORS
from dataset.render_dataset import TestSet
from dataset.views import Views
from network.backend import Backend
from network.init_net import needs
from network.view_renderer import Encoding, ViewRenderer
from train.baselines import COPIED, SPLATTED, WARPED, baselines
from train.evaluator import evaluate
from train.metrics import class_scores
from train.pictures import Comparison, Picture
from train.run import choose_device, load_trained
from train.scores import Score, summarise
from train.shipped import model_config
from utils.cli import add_overrides, command_parser, run_command
from utils.colors import color_depth
from utils.errors import UserError
from utils.files import write_text
from utils.images import write_image
from utils.logging import say
from utils.panels import grid, legend

NINE = ("wall", "floor", "table", "chair", "sofa", "cabinet", "counter", "door", "other")
PHOTOGRAPH = "photograph"
BASELINES = {COPIED: "nearest, copied", WARPED: "nearest, warped", SPLATTED: "splat of all"}
COLUMNS = {"psnr": ("PSNR", ".2f"), "ssim": ("SSIM", ".3f"), "psnr_holes": ("in holes", ".2f")}
COLUMNS |= {"depth_median": ("depth error", ".1%"), "nine": ("mIoU of nine", ".3f")}
Pictures = dict[str, dict[str, Picture]]  # frame -> method -> what it made of it


class WithoutDepth:
    """A renderer that is not shown the depth of the references."""

    def __init__(self, renderer: ViewRenderer):
        self.network, self.render, self._encode = renderer.network, renderer.render, renderer.encode

    def encode(self, references: Views) -> Encoding:
        return self._encode(replace(references, depth=None))


def main() -> None:
    args = parse()
    content: dict[str, dict[str, dict]] = {}  # scene, or kind of rooms -> method -> numbers
    shown: dict[str, Pictures] = {}
    for name, path in args.models:
        cfg = model_config(path, args.overrides)
        device = choose_device(cfg)
        network, _ = load_trained(cfg, device, str(path))
        renderer = ViewRenderer(network, Backend.for_rendering(cfg.renderer, device), cfg.ray_batch_num)
        for capture in args.captures:
            place = f"{capture}/black_{args.width}"
            pictures = shown.setdefault(capture.name, {})
            rows = score_capture(name, cfg, renderer, place, args.frames, pictures)
            content.setdefault(capture.name, {}).update(rows)
        for kind, file in args.rooms:
            cfg.data_root = str(file.parent)
            scenes = list_scenes(str(file), kind)
            content.setdefault(kind, {}).update(score(name, cfg, renderer, scenes, args.frames, True, {}))
    for capture, pictures in shown.items():
        for frame, methods in pictures.items():
            write_image(args.out / "panels" / f"{capture}_{frame}.jpg", panel(methods))
    write_text(args.out / "real.json", json.dumps(content, indent=2) + "\n")
    write_text(args.out / "real.md", to_markdown(content, f"{provenance(device)}; {args.width} pixels wide"))
    say((args.out / "real.md").read_text())


def parse() -> argparse.Namespace:
    parser = command_parser("python -m benchmarks.real", __doc__)
    parser.add_argument(
        "--models", nargs="+", required=True, type=_named, metavar="NAME=CHECKPOINT", help="networks to score"
    )
    parser.add_argument("--captures", nargs="*", default=[], type=Path, help="folders of captures (default: none)")
    parser.add_argument(
        "--rooms", nargs="*", default=[], type=_named, metavar="KIND=LIST", help="lists of test rooms (default: none)"
    )
    parser.add_argument("--width", type=int, default=320, help="width of the captures in pixels (default: %(default)s)")
    parser.add_argument("--frames", type=int, help="most test frames of each scene (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    add_overrides(parser)
    args = parser.parse_intermixed_args()
    for list_name in ("models", "rooms"):  # what follows them is taken for one, but only they name a file that is there
        given = getattr(args, list_name)
        args.overrides += [f"{name}={path}" for name, path in given if not path.is_file()]
        setattr(args, list_name, [(name, path) for name, path in given if path.is_file()])
    if not args.models:
        raise UserError("--models: none of the checkpoints is there")
    return args


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"'{text}' should be NAME=FILE")
    return name, Path(path)


def score_capture(name: str, cfg, renderer: ViewRenderer, place: str, frames: int | None, pictures: Pictures) -> dict:
    """Return numbers of a network on a capture with and without its depth, as far as it can, and of the baselines."""
    needed = needs(cfg)
    rows = {}
    if needed.reads_depth:
        rows |= score(f"{name}, with depth", cfg, renderer, [place], frames, True, pictures)
    if not needed.depth:
        rows |= score(f"{name}, without depth", cfg, renderer, [place], frames, False, pictures)
    return rows


def score(
    title: str, cfg, renderer: ViewRenderer, scenes: list[str], frames: int | None, depth: bool, pictures: Pictures
) -> dict[str, dict]:
    """Return numbers of a network, under `title`, and of the baselines on test frames of `scenes`. depth: whether the
    network is shown that of the references. `pictures` is given what it made of each frame."""
    needed, count = needs(cfg), cfg.train_dataset_cfg.min_wn
    sets = [TestSet(configured_scene(scene, cfg, depth), count, needed, reference_labels=True) for scene in scenes]
    for test in sets:
        test.split.tests[:] = test.split.tests[:frames]

    def keep(comparison: Comparison) -> None:
        methods = pictures.setdefault(comparison.batch.frame, {PHOTOGRAPH: comparison.truth})
        if SPLATTED not in methods:
            methods |= {SPLATTED: baselines(comparison.batch, len(SCANNET_CLASSES))[SPLATTED]}
        methods[title] = comparison.prediction

    device = next(renderer.network.parameters()).device
    shown = renderer if depth else WithoutDepth(renderer)
    result = evaluate(shown, sets, device, cfg.worker_num, baselines=True, on_comparison=keep)
    titles = {**BASELINES, result.network: title}
    return {titles[method]: numbers(scores) for method, scores in result.scores.items() if method in titles}


def numbers(scores: dict[str, Score]) -> dict[str, float]:
    """Return the scores of a method that are reported, scene by scene."""
    summary = summarise(scores)
    row = {key: summary[key] for key in COLUMNS if key in summary}
    of_scenes = [np.sum(score.matrices, axis=0) for score in scores.values() if score.matrices]
    # where the references have no classes, as in captures, what needs no network has none either
    nine = [class_scores(in_nine(matrix))["miou"] for matrix in of_scenes if matrix[:, :-1].any()]
    return row | ({"nine": float(np.mean(nine))} if nine else {})


def in_nine(matrix: np.ndarray) -> np.ndarray:
    """Merge a confusion matrix of ScanNet's 20 classes, (20, 21), into one of `NINE`, (9, 10): all others are
    "other"."""
    place = np.array([NINE.index(name if name in NINE else "other") for name in SCANNET_CLASSES])
    grouped = np.zeros((len(NINE), len(NINE) + 1), matrix.dtype)
    np.add.at(grouped, (place[:, None], np.append(place, len(NINE))[None]), matrix)
    return grouped


def panel(methods: dict[str, Picture]) -> np.ndarray:
    """Return what each method made of a frame, a row each: colour, classes, depth."""
    depths = [picture.depth for picture in methods.values() if picture.depth is not None]
    known = np.concatenate([depth[depth > 0] for depth in depths])
    near, far = (float(end) for end in np.quantile(known, (0.01, 0.99)))
    rows, present = [], set()
    for method, picture in methods.items():
        row = [(BASELINES.get(method, method), picture.color)]
        if picture.classes is not None and method != SPLATTED:
            row.append(("drawn by hand" if method == PHOTOGRAPH else "classes", SCANNET_COLORS[picture.classes]))
            present |= set(np.unique(picture.classes).tolist())
        elif method == SPLATTED:
            row.append(("", np.full_like(picture.color, 255)))
        if picture.depth is not None:
            row.append((f"depth, {near:.1f} to {far:.1f} m", color_depth(picture.depth, near, far)))
        rows.append(row)
    shown = grid(rows)
    names = [*SCANNET_CLASSES, "none"]
    classes = sorted(present)
    return np.concatenate([shown, legend([names[i] for i in classes], SCANNET_COLORS[classes], shown.shape[1])])


def to_markdown(content: dict[str, dict[str, dict]], about: str) -> str:
    lines = [about, ""]
    for scene, methods in content.items():
        lines += [f"## {scene}", "", "| method | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
        lines += ["|---" * (len(COLUMNS) + 1) + "|"]
        for method in sorted(methods, key=lambda name: name not in BASELINES.values()):
            row = methods[method]
            cells = [format(row[key], form) if key in row else "–" for key, (_, form) in COLUMNS.items()]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
