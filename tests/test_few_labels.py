"""Few labels: what is left of them, and of which frames; a run that learns from them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from easydict import EasyDict

from dataset.database import open_scene
from dataset.few_labels import DEFAULTS, FewLabels, degrade, labelled_frames
from dataset.render_dataset import Needs, TrainingSet
from train import run
from train.baselines import COPIED, OF_FEW_LABELS, SPLATTED, WARPED, baselines, fill_labels
from train.objective import known_of_blocks
from train.trainer import Trainer
from utils.errors import UserError

NAME, K = "scannet/train_000/black_64", 20


@pytest.fixture(scope="module")
def scene(rooms):
    return open_scene(NAME, rooms)


@pytest.fixture(scope="module")
def labels(scene) -> np.ndarray:
    return scene.views(scene.frame_ids[:1], labels=True).labels[0].numpy()


def degraded(labels, seed=0, **settings) -> np.ndarray:
    settings = EasyDict({key: default.default for key, default in DEFAULTS.items()} | settings)
    return degrade(labels, settings, np.arange(0, K, 2).astype(np.uint8), K, np.random.default_rng(seed))


def test_clicks_leave_so_many_true_pixels_of_each_class(labels):
    left = degraded(labels, clicks=5)
    assert ((left == K) | (left == labels)).all()
    known, counts = np.unique(labels[labels != K], return_counts=True)
    assert [int((left == c).sum()) for c in known] == np.minimum(counts, 5).tolist()
    assert (degraded(labels, clicks=5) == left).all() and (degraded(labels, 1, clicks=5) != left).any()


def test_coarse_labels_are_constant_in_blocks_and_those_of_their_central_pixels():
    labels = np.random.default_rng(0).integers(0, K, (20, 27)).astype(np.uint8)
    coarse = degraded(labels, coarseness=8)
    for top in range(0, 20, 8):
        for left in range(0, 27, 8):
            central = labels[min(top + 4, 19), min(left + 4, 26)]
            assert (coarse[top : top + 8, left : left + 8] == central).all()


def test_wrong_pixels_are_a_share_of_the_labels_left_and_of_other_classes_of_the_scene(labels):
    wrong = degraded(labels, wrong_pixels=0.3)
    known = labels != K
    assert (wrong == K)[~known].all() and not (wrong == K)[known].any()
    changed = wrong != labels
    assert abs(changed[known].mean() - 0.3) < 0.05 and (wrong[changed] % 2 == 0).all()
    clicks = degraded(labels, clicks=3, wrong_pixels=0.9)
    assert (clicks != K).sum() == (degraded(labels, clicks=3) != K).sum()


def test_wrong_objects_change_whole_connected_parts():
    labels = np.full((32, 32), 1, np.uint8)
    for row in range(1, 31, 4):
        for column in range(1, 31, 4):
            labels[row : row + 2, column : column + 2] = 2
    wrong = degraded(labels, wrong_objects=0.5)
    objects = wrong[labels == 2].reshape(8, 2, 8, 2).transpose(0, 2, 1, 3).reshape(64, 4)
    assert (objects == objects[:, :1]).all() and 0.2 < (objects[:, 0] != 2).mean() < 0.8
    assert (wrong[wrong != labels] % 2 == 0).all()


def test_labelled_frames_are_spread_and_can_be_referred_to(scene):
    split, training = scene.split(), scene.training_frames(hold_out_tests=True)
    for wanted, count in ((3, 3), (0.1, round(0.1 * len(training)))):
        frames = labelled_frames(scene, wanted, 0)
        assert len(set(frames)) == count and set(frames) <= set(split.references)
        gaps = np.diff([split.references.index(frame) for frame in frames])
        assert gaps.max() - gaps.min() <= 1
    assert labelled_frames(scene, 3, 1) != labelled_frames(scene, 3, 0)
    many = labelled_frames(scene, len(training) - 1, 0)
    assert len(set(many)) == len(training) - 1 and not set(many) & set(split.tests)
    for wrong in (0, 2.5, len(training) + 1):
        with pytest.raises(UserError, match=r"few_labels\.frames"):
            labelled_frames(scene, wrong, 0)


def test_training_samples_have_the_labels_left_and_tests_all(config, scene):
    cfg = config(train_set_list=[NAME], val_set_list=[NAME], few_labels={"frames": 4, "clicks": 2})
    few = FewLabels.of(scene, cfg)
    training = TrainingSet(cfg, 0, Needs(labels=True))
    batches = [training[i] for i in range(60)]
    for batch in batches:
        true = scene.views([batch.frame], labels=True).labels[0].numpy()
        assert (batch.query.labels[0].numpy() == few.of_frame(true, batch.frame)).all()
    labelled = [batch.frame for batch in batches if (batch.query.labels != K).any()]
    assert labelled and set(labelled) <= set(few.frames)
    per_view = torch.cat([batch.references.labels for batch in batches]).flatten(1).ne(K).sum(1)
    assert per_view.any() and not per_view.all() and per_view.max() <= 2 * K
    assert FewLabels.of(scene, config()) is None


def test_one_label_of_each_block_counts_though_it_is_not_in_the_centre():
    labels = torch.full((1, 9, 8), K)
    labels[0, 2, 2], labels[0, 0, 0] = 3, 4  # the centre is known
    labels[0, 3, 7], labels[0, 7, 0] = 5, 6
    assert known_of_blocks(labels, 4, K)[0].tolist() == [[3, 5], [6, K]]


def test_a_run_says_what_is_left_and_shows_it(config, capsys):
    cfg = config(
        train_set_list=[NAME], val_set_list=[NAME], total_step=2, val_interval=2, few_labels={"frames": 2, "clicks": 1}
    )
    Trainer(cfg).run()
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("few_labels"))
    picture = Path(cfg.output_root) / cfg.name / "few_labels.png"
    assert "in 2 frames" in said and str(picture) in said and 0 < float(said.split()[1]) < 0.01
    assert cv2.imread(str(picture)).std() > 30


def test_baselines_copy_and_warp_the_few_labels_of_the_nearest_frames_that_have_some(config, scene, rooms):
    cfg = config(val_set_list=[NAME], baselines=True, few_labels={"frames": 3})
    (test,) = run.test_sets(cfg)
    batch = test[0]
    assert len(batch.labelled) == 3 and (batch.labelled.labels != K).flatten(1).any(1).all()
    centre = scene.centres([batch.frame])[0]
    nearest = min(test.few.frames, key=lambda frame: np.linalg.norm(scene.centres([frame])[0] - centre))
    pictures = baselines(batch.to("cpu"), K)
    true = scene.views([nearest], labels=True).labels[0].numpy()
    copied = pictures[OF_FEW_LABELS[COPIED]].classes
    assert (copied[true != K] == true[true != K]).all() and (copied != K).all()
    assert pictures[COPIED].classes is None and pictures[COPIED].color is not None
    truth = scene.views([batch.frame], labels=True).labels[0].numpy()

    def agreement(method):
        return (pictures[OF_FEW_LABELS[method]].classes == truth)[truth != K].mean()

    assert agreement(SPLATTED) > agreement(WARPED) > agreement(COPIED)
    (test,) = run.test_sets(config(val_set_list=[NAME], baselines=True, few_labels={"clicks": 1}))
    assert 0 < (test[0].labelled.labels != K).flatten(1).sum(1).max() <= K


def test_each_pixel_without_a_label_takes_the_nearest_label():
    labels = torch.full((1, 8, 16), K)
    labels[0, 4, 2], labels[0, 4, 12] = 7, 9
    filled = fill_labels(labels, K)[0]
    assert (filled[:, :6] == 7).all() and (filled[:, 9:] == 9).all()
