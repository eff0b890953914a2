"""Rendering and scoring of test frames."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import ConcatDataset
from tqdm import tqdm

from dataset.labels import LabelSet
from dataset.loading import load
from dataset.render_dataset import TestSet
from dataset.views import Batch
from network.ops.splat import splat_depth
from network.view_renderer import ViewRenderer
from train.baselines import baselines as make_baselines
from train.baselines import without_hidden_depth
from train.metrics import depth_edges
from train.pictures import Comparison, Picture, counted, first_picture, to_picture
from train.scores import Score, score_commonest_class, summarise
from utils.config import Setting

KEY_METRICS = {
    "miou": "miou",
    "psnr": "psnr",
    "ssim": "ssim",
    "total_accuracy": "total_accuracy",
    "class_average_accuracy": "class_average_accuracy",
    "psnr_nr_fine": "psnr",
}
DEFAULTS = {
    "key_metric_name": Setting("miou", str, choices=tuple(KEY_METRICS)),  # metric that selects model_best.pth
    # vis_*: write panels; all metrics are always computed
    "val_metric": ["psnr_ssim", "iou", "vis_img", "vis_sem"],
    "baselines": False,  # score baselines too: copied, warped and splatted references, and the most frequent class
}
COMMONEST = "commonest class"


@dataclass
class Evaluation:
    """Result of an evaluation.

    names: of the K classes. network: name of the method that is the network. scores: method -> scene -> Score. ignored:
    number of pixels without a true class. pixels: number of pixels of all images.
    """

    names: tuple[str, ...]
    network: str
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    ignored: int = 0
    pixels: int = 0

    @property
    def network_scores(self) -> dict[str, Score]:
        """Return scene -> scores of the network."""
        return self.scores.get(self.network, {})

    def add(self, pictures: dict[str, Picture], comparison: Comparison) -> None:
        """Score what each method made of a frame."""
        regions = hard_regions(comparison.batch)
        for method, picture in pictures.items():
            score = self.scores.setdefault(method, {}).setdefault(comparison.batch.scene, Score())
            score.add(*counted(picture, comparison.truth, comparison.batch, len(self.names)), len(self.names), regions)
        if comparison.truth.classes is not None:
            self.ignored += int((comparison.truth.classes >= len(self.names)).sum())
            self.pixels += comparison.truth.classes.size

    @staticmethod
    def merge(parts: list[Evaluation]) -> Evaluation:
        """Merge the evaluations of n processes into that of a single one. Process i % n has scored frame i of each
        scene."""
        first = parts[0]
        scores = {
            method: {
                scene: Score.interleave([part.scores[method][scene] for part in parts if scene in part.scores[method]])
                for scene in first.scores[method]
            }
            for method in first.scores
        }
        return Evaluation(
            first.names,
            first.network,
            scores,
            ignored=sum(part.ignored for part in parts),
            pixels=sum(part.pixels for part in parts),
        )

    def key_metric(self, name: str) -> float:
        """Return the published average of a metric of KEY_METRICS; PSNR if there are no labels."""
        summary = summarise(self.network_scores)
        key = KEY_METRICS[name]
        return summary[key] if key in summary else summary.get("per_image", {}).get(key, summary["psnr"])


@torch.no_grad()
def evaluate(
    renderer: ViewRenderer,
    sets: list[TestSet],
    device,
    workers: int | None = None,
    baselines: bool = False,
    on_comparison: Callable[[Comparison], None] | None = None,
    share: tuple[int, int] = (0, 1),
) -> Evaluation:
    """Render and score all test frames of `sets`. baselines: score them too. on_comparison: called with each
    comparison.

    share: (i, n), only the frames i, i + n, i + 2n, … of each set.
    """
    labels = labels_of(sets)
    result = Evaluation(labels.names if labels else (), renderer.network.title)
    everything = ConcatDataset(sets)
    starts = [0, *everything.cumulative_sizes]
    indices = [i for start, end in pairwise(starts) for i in range(start + share[0], end, share[1])]

    def score(comparison: Comparison) -> None:
        others = make_baselines(comparison.batch, len(result.names)) if baselines else {}
        result.add({result.network: comparison.prediction, **others}, comparison)
        if on_comparison is not None:
            on_comparison(comparison)

    bar = tqdm(total=len(indices), desc="evaluating", unit="frame", leave=False, disable=share[0] > 0)
    # One frame is scored, in order, while the next is rendered.
    with bar as progress, ThreadPoolExecutor(1) as background:
        scoring = None
        for index, batch in zip(indices, load(everything, indices, workers, device), strict=True):
            rendering = renderer.render(renderer.encode(batch.references), batch.query.cameras)
            picture = to_picture(rendering, batch.query.cameras.size)
            if scoring is not None:
                scoring.result()
            comparison = Comparison(
                batch, result.network, prediction=picture, truth=first_picture(batch.query), first=index in starts
            )
            scoring = background.submit(score, comparison)
            progress.update()
        if scoring is not None:
            scoring.result()
    if baselines and labels is not None:
        result.scores[COMMONEST] = score_commonest_class(result.network_scores)
    return result


def hard_regions(batch: Batch) -> dict[str, np.ndarray]:
    """Return the pixels near jumps of the query's true depth ("edges") and those onto which no reference's depth is
    splatted ("holes"), (h, w) bool each. Regions for which there is no depth are left out."""
    query, references = batch.query, without_hidden_depth(batch.references)
    regions = {}
    if query.depth is not None:
        regions["edges"] = depth_edges(query.depth[0, 0].cpu().numpy())
    if references.depth is not None:
        splats = splat_depth(references.depth, references.cameras, query.cameras)
        regions["holes"] = (splats == 0).all(0).cpu().numpy()
    if query.mask is not None:
        counted = query.mask[0, 0].cpu().numpy() > 0
        regions = {name: region & counted for name, region in regions.items()}
    return regions


def labels_of(sets: list[TestSet]) -> LabelSet | None:
    """Return the classes of the first set that has any, or None."""
    return next((test.scene.labels for test in sets if test.scene.labels is not None), None)
