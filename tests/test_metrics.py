"""Metrics and losses against loops and closed forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dataset.database import open_scene
from train.baselines import COPIED
from train.evaluator import Evaluation
from train.losses import color_loss, depth_loss, reprojection_loss, semantic_loss, termination_loss
from train.metrics import (
    class_ious,
    class_scores,
    commonest_class,
    confusion,
    depth_edges,
    depth_error,
    drop_invalid,
    psnr,
    ssim,
    ssim_and_map,
)
from train.objective import ray_depth_measures
from train.pictures import Picture
from train.report import report, to_markdown
from train.schedule import build_optimizer, learning_rate, set_learning_rate
from train.scores import Score, summarise


def test_psnr_of_a_known_error():
    image = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(image + 10, image) == pytest.approx(20 * np.log10(255 / 10))
    assert np.isfinite(psnr(image, image))


def test_ssim_is_1_for_equal_images_and_falls_with_noise():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    assert ssim(image, image) == pytest.approx(1)
    assert ssim(rng.integers(0, 255, image.shape, dtype=np.uint8), image) < 0.2
    assert ssim(image[:8], image[:8]) == pytest.approx(1)  # smaller than the window


def test_depth_error_is_the_median_of_relative_errors_where_depth_is_known():
    truth = np.array([[1.0, 2, 4, 0]])
    assert depth_error(np.array([[1.1, 2, 2, 9]]), truth) == pytest.approx(0.1)
    assert depth_error(np.zeros((1, 4)), truth) == 1
    assert depth_error(truth, np.zeros((1, 4))) is None


def test_edges_of_depth_are_within_two_pixels_of_a_jump_and_nowhere_unknown():
    depth = np.full((5, 12), 2.0)
    depth[:, 6:] = 3
    depth[0, 5] = 0
    edges = depth_edges(depth)
    assert edges[1].nonzero()[0].tolist() == [4, 5, 6, 7] and not edges[0, 5]
    assert not depth_edges(np.tile(np.linspace(2, 2.2, 12), (5, 1))).any()  # a slope


def test_scores_of_regions_and_depth_leave_out_images_without():
    target = Picture(np.full((4, 4, 3), 100, np.uint8), None, np.full((4, 4), 2.0))
    picture = Picture(target.color.copy(), None, np.full((4, 4), 2.2))
    picture.color[0] += 10
    score, top = Score(), np.zeros((4, 4), bool)
    top[0] = True
    score.add(picture, target, 3, {"edges": top, "holes": ~top})
    score.add(picture, target._replace(depth=np.zeros((4, 4))), 3, {"edges": top & False})
    summary = summarise({"a": score, "b": Score([20.0], [0.5])})
    assert summary["depth_median"] == pytest.approx(0.1)
    assert summary["psnr_edges"] == pytest.approx(20 * np.log10(25.5)) and summary["psnr_holes"] > 50
    _, similarity = ssim_and_map(picture.color, target.color)
    assert summary["ssim_edges"] == pytest.approx(similarity[0].mean())
    assert summary["ssim_edges"] < summary["ssim_holes"] < 1
    assert similarity.shape == (4, 4) and "coverage" not in summary
    seen = Score()
    seen.add(picture._replace(seen=top), target, 3)
    assert seen.coverage == [0.25]
    assert len(score.psnr) == 2 and len(score.psnr_edges) == len(score.psnr_holes) == len(score.depth_median) == 1


def test_confusion_and_scores_equal_a_loop():
    rng = np.random.default_rng(1)
    classes = 5
    truth, prediction = rng.integers(0, 4, (30, 30)), rng.integers(0, classes + 1, (30, 30))
    truth[:3] = classes  # ignored
    matrix = confusion(prediction, truth, classes)
    expected = np.zeros((classes, classes + 1), int)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t < classes:
            expected[t, p] += 1
    assert (matrix == expected).all()
    ious, accuracies = [], []
    counted = truth < classes
    for c in range(4):  # class 4 is not there in truth
        inside, predicted = counted & (truth == c), counted & (prediction == c)
        ious.append((inside & predicted).sum() / (inside | predicted).sum())
        accuracies.append((inside & predicted).sum() / inside.sum())
    scores = class_scores(matrix)
    assert scores["miou"] == pytest.approx(np.mean(ious))
    assert scores["class_average_accuracy"] == pytest.approx(np.mean(accuracies))
    assert scores["total_accuracy"] == pytest.approx((truth == prediction)[counted].mean())
    assert np.isnan(class_ious(matrix)[4])


def test_a_prediction_of_invalid_is_an_error_unless_dropped_as_published():
    truth = np.array([[0, 0, 1, 1]])
    prediction = np.array([[0, 2, 1, 1]])  # 2 is "invalid"
    matrix = confusion(prediction, truth, 2)
    assert class_scores(matrix)["total_accuracy"] == 0.75
    assert class_scores(drop_invalid(matrix))["total_accuracy"] == 1


def test_commonest_class_is_what_a_constant_picture_scores():
    rng = np.random.default_rng(2)
    truths = [rng.choice(4, (10, 10), p=[0.1, 0.5, 0.2, 0.2]) for _ in range(3)]
    matrices = [confusion(rng.integers(0, 4, (10, 10)), truth, 4) for truth in truths]
    for constant, truth in zip(commonest_class(matrices), truths, strict=True):
        assert (constant == confusion(np.full_like(truth, 1), truth, 4)).all()


def test_the_three_averagings_differ_as_they_should():
    perfect, wrong = np.array([[100, 0, 0], [0, 0, 0]]), np.array([[0, 10, 0], [0, 0, 0]])
    half = np.array([[5, 5, 0], [0, 0, 0]])
    scores = {"a": Score([30, 10], [0.9, 0.1], [perfect, wrong]), "b": Score([20], [0.5], [half])}
    summary = summarise(scores)
    assert summary["psnr"] == 20  # mean of (20, 20)
    assert summary["per_image"]["total_accuracy"] == pytest.approx((0.5 + 0.5) / 2)
    assert summary["per_scene"]["total_accuracy"] == pytest.approx((100 / 110 + 0.5) / 2)
    assert summary["pooled"]["total_accuracy"] == pytest.approx(105 / 120)
    invalid = summarise({"a": Score([30], [0.9], [np.array([[5, 0, 5], [0, 0, 0]])])})
    assert (
        invalid["per_image"]["total_accuracy"] == 0.5 and invalid["per_image_dropping_invalid"]["total_accuracy"] == 1
    )


def test_report_names_what_was_ignored_and_absent_classes():
    scores = {"S-Ray": {"room": Score([20.0], [0.5], [np.array([[3, 1, 1], [0, 0, 0]])])}}
    evaluation = Evaluation(("wall", "floor"), "S-Ray", scores, 7, 12)
    assert evaluation.key_metric("miou") == pytest.approx(0.6) and evaluation.key_metric("psnr") == 20
    content = report(evaluation, {"name": "test"})
    assert content["iou_per_class"] == {"wall": 0.6, "floor": None}
    assert content["pixels"] == {"all": 12, "ignored": 7, "predicted_invalid": 1}
    text = to_markdown(content)
    assert "7 have no class" in text and "| floor | not there |" in text and "jumps in depth" not in text
    scores["S-Ray"]["room"] = Score([20.0], [0.5], [], [0.031], [12.0], [0.7], [9.0], [0.25], [0.875])
    text = to_markdown(report(evaluation, {"name": "test"}))
    assert "true labels of the references" not in text
    scores[COPIED] = scores["S-Ray"]
    assert "true labels of the references" in to_markdown(report(evaluation, {"name": "test"}))
    assert "| S-Ray | 20.00 | 0.500 | – | – | – | 3.1% |" in text and "| S-Ray | 12.00 | 0.700 | 9.00 | 0.250 |" in text
    assert "shows 87.5% of the pixels" in text


def test_without_labels_the_key_metric_is_psnr():
    evaluation = Evaluation((), "S-Ray", {"S-Ray": {"room": Score([20.0], [0.5])}})
    assert evaluation.key_metric("miou") == 20 and "mIoU" in to_markdown(report(evaluation, {"name": "x"}))


def test_color_loss_counts_scored_rays_only():
    color, target = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 1]]), torch.zeros(3, 3)
    assert color_loss(color, target, torch.tensor([True, True, False])).item() == pytest.approx(0.5)
    assert color_loss(color, target, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_semantic_loss_leaves_ignored_pixels_out_and_is_0_without_any():
    logits = torch.randn(4, 3)
    target = torch.tensor([0, 2, 1, 2])
    expected = -torch.log_softmax(logits, -1)[[0, 2], [0, 1]].mean()
    assert semantic_loss(logits, target, ignore=2).item() == pytest.approx(expected.item())
    assert semantic_loss(logits, torch.full((4,), 2), ignore=2).item() == 0


def test_termination_loss_equals_a_loop_over_the_rays_that_count():
    generator = torch.Generator().manual_seed(0)
    hits = torch.rand(6, 5, generator=generator).softmax(-1) * torch.tensor([1, 1, 0.5, 1, 1, 0])[:, None]
    depths = torch.rand(6, 5, generator=generator).add(0.5).requires_grad_(False)
    target = torch.tensor([1.0, 0.0, 2.0, 1.5, 1.2, 0.7])
    counted = torch.tensor([True, True, True, False, True, True])
    rays = []
    for w, z, true, counts in zip(hits.tolist(), depths.tolist(), target.tolist(), counted.tolist(), strict=True):
        if counts and true > 0:
            distance = sum(a * abs(np.log(b) - np.log(true)) for a, b in zip(w, z, strict=True))
            rays.append(distance + max(0, 1 - sum(w)))
    assert len(rays) == 4 and termination_loss(hits, depths, target, counted).item() == pytest.approx(np.mean(rays))
    hits.requires_grad_()
    none = termination_loss(hits, depths, torch.zeros(6), counted)
    none.backward()
    assert none.item() == 0 and (hits.grad == 0).all()


def test_depth_measures_of_rays_leave_out_those_of_unknown_depth():
    true = torch.tensor([2.0, 0.0, 1.0, 4.0, 2.0])
    measures = ray_depth_measures(torch.tensor([2.2, 9.0, 0.4, 1.9, 2.0]), true)
    assert measures["depth_median"].item() == pytest.approx(0.1)  # the second of 0, 0.1, 0.525, 0.6
    assert measures["ended_early"].item() == pytest.approx(0.5)
    assert all(value.isnan() for value in ray_depth_measures(true, torch.zeros(5)).values())


def test_schedule_decays_in_steps_and_new_layers_have_their_own_rate(config):
    cfg = config(lr_cfg={"lr_init": 1e-2, "decay_step": 10, "decay_rate": 0.1, "lr_min": 5e-4, "scale_new": 3.0})
    assert [learning_rate(step, cfg) for step in (0, 9, 10, 25)] == pytest.approx([1e-2, 1e-2, 1e-3, 5e-4])
    network = torch.nn.ModuleDict({"old": torch.nn.Linear(1, 1), "head_new": torch.nn.Linear(2, 2)})
    optimizer = build_optimizer(network, cfg)
    set_learning_rate(optimizer, 0.1, cfg.lr_cfg.scale_new)
    assert [[p.shape for p in group["params"]] for group in optimizer.param_groups] == [[(1, 1), (1,)], [(2, 2), (2,)]]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.3])


def test_cosine_schedule_ends_at_the_last_step_and_warm_up_rises_to_it(config):
    rates = {"lr_init": 1e-2, "lr_min": 1e-3}
    cfg = config(lr_type="cosine", total_step=100, lr_cfg=rates)
    assert [learning_rate(step, cfg) for step in (0, 50, 100, 120)] == pytest.approx([1e-2, 5.5e-3, 1e-3, 1e-3])
    slow = config(lr_type="cosine", total_step=100, lr_cfg={**rates, "warmup_steps": 4})
    assert [learning_rate(s, slow) / learning_rate(s, cfg) for s in (0, 1, 3, 4)] == pytest.approx([0.25, 0.5, 1, 1])
    decay = config(lr_cfg={"lr_init": 1e-2, "warmup_steps": 10})
    assert [learning_rate(step, decay) for step in (4, 9, 20)] == pytest.approx([5e-3, 1e-2, 1e-2])


def test_depth_loss_counts_known_pixels_in_log_depth():
    predicted = torch.full((1, 1, 2, 2), 2.0)
    sensor = torch.full((1, 1, 8, 8), 4.0)
    sensor[..., :4] = 0
    assert depth_loss(predicted, sensor).item() == pytest.approx(np.log(2))
    assert depth_loss(predicted, torch.zeros(1, 1, 8, 8)).item() == 0


def test_reprojection_loss_is_least_at_the_true_depth(rooms):
    scene = open_scene("scannet/train_000/black_64", rooms)
    views = scene.views(scene.frame_ids[:4], depth=True).to("cpu")
    true = F.interpolate(views.depth, size=(12, 16), mode="nearest-exact")
    losses = [reprojection_loss(true * factor, views).item() for factor in (0.6, 1.0, 1.6)]
    assert losses[1] < 0.9 * min(losses[0], losses[2])
