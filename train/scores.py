"""Scores of each image, and their averages over images and scenes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import zip_longest

import numpy as np

from train.metrics import class_scores, commonest_class, confusion, depth_error, drop_invalid, psnr, ssim_and_map
from train.pictures import Picture

# Numbers of an image, averaged over a scene's images and then over scenes.
IMAGE_METRICS = {
    "psnr": "PSNR in dB",
    "ssim": "SSIM",
    "depth_median": "median of |rendered depth - true depth| / true depth, where the true one is known",
    "psnr_edges": "PSNR within two pixels of a jump in the true depth",
    "ssim_edges": "SSIM of windows around these pixels",
    "psnr_holes": "PSNR where no reference's depth is splatted",
    "ssim_holes": "SSIM of windows around these pixels",
    "coverage": "share of the pixels that a method says a reference shows, and are not guessed",
}
AVERAGINGS = {
    "per_image": "per image, then mean over a scene's images, then over scenes (the published one)",
    "per_scene": "per scene from its pooled confusion matrix, then mean over scenes",
    "pooled": "from one confusion matrix pooled over all images",
    "per_image_dropping_invalid": 'as per_image, but pixels predicted "invalid" are dropped (as published; flatters)',
}


@dataclass
class Score:
    """One method's scores on one scene, image by image: confusion matrices and the numbers of `IMAGE_METRICS`.

    Images for which a number is undefined are left out of its list.
    """

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    matrices: list[np.ndarray] = field(default_factory=list)
    depth_median: list[float] = field(default_factory=list)
    psnr_edges: list[float] = field(default_factory=list)
    ssim_edges: list[float] = field(default_factory=list)
    psnr_holes: list[float] = field(default_factory=list)
    ssim_holes: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)

    def add(
        self, picture: Picture, target: Picture, classes: int, regions: dict[str, np.ndarray] | None = None
    ) -> None:
        """Score a picture. regions: "edges" and "holes", (h, w) bool each, as far as they are known."""
        self.psnr.append(psnr(picture.color, target.color))
        mean, similarity = ssim_and_map(picture.color, target.color)
        self.ssim.append(mean)
        if picture.seen is not None:
            self.coverage.append(float(picture.seen.mean()))
        if picture.classes is not None and target.classes is not None:
            self.matrices.append(confusion(picture.classes, target.classes, classes))
        if picture.depth is not None and target.depth is not None:
            error = depth_error(picture.depth, target.depth)
            self.depth_median += [] if error is None else [error]
        for name, region in (regions or {}).items():
            if region.any():
                getattr(self, f"psnr_{name}").append(psnr(picture.color[region], target.color[region]))
                getattr(self, f"ssim_{name}").append(float(similarity[region].mean()))

    @staticmethod
    def interleave(parts: list[Score]) -> Score:
        """Merge scores in turn: the first image of each part, then the second of each, and so on."""
        columns = [[getattr(part, field.name) for part in parts] for field in fields(Score)]
        rows = [[x for xs in zip_longest(*lists) for x in xs if x is not None] for lists in columns]
        return Score(*rows)


def score_commonest_class(scores: dict[str, Score]) -> dict[str, Score]:
    """Return the scores of a constant prediction: the most frequent class of all test frames."""
    matrices = iter(commonest_class([matrix for score in scores.values() for matrix in score.matrices]))
    return {scene: Score(matrices=[next(matrices) for _ in score.matrices]) for scene, score in scores.items()}


def summarise(scores: dict[str, Score]) -> dict:
    """Return the scores of one method averaged over scenes: those of `IMAGE_METRICS` and, with classes, those of each
    of `AVERAGINGS`."""
    summary = {}
    for name in IMAGE_METRICS:
        of_scenes = [np.mean(values) for values in (getattr(score, name) for score in scores.values()) if values]
        if of_scenes:
            summary[name] = float(np.mean(of_scenes))
    with_classes = [score.matrices for score in scores.values() if score.matrices]
    if with_classes:
        summary["per_image"] = _mean([_mean([class_scores(m) for m in matrices]) for matrices in with_classes])
        summary["per_scene"] = _mean([class_scores(np.sum(matrices, axis=0)) for matrices in with_classes])
        summary["pooled"] = class_scores(np.sum([matrix for matrices in with_classes for matrix in matrices], axis=0))
        summary["per_image_dropping_invalid"] = _mean(
            [_mean([class_scores(drop_invalid(m)) for m in matrices]) for matrices in with_classes]
        )
    return summary


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
