"""Renders test frames and says how good they are: panels, results.json and results.md."""
from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset.labels import LabelSet
from dataset.loading import load
from dataset.render_dataset import TestSet
from dataset.views import Batch
from network.renderer import Renderer, Rendering
from train.baselines import Picture, nearest_copied, nearest_warped
from train.metrics import class_ious, class_scores, commonest_class, confusion, drop_invalid, psnr, ssim
from utils.colors import color_depth
from utils.config import Setting
from utils.files import write_image, write_text
from utils.panels import grid, legend

KEY_METRICS = {"miou": "miou", "psnr": "psnr", "ssim": "ssim", "total_accuracy": "total_accuracy",
               "class_average_accuracy": "class_average_accuracy", "psnr_nr_fine": "psnr"}
DEFAULTS = {
    "key_metric_name": Setting("miou", str, choices=tuple(KEY_METRICS)),
    "val_metric": ["psnr_ssim", "iou", "vis_img", "vis_sem"],  # all metrics are always there; without vis_* no panels
    "baselines": False,  # also score the nearest reference and the commonest class
}
NETWORK = "S-Ray"
COPIED, WARPED, COMMONEST = "nearest reference, copied", "nearest reference, warped by its depth", "commonest class"
AVERAGINGS = {
    "per_image": "per image, then mean over a scene's images, then over scenes (the published one)",
    "per_scene": "per scene from its pooled confusion matrix, then mean over scenes",
    "pooled": "from one confusion matrix pooled over all images",
    "per_image_dropping_invalid": "as per_image, but pixels predicted \"invalid\" are dropped (as the published code did; flatters)",
}


@dataclass
class Score:
    """Of one method on one scene, image by image: PSNR, SSIM and confusion matrices (the lists may be empty)."""

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    matrices: list[np.ndarray] = field(default_factory=list)

    def add(self, picture: Picture, target: Picture, classes: int) -> None:
        self.psnr.append(psnr(picture.color, target.color))
        self.ssim.append(ssim(picture.color, target.color))
        if picture.classes is not None and target.classes is not None:
            self.matrices.append(confusion(picture.classes, target.classes, classes))


@dataclass
class Evaluation:
    """scores: method -> scene -> Score. ignored: pixels without a class in truth. pixels: of all images."""

    names: tuple[str, ...]
    scores: dict[str, dict[str, Score]]
    ignored: int = 0
    pixels: int = 0

    def key_metric(self, name: str) -> float:
        """The published average of a metric of KEY_METRICS; PSNR where there are no labels."""
        summary = summarise(self.scores[NETWORK])
        key = KEY_METRICS[name]
        return summary[key] if key in summary else summary.get("per_image", {}).get(key, summary["psnr"])


def to_picture(rendering: Rendering, size: tuple[int, int]) -> Picture:
    """A whole rendered image, as uint8 and class numbers (K is "invalid")."""
    color = (rendering.color.clamp(0, 1) * 255).round().to(torch.uint8).reshape(*size, 3).cpu().numpy()
    logits = rendering.logits
    return Picture(color, None if logits is None else logits.argmax(-1).reshape(size).cpu().numpy())


