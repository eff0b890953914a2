"""From an index to a `Batch`: training samples drawn at random, test samples in order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset import augmentation, database, few_labels
from dataset.database import configured_scene, training_names
from dataset.few_labels import FewLabels
from dataset.scene import Scene, SceneName
from dataset.view_selection import Split, further_queries, nearest, require_frames, test_references, training_references
from dataset.views import Batch, Sources, Views
from utils.config import Setting, no_effect
from utils.errors import UserError
from utils.logging import warn

MOST_ATTEMPTS = 10  # unreadable samples in a row before an error is raised
LABELLED_SHARE = 0.5  # of a scene's samples whose first query has labels, if a smaller share of its frames has labels
DEFAULTS = {
    **database.DEFAULTS,
    # number of training frames of each scene in val_set_list that are validated instead of its test frames, and not
    # trained on; few_labels does not apply to them. null: the test frames, as published
    "validation_frames": Setting(None, int, minimum=1),
    "train_dataset_cfg": {
        # lists of scenes used without a train_set_list: scannet, scannet_single, replica
        "train_database_types": ["scannet"],
        # database type -> weight with which its scenes are drawn; {}: all scenes equally
        "type2sample_weights": Setting({}, dict),
        "train_ray_num": Setting(1024, int, minimum=1),  # rays of each query
        # number of references of a view: drawn from min_wn to max_wn - 1 in training, min_wn in tests
        "min_wn": Setting(8, int, minimum=1),
        "max_wn": Setting(9, int, minimum=2),  # see min_wn
        # [height, width] of a rectangle of rays in each query, used instead of train_ray_num scattered rays
        "patch": Setting(None, list),
        # references are drawn from every k-th frame, with k drawn from 1 to this; tests use every 5th frame
        "reference_stride": Setting(1, int, minimum=1),
        "augment": augmentation.DEFAULTS,
        "queries_per_step": Setting(1, int, minimum=1),  # queries in a step, which share the same references
        # probability that near and far of a sample are stretched
        "aug_depth_range_prob": Setting(0.05, float, minimum=0, maximum=1),
        "aug_depth_range_min": Setting(
            0.95, float, minimum=0.01, maximum=1
        ),  # lower bound of the random factor of near
        "aug_depth_range_max": Setting(1.05, float, minimum=1),  # upper bound of the random factor of far
        **no_effect("resolution_type", "aug_pixel_center_sample", "foreground_ratio", "aug_view_select_type"),
    },
    "few_labels": few_labels.DEFAULTS,  # reduction of the labels of training frames
}


@dataclass(frozen=True)
class Needs:
    """Fields that the references of a batch must have.

    depth: required. depth_if_there: depth if the scene has it. sources: number of neighbouring views of each reference.
    supervision: depth if the scene has it, in training only. labels: labels if there are any, in training only.
    known_labels: labels if there are any, in tests too.
    """

    depth: bool = False
    depth_if_there: bool = False
    sources: int = 0
    supervision: bool = False
    labels: bool = False
    known_labels: bool = False

    @property
    def reads_depth(self) -> bool:
        return self.depth or self.depth_if_there


class TrainingSet(Dataset):
    """Random samples; item `index` depends on the seed and the index alone.

    If few frames of a scene have labels, the first query of half of its samples is one of these; otherwise hardly any
    step would learn classes. References and further queries are drawn as usual. Test frames of the scenes in `held_out`
    (of `held_out_scenes`) are used neither as queries nor as references.
    """

    def __init__(self, cfg, seed: int, needs: Needs, held_out: Collection[Path] = ()):
        self.cfg = cfg.train_dataset_cfg
        self.needs = replace(needs, depth=needs.reads_depth or needs.supervision)
        # Without a loss on it the query's depth is only logged, so it is read only if depth is read anyway.
        self.query_depth = self.needs.depth or cfg.termination_loss_scale > 0
        self.seed = seed
        patch = self.cfg.patch
        if patch is not None and not (len(patch) == 2 and all(isinstance(side, int) and side > 0 for side in patch)):
            raise UserError(f"`train_dataset_cfg.patch` should be [height, width] in pixels, but is {list(patch)}")
        if self.cfg.max_wn <= self.cfg.min_wn:
            raise UserError(
                f"`train_dataset_cfg.max_wn` ({self.cfg.max_wn}) must be greater than min_wn ({self.cfg.min_wn})"
            )
        self.scenes = [configured_scene(name, cfg, needs.reads_depth) for name in training_names(cfg)]
        self.augments = any(self.cfg.augment[key] != setting.default for key, setting in augmentation.DEFAULTS.items())
        if not self.scenes:
            raise UserError("`train_set_list` is empty: name at least one scene to train on")
        self.frames = [self._frames_of(scene, scene.folder in held_out, cfg.validation_frames) for scene in self.scenes]
        for scene, frames in zip(self.scenes, self.frames, strict=True):
            most = self.cfg.max_wn + self.cfg.queries_per_step - 1
            require_frames(scene.name, len(frames), most, "usable training frames")
        self.weights = _scene_weights(self.scenes, self.cfg.type2sample_weights)
        self.few_labels = [FewLabels.of(scene, cfg) for scene in self.scenes]
        self.has_labels = [
            np.isin(frames, frames if few is None else few.frames)
            for frames, few in zip(self.frames, self.few_labels, strict=True)
        ]

    @staticmethod
    def _frames_of(scene: Scene, held_out: bool, validated: int | None) -> list[str]:
        """Return the training frames: of a held-out scene without test frames and validation frames."""
        return scene.training_frames(held_out, validated if held_out else None)

    def __getitem__(self, index: int) -> Batch:
        """Return sample `index`. If its files cannot be read, return another one, with the errors in
        `Batch.problems`."""
        problems = []
        for attempt in range(MOST_ATTEMPTS):
            try:
                return replace(
                    self._sample(np.random.default_rng([self.seed, index, attempt])), problems=tuple(problems)
                )
            except UserError as error:
                problems.append(str(error))
        raise UserError(f"{problems[-1]} (and {MOST_ATTEMPTS - 1} other samples in a row could not be read either)")

    def _sample(self, rng: np.random.Generator) -> Batch:
        chosen = rng.choice(len(self.scenes), p=self.weights)
        scene, frames, few = self.scenes[chosen], self.frames[chosen], self.few_labels[chosen]
        query = draw_query(self.has_labels[chosen], rng)
        centres = scene.centres(frames)
        counts = self.cfg.min_wn, self.cfg.max_wn
        own = not self.needs.known_labels  # a query must not be given its own labels
        references = training_references(centres, query, counts, rng, self.cfg.reference_stride, own)
        queries = [query, *further_queries(centres, query, references, self.cfg.queries_per_step - 1, rng)]
        references, queries = [frames[i] for i in references], [frames[i] for i in queries]
        reference_views = read_references(scene, references, frames, self.needs, self.needs.labels, few)
        query_views = with_few_labels(scene.views(queries, depth=self.query_depth, labels=True), queries, few)
        stretch = self._depth_range_stretch(rng)
        if self.augments:
            reference_views, query_views = augmentation.augment(reference_views, query_views, self.cfg.augment, rng)
        return Batch(
            _stretch_range(reference_views, stretch),
            _stretch_range(query_views, stretch),
            self._pixels(query_views, rng),
            scene.name,
            queries[0],
        )

    def _pixels(self, views: Views, rng: np.random.Generator) -> torch.Tensor:
        """Return the pixels to render of each view, (V, N, 2)."""
        if self.cfg.patch is None:
            return random_pixels(views, self.cfg.train_ray_num, rng)
        return random_patches(views, tuple(self.cfg.patch), rng)

    def _depth_range_stretch(self, rng: np.random.Generator) -> torch.Tensor:
        """Draw the factors of near and far: 1, except in a few samples."""
        widen = rng.random() < self.cfg.aug_depth_range_prob
        factors = (rng.uniform(self.cfg.aug_depth_range_min, 1), rng.uniform(1, self.cfg.aug_depth_range_max))
        return torch.tensor(factors if widen else (1.0, 1.0), dtype=torch.float32)


class TestSet(Dataset):
    """The test frames of a scene, each with the nearest references of the scene's pool."""

    __test__ = False  # not pytest's

    def __init__(
        self,
        scene: Scene,
        references: int,
        needs: Needs,
        reference_labels: bool = False,
        few: FewLabels | None = None,
        split: Split | None = None,
    ):
        """references: number of references, at most the size of the pool. reference_labels: read labels and depth of
        the references too, for baselines. few: labels that are left; the nearest labelled frames are then in
        `Batch.labelled`. split: None for the scene's own. The query has labels and depth if the scene has them, as
        truth."""
        self.scene, self.few = scene, few
        self.needs = replace(needs, depth=needs.reads_depth or reference_labels)
        self.split = split or scene.split()
        self.references = min(references, len(self.split.references))
        self.reference_labels = reference_labels
        require_frames(scene.name, len(self.split.references), 1 + (needs.sources > 0), "frames in the reference pool")
        require_frames(scene.name, len(self.split.tests), 1, "test frames")
        if self.references < references:
            warn(f"{scene.name}: its reference pool has {self.references} frames, so that {references} cannot be used")

    def __len__(self) -> int:
        return len(self.split.tests)

    def __getitem__(self, index: int) -> Batch:
        frame, pool = self.split.tests[index], self.split.references
        chosen = test_references(self.scene.centres(pool), self.scene.centres([frame])[0], self.references)
        chosen = [pool[i] for i in chosen]
        references = read_references(self.scene, chosen, pool, self.needs, self.reference_labels, self.few)
        query = self.scene.views([frame], depth=True, labels=True)
        return Batch(references, query, None, self.scene.name, frame, labelled=self._labelled(frame))

    def _labelled(self, frame: str) -> Views | None:
        """Return the labelled frames nearest to `frame`, for baselines with `few_labels`; None otherwise."""
        if self.few is None or not self.reference_labels:
            return None
        frames, scene = self.few.frames, self.scene
        chosen = test_references(scene.centres(frames), scene.centres([frame])[0], self.references)
        needs = replace(self.needs, sources=0)
        return read_references(scene, [frames[i] for i in chosen], [], needs, True, self.few)


