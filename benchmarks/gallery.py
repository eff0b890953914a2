"""Makes the README's pictures.

python -m benchmarks.gallery --model-path MODEL --scene SCENE --without-depth --faithful MODEL --only flight mesh

A flight, a labelled mesh, and the page in the browser (needs playwright and Chromium); with --without-depth the same
where the references' depth is not read, by the same model or one of its own; and the scene's test frames by all of
them, and by the faithful network if one is named, beside the truth: a picture of some, and the numbers of all as
comparison.md. A config that is not named is the one inside the model.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common import model_parser, provenance, session_of
from dataset.render_dataset import TestSet
from train.evaluator import evaluate
from train.metrics import class_scores, confusion, depth_error, psnr, ssim
from train.pictures import Comparison
from utils.cli import run_command
from utils.files import write_text
from utils.images import write_image
from utils.panels import grid, mark_unseen

PORT = 8765
PARTS = ("flight", "mesh", "viewer", "comparison")
SHOWN = 4  # test frames in the picture of the comparison


class Model(NamedTuple):
    """A file of weights, its config (None: inside it), overrides, and the suffix of its pictures' names."""

    path: str
    cfg: str | None
    overrides: list[str]
    ending: str = ""

    @property
    def arguments(self) -> list[str]:
        """Return the arguments for `run_rendering.py`."""
        return [*(["--cfg", self.cfg] if self.cfg else []), "--model-path", self.path, *self.overrides]