def truth_of(batch: Batch) -> Picture:
    """What the query image shows."""
    color = (batch.query.images[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    labels = batch.query.labels
    return Picture(color, None if labels is None else labels[0].cpu().numpy())


@torch.no_grad()
def evaluate(network: Renderer, sets: list[TestSet], colors: np.ndarray, device, workers: int | None = None,
             folder: Path | None = None, baselines: bool = False, on_panel: Callable[[str, np.ndarray], None] | None = None) -> Evaluation:
    """Renders every test frame of `sets` and scores it.

    colors: (K+1, 3) uint8 of the classes. folder: where panels are written as <scene>/<frame>.jpg, if anywhere.
    on_panel: is given the first panel of each set and its scene's name.
    """
    was_training = network.training
    network.eval()
    labels = next((test.scene.labels for test in sets if test.scene.labels is not None), None)
    methods = [NETWORK, *([COPIED, WARPED] if baselines else [])]
    result = Evaluation(labels.names if labels else (), {method: {} for method in methods})
    total = sum(len(test) for test in sets)
    with ThreadPoolExecutor(4) as writers, tqdm(total=total, desc="evaluating", unit="frame", leave=False) as progress:
        pending = []
        for test in sets:
            scores = {method: result.scores[method].setdefault(test.scene.name, Score()) for method in methods}
            for index, batch in enumerate(load(test, range(len(test)), workers, device)):
                rendering = network.render_view(network.encode(batch.references), batch.query.cameras)
                pictures = {NETWORK: to_picture(rendering, batch.query.cameras.size)}
                if baselines:
                    pictures |= {COPIED: nearest_copied(batch), WARPED: nearest_warped(batch)}
                truth = truth_of(batch)
                for method, picture in pictures.items():
                    scores[method].add(picture, truth, len(result.names))
                if truth.classes is not None:
                    result.ignored += int((truth.classes >= len(result.names)).sum())
                    result.pixels += truth.classes.size
                if folder is not None or (on_panel and index == 0):
                    panel = make_panel(batch, pictures[NETWORK], truth, rendering, colors, labels)
                    if on_panel and index == 0:
                        on_panel(test.scene.name, panel)
                    if folder is not None:
                        path = folder / test.scene.name.replace("/", "_") / f"{batch.frame}.jpg"
                        pending.append(writers.submit(write_image, path, panel))
                progress.update()
        for job in pending:
            job.result()
    if baselines and labels is not None:
        result.scores[COMMONEST] = _commonest(result.scores[NETWORK])
    network.train(was_training)
    return result


def _commonest(scores: dict[str, Score]) -> dict[str, Score]:
    """The score of giving every pixel the class that is commonest in all test frames."""
    matrices = iter(commonest_class([matrix for score in scores.values() for matrix in score.matrices]))
    return {scene: Score(matrices=[next(matrices) for _ in score.matrices]) for scene, score in scores.items()}


def make_panel(batch: Batch, picture: Picture, truth: Picture, rendering: Rendering, colors: np.ndarray,
               labels: LabelSet | None) -> np.ndarray:
    """Truth over prediction: colour, classes and depth, with a legend of the classes that occur."""
    size, (near, far) = batch.query.cameras.size, batch.query.cameras.depth_range[0].tolist()
    depth = rendering.depth.reshape(size).cpu().numpy()
    far = min(far, float(np.quantile(depth, 0.99)) * 1.1 + 1e-3)
    rows = [[("truth", truth.color)], [("prediction", picture.color)]]
    if picture.classes is not None and truth.classes is not None:
        rows[0].append(("classes, truth", colors[truth.classes]))
        rows[1].append(("classes, prediction", colors[picture.classes]))
    if batch.query.depth is not None:
        rows[0].append(("depth, truth", color_depth(batch.query.depth[0, 0].cpu().numpy(), near, far)))
    rows[1].append((f"depth, {near:.1f} to {far:.1f} m", color_depth(depth, near, far)))
    panel = grid(rows)
    if labels is None or picture.classes is None or truth.classes is None:
        return panel
    present = np.union1d(np.unique(truth.classes), np.unique(picture.classes))
    names = [*labels.names, "invalid"]
    return np.concatenate([panel, legend([names[i] for i in present], colors[present], panel.shape[1])])


def summarise(scores: dict[str, Score]) -> dict:
    """Numbers of one method over scenes, by every averaging of AVERAGINGS that it has classes for."""
    summary = {}
    if any(score.psnr for score in scores.values()):
        for name in ("psnr", "ssim"):
            summary[name] = float(np.mean([np.mean(getattr(score, name)) for score in scores.values()]))
    with_classes = [score.matrices for score in scores.values() if score.matrices]
    if with_classes:
        summary["per_image"] = _mean([_mean([class_scores(m) for m in matrices]) for matrices in with_classes])
        summary["per_scene"] = _mean([class_scores(sum(matrices)) for matrices in with_classes])
        summary["pooled"] = class_scores(sum(sum(matrices) for matrices in with_classes))
        summary["per_image_dropping_invalid"] = _mean(
            [_mean([class_scores(drop_invalid(m)) for m in matrices]) for matrices in with_classes])
    return summary


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def report(evaluation: Evaluation, about: dict) -> dict:
    """Everything that results.json holds."""
    scenes = evaluation.scores[NETWORK]
    matrices = [matrix for score in scenes.values() for matrix in score.matrices]
    content = {**about, "averagings": AVERAGINGS, "methods": {method: summarise(scores) for method, scores in evaluation.scores.items()},
               "scenes": {scene: {**summarise({scene: score}), "frames": len(score.psnr)} for scene, score in scenes.items()}}
    if matrices:
        pooled = sum(matrices)
        content["iou_per_class"] = {name: None if np.isnan(iou) else float(iou)
                                    for name, iou in zip(evaluation.names, class_ious(pooled), strict=True)}
        content["pixels"] = {"all": evaluation.pixels, "ignored": evaluation.ignored,
                             "predicted_invalid": int(pooled[:, -1].sum())}
    return content


def write_report(content: dict, folder: Path) -> None:
    """results.json and results.md."""
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "results.md", to_markdown(content))


def to_markdown(content: dict) -> str:
    """The same for reading."""
    lines = [f"# {content['name']}", "", *[f"- {key}: {content[key]}" for key in ("model", "step", "device") if key in content],
             f"- frames: {sum(scene['frames'] for scene in content['scenes'].values())} of {len(content['scenes'])} scenes", "", summary_table(content)]
    network = content["methods"][NETWORK]
    if "per_image" in network:
        lines += ["", "## Three averagings", "", "| averaging | mIoU | accuracy | class accuracy |", "|---|---|---|---|"]
        lines += [f"| {AVERAGINGS[key]} | {_cells(network[key], 'miou', 'total_accuracy', 'class_average_accuracy')} |" for key in AVERAGINGS]
        pixels = content["pixels"]
        lines += ["", f"Of {pixels['all']:,} pixels {pixels['ignored']:,} have no class in truth and are ignored; "
                  f"{pixels['predicted_invalid']:,} were predicted \"invalid\" and count as errors (but in the last row)."]
        lines += ["", "## IoU per class (pooled)", "", "| class | IoU |", "|---|---|"]
        lines += [f"| {name} | {'not there' if iou is None else f'{iou:.3f}'} |" for name, iou in content["iou_per_class"].items()]
    lines += ["", "## Scenes", "", "| scene | frames | PSNR | SSIM | mIoU | accuracy |", "|---|---|---|---|---|---|"]
    lines += [f"| {scene} | {row['frames']} | {row['psnr']:.2f} | {row['ssim']:.3f} | {_cells(row.get('per_image', {}), 'miou', 'total_accuracy')} |"
              for scene, row in content["scenes"].items()]
    return "\n".join(lines) + "\n"


def summary_table(content: dict) -> str:
    """The small table of all methods (mIoU and accuracies per image, as published)."""
    rows = ["| method | PSNR | SSIM | mIoU | accuracy | class accuracy |", "|---|---|---|---|---|---|"]
    for method, summary in content["methods"].items():
        color = f"{summary['psnr']:.2f} | {summary['ssim']:.3f}" if "psnr" in summary else "– | –"
        rows.append(f"| {method} | {color} | {_cells(summary.get('per_image', {}), 'miou', 'total_accuracy', 'class_average_accuracy')} |")
    return "\n".join(rows)


def _cells(values: dict, *names: str) -> str:
    return " | ".join(f"{values[name]:.3f}" if name in values else "–" for name in names)