def read_references(
    scene: Scene, chosen: list[str], pool: list[str], needs: Needs, labels: bool = False, few: FewLabels | None = None
) -> Views:
    """Read the references `chosen` with the fields of `needs`. Their sources are the nearest other frames of `pool`.

    labels: read labels too. few: reduces the labels; None for all of them.
    """
    views = with_few_labels(
        scene.views(chosen, depth=needs.reads_depth, labels=labels or needs.known_labels), chosen, few
    )
    if not needs.sources:
        return views
    centres = scene.centres(pool)
    neighbours = [
        [pool[i] for i in nearest(centres, centre) if pool[i] != frame][: needs.sources]
        for frame, centre in zip(chosen, scene.centres(chosen), strict=True)
    ]
    together = sorted({frame for row in neighbours for frame in row}, key=int)
    index = torch.tensor([[together.index(frame) for frame in row] for row in neighbours])
    return replace(views, sources=Sources(scene.views(together), index))


def draw_query(has_labels: np.ndarray, rng: np.random.Generator) -> int:
    """Draw one of N frames. has_labels: (N,) bool. The distribution is uniform unless the share of labelled frames is
    above 0 but below LABELLED_SHARE; then a labelled frame has that probability."""
    if not 0 < has_labels.mean() < LABELLED_SHARE:
        return int(rng.integers(len(has_labels)))
    return int(rng.choice(np.flatnonzero(has_labels == (rng.random() < LABELLED_SHARE))))


