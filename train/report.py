"""Reports of an evaluation: results.json and results.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from train.baselines import COPIED, OF_FEW_LABELS
from train.evaluator import Evaluation
from train.metrics import class_ious
from train.scores import AVERAGINGS, IMAGE_METRICS, summarise
from utils.files import write_text


def report(evaluation: Evaluation, about: dict) -> dict:
    """Return the content of results.json."""
    scenes = evaluation.network_scores
    matrices = [matrix for score in scenes.values() for matrix in score.matrices]
    of_methods = {
        method: {scene: summarise({scene: score}) for scene, score in scores.items()}
        for method, scores in evaluation.scores.items()
    }
    content = {
        **about,
        "network": evaluation.network,
        "metrics": IMAGE_METRICS,
        "averagings": AVERAGINGS,
        "methods": {method: summarise(scores) for method, scores in evaluation.scores.items()},
        "scenes": {
            scene: {**of_methods[evaluation.network][scene], "frames": len(score.psnr)}
            for scene, score in scenes.items()
        },
        "scenes_of_methods": of_methods,
    }
    if matrices:
        pooled = np.sum(matrices, axis=0)
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
    """Write results.json and results.md."""
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "results.md", to_markdown(content))


def to_markdown(content: dict) -> str:
    """Return the content of results.json as Markdown."""
    lines = [
        f"# {content['name']}",
        "",
        *[f"- {key}: {content[key]}" for key in ("model", "step", "device") if key in content],
        f"- frames: {sum(scene['frames'] for scene in content['scenes'].values())} of {len(content['scenes'])} scenes",
        "",
        summary_table(content),
    ]
    network = content["methods"][content["network"]]
    if "psnr_edges" in network or "psnr_holes" in network:
        lines += _where_it_is_hard(content["methods"])
    if "coverage" in network:
        shown = f"A reference shows {network['coverage']:.1%} of the pixels"
        lines += ["", f"{shown}; the others are guessed, and hatched in the panels."]
    if "per_image" in network:
        lines += _averagings(network, content["pixels"])
        lines += ["", "## IoU per class (pooled)", "", "| class | IoU |", "|---|---|"]
        lines += [
            f"| {name} | {'not there' if iou is None else f'{iou:.3f}'} |"
            for name, iou in content["iou_per_class"].items()
        ]
    return "\n".join([*lines, *_scenes(content["scenes"])]) + "\n"


def _where_it_is_hard(methods: dict[str, dict]) -> list[str]:
    return [
        "",
        "## Where it is hard",
        "",
        "| method | at jumps in depth: PSNR | SSIM | in the splat's holes: PSNR | SSIM |",
        "|---|---|---|---|---|",
        *[
            f"| {method} | {_cell(summary, 'psnr_edges', '.2f')} | {_cell(summary, 'ssim_edges', '.3f')} | "
            f"{_cell(summary, 'psnr_holes', '.2f')} | {_cell(summary, 'ssim_holes', '.3f')} |"
            for method, summary in methods.items()
            if "psnr" in summary
        ],
    ]


def _averagings(network: dict, pixels: dict) -> list[str]:
    return [
        "",
        "## Three averagings",
        "",
        "| averaging | mIoU | accuracy | class accuracy |",
        "|---|---|---|---|",
        *[
            f"| {AVERAGINGS[key]} | {_cells(network[key], 'miou', 'total_accuracy', 'class_average_accuracy')} |"
            for key in AVERAGINGS
        ],
        "",
        f"Of {pixels['all']:,} pixels {pixels['ignored']:,} have no class in truth and are ignored; "
        f'{pixels["predicted_invalid"]:,} were predicted "invalid" and count as errors (but in the last row).',
    ]


def _scenes(scenes: dict[str, dict]) -> list[str]:
    return [
        "",
        "## Scenes",
        "",
        "| scene | frames | PSNR | SSIM | mIoU | accuracy | depth error |",
        "|---|---|---|---|---|---|---|",
        *[
            f"| {scene} | {row['frames']} | {_cell(row, 'psnr', '.2f')} | {_cell(row, 'ssim', '.3f')} | "
            f"{_cells(row.get('per_image', {}), 'miou', 'total_accuracy')} | {_cell(row, 'depth_median', '.1%')} |"
            for scene, row in scenes.items()
        ],
    ]


def summary_table(content: dict) -> str:
    """Return the table of all methods: PSNR, SSIM, mIoU and accuracies per image, as published, and median depth
    error."""
    rows = [
        "| method | PSNR | SSIM | mIoU | accuracy | class accuracy | depth error |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {method} | {_cell(summary, 'psnr', '.2f')} | {_cell(summary, 'ssim', '.3f')} | "
        f"{_cells(summary.get('per_image', {}), 'miou', 'total_accuracy', 'class_average_accuracy')} | "
        f"{_cell(summary, 'depth_median', '.1%')} |"
        for method, summary in content["methods"].items()
    ]
    given = "." if "labels of the references" in content["network"] else ", which a network is not given."
    if OF_FEW_LABELS[COPIED] in content["methods"]:
        rows += [
            "",
            "Classes without a network are the few labels that `few_labels` leaves, each pixel's the nearest in its frame.",
        ]
    elif COPIED in content["methods"]:
        rows += ["", "Classes without a network are the true labels of the references" + given]
    return "\n".join(rows)


def _cells(values: dict, *names: str) -> str:
    return " | ".join(_cell(values, name, ".3f") for name in names)


def _cell(values: dict, name: str, form: str) -> str:
    return format(values[name], form) if name in values else "–"