def main() -> None:
    parser = model_parser("python -m benchmarks.gallery", __doc__)
    parser.add_argument(
        "--without-depth",
        metavar="MODEL",
        nargs="?",
        const="",
        help="also render without the references' depth, by --model-path or by this model",
    )
    parser.add_argument(
        "--faithful", metavar="MODEL", help="weights of the published network, to compare with (default: none)"
    )
    parser.add_argument(
        "--faithful-cfg", metavar="CFG", help="config of --faithful (default: the config inside its file)"
    )
    parser.add_argument("--scene", required=True, help="database name, or a folder with a transforms.json")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="pictures to make (default: all)")
    parser.add_argument("--out", type=Path, default=Path("imgs"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--seconds", default="6", help="length of the flight (default: %(default)s)")
    parser.add_argument("--views", default="60", help="frames that the mesh is fused of (default: %(default)s)")
    parser.add_argument(
        "--settle",
        type=float,
        default=20,
        help="seconds until the page's picture is at its finest (default: %(default)g)",
    )
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    models = [Model(args.model_path, args.cfg, args.overrides)]
    if args.without_depth is not None:
        overrides = [*args.overrides, "init_net_type=learned_depth", "init_net_cfg.measured_depth=false"]
        models.append(Model(args.without_depth or args.model_path, args.cfg, overrides, "_without_depth"))
    for model in models:
        photograph_all(args, model)
    if "comparison" in args.only:
        faithful = [Model(args.faithful, args.faithful_cfg, args.overrides)] if args.faithful else []
        compare(args, [*models, *faithful])


def photograph_all(args, model: Model) -> None:
    """Make the flight, the mesh and the page of one model."""

    def command(mode: str, *options: str) -> list[str]:
        common = [*model.arguments, "--scene", args.scene]
        return [sys.executable, "run_rendering.py", mode, *common, *options]

    with tempfile.TemporaryDirectory() as folder:
        if "flight" in args.only:
            film = f"{folder}/flight{model.ending}.webp"
            subprocess.run(command("video", "--seconds", args.seconds, "--fps", "10", "--out", film), check=True)
            shutil.copy(film, args.out)
        if "mesh" in args.only:
            mesh = f"{folder}/mesh{model.ending}"
            subprocess.run(command("mesh", "--views", args.views, "--score", "--out", f"{mesh}.ply"), check=True)
            shutil.copy(f"{mesh}.png", args.out)
    if "viewer" in args.only:
        page = subprocess.Popen(command("viewer", "--port", str(PORT)))
        try:
            photograph(f"http://localhost:{PORT}", args.out / f"viewer{model.ending}.png", args.settle)
        finally:
            page.terminate()
            page.wait()


def compare(args, models: list[Model]) -> None:
    """Write comparison.jpg (some test frames: the truth, then each model) and comparison.md (their scores)."""
    shown, rows, frames = {}, [], []
    for model in models:
        session = session_of(model.path, model.cfg, args.scene, model.overrides)
        frames.clear()
        tests = TestSet(session.scene, session.references, session.needs)
        evaluate(session.renderer, [tests], session.device, on_comparison=frames.append)
        title = session.renderer.network.title + model.ending.replace("_", " ")
        shown[title] = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int))]
        colors = session.classes.colors if session.classes else None
        rows += [row_of(title, frame, 0 if colors is None else len(colors) - 1) for frame in frames]
    write_image(args.out / "comparison.jpg", picture(shown, colors))
    rows.sort(key=lambda row: int(row[0]) if row[0].isdigit() else row[0])  # stable: the models in their order
    header = ["frame", "network", "PSNR", "SSIM", "mIoU", "depth error", "seen by a reference"]
    lines = [f"Test frames of {args.scene}, one by one.", "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    text = "\n".join([*lines, "", provenance(session.device)]) + "\n"
    write_text(args.out / "comparison.md", text)
    print(text)


def row_of(title: str, comparison: Comparison, classes: int) -> list[str]:
    """Return a frame's numbers in words. classes: how many there are, the invalid one not counted."""
    ours, truth = comparison.prediction, comparison.truth
    miou = error = "–"
    if ours.classes is not None and truth.classes is not None:
        miou = f"{class_scores(confusion(ours.classes, truth.classes, classes))['miou']:.3f}"
    if truth.depth is not None and truth.depth.any():
        error = f"{depth_error(ours.depth, truth.depth):.1%}"
    values = f"{psnr(ours.color, truth.color):.2f}", f"{ssim(ours.color, truth.color):.3f}"
    return [comparison.batch.frame, title, *values, miou, error, f"{ours.seen.mean():.1%}"]


def picture(shown: dict[str, list[Comparison]], colors: np.ndarray | None) -> np.ndarray:
    """Return the truth above what each network made of the same frames: colours, and below them classes."""
    some = next(iter(shown.values()))
    rows = [[(f"truth, frame {frame.batch.frame}", frame.truth.color) for frame in some]]
    for title, frames in shown.items():
        rows.append([(f"{title}: {psnr(f.prediction.color, f.truth.color):.1f} dB", marked(f)) for f in frames])
    if colors is not None and some[0].truth.classes is not None:
        rows.append([("classes, truth", colors[frame.truth.classes]) for frame in some])
        rows += [[(f"classes, {title}", marked(f, colors)) for f in frames] for title, frames in shown.items()]
    return grid(rows)


def marked(comparison: Comparison, colors: np.ndarray | None = None) -> np.ndarray:
    """Return what was rendered of a frame, or its classes in `colors`, hatched where no reference sees anything."""
    ours = comparison.prediction
    return mark_unseen(ours.color if colors is None else colors[ours.classes], ours.seen)


def photograph(address: str, picture: Path, settle: float) -> None:
    """Save a screenshot of the page with classes laid over colour, after it had time to render."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        tab = browser.new_page(viewport={"width": 1100, "height": 620})
        for _ in range(60):
            try:
                tab.goto(address)
                break
            except Exception:  # it still starts
                time.sleep(2)
        tab.get_by_text("Click on the picture").wait_for(timeout=60_000)
        tab.locator("input[value=colour]").first.click()
        tab.get_by_role("option", name="overlay").click()
        tab.locator(".mantine-Notification-closeButton").first.click()  # that there is no GPU in this browser
        time.sleep(settle)
        tab.mouse.click(380, 400)
        time.sleep(2)
        tab.screenshot(path=str(picture))
        browser.close()


if __name__ == "__main__":
    run_command(main)