def with_few_labels(views: Views, frames: list[str], few: FewLabels | None) -> Views:
    """Return the views of these frames with the labels that `few` leaves; None: all labels."""
    return views if few is None else few.of_views(views, frames)


def random_pixels(views: Views, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Draw `count` pixels of each view, (V, count, 2) of x, y inside its mask, all different where there are so
    many."""
    height, width = views.cameras.size
    pixels = []
    for view in range(len(views)):
        allowed = None if views.mask is None else np.flatnonzero(views.mask[view, 0].numpy())
        if allowed is None or not len(allowed):  # a mask of zeros is ignored
            allowed = height * width
        total = allowed if isinstance(allowed, int) else len(allowed)
        chosen = rng.choice(allowed, count, replace=count > total)
        pixels.append(np.stack([chosen % width, chosen // width], -1))
    return torch.from_numpy(np.stack(pixels)).float()


def random_patches(views: Views, size: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    """Return the pixels of one rectangle of `size` (h, w) in each view, row by row: (V, h * w, 2) of x, y.

    Raise UserError where a view is smaller.
    """
    (height, width), (patch_height, patch_width) = views.cameras.size, size
    if patch_height > height or patch_width > width:
        raise UserError(
            f"`train_dataset_cfg.patch` is {list(size)}, larger than the images, which are [{height}, {width}]"
        )
    rows, columns = np.mgrid[:patch_height, :patch_width]
    pixels = []
    for _ in range(len(views)):
        top, left = rng.integers(height - patch_height + 1), rng.integers(width - patch_width + 1)
        pixels.append(np.stack([columns + left, rows + top], -1).reshape(-1, 2))
    return torch.from_numpy(np.stack(pixels)).float()


def _scene_weights(scenes: list[Scene], type_weights: dict) -> np.ndarray:
    kinds = [SceneName.parse(scene.name).kind for scene in scenes]
    if not all(isinstance(weight, int | float) for weight in type_weights.values()):
        raise UserError(f"`train_dataset_cfg.type2sample_weights` should be numbers, but is {dict(type_weights)}")
    # The published lists call ScanNet's single scene a type of its own.
    given = {kind.removesuffix("_single"): float(weight) for kind, weight in type_weights.items()}
    weights = np.array([given.get(kind, 1.0) / kinds.count(kind) if given else 1.0 for kind in kinds])
    if (weights < 0).any() or weights.sum() <= 0:
        raise UserError("`train_dataset_cfg.type2sample_weights` should be positive numbers")
    return weights / weights.sum()


def _stretch_range(views: Views, factors: torch.Tensor) -> Views:
    sources = views.sources and replace(views.sources, views=_stretch_range(views.sources.views, factors))
    cameras = replace(views.cameras, depth_range=views.cameras.depth_range * factors)
    return replace(views, cameras=cameras, sources=sources)
