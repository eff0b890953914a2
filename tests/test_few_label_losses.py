"""Losses that help a network to learn classes from few labels."""

import pytest
import torch

from tests.test_surfaces import PLUS
from train.losses import consistency_loss, entropy_loss, semantic_loss
from train.trainer import Trainer

K = 4
FEW = {"frames": 1, "clicks": 1}


def losses_of_a_step(config, **changes) -> dict[str, torch.Tensor]:
    trainer = Trainer(config(**PLUS, val_set_list=[], few_labels=FEW, **changes))
    trainer._start_or_resume()
    with torch.no_grad():  # one class is rendered with certainty
        trainer.network.query_decoder_new.out.bias[5] = changes.get("semantic_loss_scale", 0) * 60
    return trainer.train_step(trainer.training_set[0].to("cpu")).losses


def test_label_smoothing_keeps_a_network_from_trusting_each_label():
    target = torch.tensor([1, 3, K])
    sure = torch.nn.functional.one_hot(target, K + 1) * 20.0
    smoothed = torch.full((K + 1,), 0.1 / (K + 1))
    smoothed[1] += 0.9
    assert semantic_loss(sure, target, K) < 1e-6 and semantic_loss(sure, target, K, 0.1) > 1
    best = smoothed.log().expand(1, -1)
    lowest = semantic_loss(best, target[:1], K, 0.1)
    assert lowest == pytest.approx(-(smoothed * smoothed.log()).sum().item(), rel=1e-5)


def test_entropy_is_asked_for_where_there_is_no_label_alone():
    logits = torch.zeros(3, K + 1)
    logits[0, 2] = 30
    unknown = torch.tensor([True, True, False])
    even = torch.log(torch.tensor(K + 1.0)).item()
    assert entropy_loss(logits, unknown).item() == pytest.approx(even / 2)
    assert entropy_loss(logits, torch.zeros(3, dtype=torch.bool)) == 0


def test_each_of_two_predictions_learns_from_the_other_where_there_is_no_label():
    first, second = torch.zeros(2, K + 1, requires_grad=True), torch.zeros(2, K + 1)
    second[:, 3] = 5
    second.requires_grad_()
    consistency_loss(first, second, torch.tensor([True, False])).backward()
    assert first.grad[0].argmin() == 3 and second.grad[0].argmax() == 3  # one rises, the other falls
    assert (first.grad[1] == 0).all() and (second.grad[1] == 0).all()


def test_a_step_has_the_losses_that_its_config_asks_for(config):
    plain = losses_of_a_step(config)
    assert not [name for name in plain if name.startswith(("entropy", "consistency", "pseudo"))]
    losses = losses_of_a_step(config, entropy_loss_scale=0.1, consistency_loss_scale=0.1, pseudo_labels=0.999)
    assert {"entropy_surface", "entropy_refined", "consistency", "pseudo_surface", "pseudo_refined"} <= losses.keys()
    assert losses["entropy_surface"] > 0.1 and losses["consistency"] > 0.1  # of 21 classes that are about as likely
    assert losses["pseudo_surface"] == losses["pseudo_refined"] == 0  # nothing is that sure
    sure = losses_of_a_step(config, semantic_loss_scale=1.0, pseudo_labels=0.999)
    assert sure["pseudo_refined"] < 0.01 < sure["pseudo_surface"]  # rays learn what the decoder is sure of
