"""Numbers of an evaluation by every averaging, as results.json and results.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from train.evaluator import NETWORK, Evaluation
from train.metrics import class_ious
from train.scores import AVERAGINGS, summarise
from utils.files import write_text


def report(evaluation: Evaluation, about: dict) -> dict:
    """Everything that results.json holds."""
    scenes = evaluation.scores[NETWORK]
    matrices = [matrix for score in scenes.values() for matrix in score.matrices]
    content = {
        **about,
        "averagings": AVERAGINGS,
        "methods": {method: summarise(scores) for method, scores in evaluation.scores.items()},
        "scenes": {scene: {**summarise({scene: score}), "frames": len(score.psnr)} for scene, score in scenes.items()},
    }
    if matrices:
        pooled = sum(matrices)
        content["iou_per_class"] = {
            name: None if np.isnan(iou) else float(iou)
            for name, iou in zip(evaluation.names, class_ious(pooled), strict=True)
        }
        content["pixels"] = {
            "all": evaluation.pixels,
            "ignored": evaluation.ignored,
            "predicted_invalid": int(pooled[:, -1].sum()),
        }
    return content


def write_report(content: dict, folder: Path) -> None:
    """results.json and results.md."""
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "results.md", to_markdown(content))


def to_markdown(content: dict) -> str:
    """The same for reading."""
    lines = [
        f"# {content['name']}",
        "",
        *[f"- {key}: {content[key]}" for key in ("model", "step", "device") if key in content],
        f"- frames: {sum(scene['frames'] for scene in content['scenes'].values())} of {len(content['scenes'])} scenes",
        "",
        summary_table(content),
    ]
    network = content["methods"][NETWORK]
    if "per_image" in network:
        lines += [
            "",
            "## Three averagings",
            "",
            "| averaging | mIoU | accuracy | class accuracy |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {AVERAGINGS[key]} | {_cells(network[key], 'miou', 'total_accuracy', 'class_average_accuracy')} |"
            for key in AVERAGINGS
        ]
        pixels = content["pixels"]
        lines += [
            "",
            f"Of {pixels['all']:,} pixels {pixels['ignored']:,} have no class in truth and are ignored; "
            f'{pixels["predicted_invalid"]:,} were predicted "invalid" and count as errors (but in the last row).',
        ]
        lines += ["", "## IoU per class (pooled)", "", "| class | IoU |", "|---|---|"]
        lines += [
            f"| {name} | {'not there' if iou is None else f'{iou:.3f}'} |"
            for name, iou in content["iou_per_class"].items()
        ]
    lines += ["", "## Scenes", "", "| scene | frames | PSNR | SSIM | mIoU | accuracy |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {scene} | {row['frames']} | {row['psnr']:.2f} | {row['ssim']:.3f} | "
        f"{_cells(row.get('per_image', {}), 'miou', 'total_accuracy')} |"
        for scene, row in content["scenes"].items()
    ]
    return "\n".join(lines) + "\n"


def summary_table(content: dict) -> str:
    """The small table of all methods (mIoU and accuracies per image, as published)."""
    rows = ["| method | PSNR | SSIM | mIoU | accuracy | class accuracy |", "|---|---|---|---|---|---|"]
    for method, summary in content["methods"].items():
        color = f"{summary['psnr']:.2f} | {summary['ssim']:.3f}" if "psnr" in summary else "– | –"
        rows.append(
            f"| {method} | {color} | "
            f"{_cells(summary.get('per_image', {}), 'miou', 'total_accuracy', 'class_average_accuracy')} |"
        )
    return "\n".join(rows)


def _cells(values: dict, *names: str) -> str:
    return " | ".join(f"{values[name]:.3f}" if name in values else "–" for name in names)
