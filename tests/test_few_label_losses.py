"""Losses that help a network to learn classes from few labels."""

import pytest
import torch

from dataset.views import Cameras, Views
from network.rendering import CLASSES, Prediction, Rendering
from tests.test_surfaces import PLUS
from train.losses import consistency_loss, entropy_loss, semantic_loss
from train.objective import Objective
from train.run import build_network
from train.trainer import Trainer
from utils.errors import UserError

K = 4
FEW = {"frames": 1, "clicks": 1}


def losses_of_a_step(config, **changes) -> dict[str, torch.Tensor]:
    trainer = Trainer(config(**PLUS, val_set_list=[], few_labels=FEW, **changes))
    trainer.start_or_resume()
    with torch.no_grad():  # one class is rendered with certainty
        trainer.network.query_decoder_new.out.bias[5] = changes.get("semantic_loss_scale", 0) * 60
    return trainer.train_step(trainer.training_set[0].to("cpu")).losses


def test_pixels_without_a_label_take_no_part_in_the_cross_entropy():
    logits = torch.randn(6, K + 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.tensor([K, 2, K, 0, 3, K])
    loss = semantic_loss(logits, target, K)
    expected = 0.0
    for row, label in zip(logits.detach().log_softmax(-1), target, strict=True):
        if label != K:
            expected -= row[label].item() / 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert (logits.grad != 0).any(1).tolist() == (target != K).tolist()
    assert semantic_loss(logits, torch.full((6,), K), K) == 0


def test_entropy_is_asked_for_where_there_is_no_label_alone_and_of_the_classes_alone():
    logits = torch.zeros(4, K + 1)
    logits[0, 2], logits[1, K] = 30, 30  # sure of a class, and of none
    logits[2, 0] = 1
    logits.requires_grad_()
    unknown = torch.tensor([True, True, True, False])
    loss = entropy_loss(logits, unknown)
    odds = torch.softmax(logits[2, :K].detach(), -1)
    even = torch.log(torch.tensor(float(K))).item()
    assert loss.item() == pytest.approx((0 + even - (odds * odds.log()).sum().item()) / 3)
    loss.backward()
    assert (logits.grad[3] == 0).all() and (logits.grad[:, K] == 0).all()
    assert logits.grad[2, 0] < 0 < logits.grad[2, 1]  # what is likely becomes likelier
    assert entropy_loss(logits, torch.zeros(4, dtype=torch.bool)) == 0


def test_each_of_two_predictions_learns_from_the_other_where_there_is_no_label():
    first, second = torch.zeros(2, K + 1, requires_grad=True), torch.zeros(2, K + 1)
    second[:, 3] = 5
    second.requires_grad_()
    consistency_loss(first, second, torch.tensor([True, False])).backward()
    assert first.grad[0].argmin() == 3 and second.grad[0].argmax() == 3  # one rises, the other falls
    assert (first.grad[1] == 0).all() and (second.grad[1] == 0).all()
    # that of a cross entropy with the other as the target
    expected = (first[0].softmax(-1) - second[0].softmax(-1)) / 2
    torch.testing.assert_close(first.grad[0], expected.detach(), atol=1e-6, rtol=1e-5)


def test_predictions_that_agree_differ_by_nothing_however_unsure_they_are():
    logits = torch.randn(5, K + 1, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(5, dtype=torch.bool)
    assert consistency_loss(logits, logits + 3, everywhere).abs() < 1e-6
    assert consistency_loss(logits, -logits, everywhere) > 0.1
    assert consistency_loss(logits, -logits, ~everywhere) == 0


class Shown(torch.nn.Module):
    """A network whose passes show given logits."""

    pass_names = ("coarse", "fine")
    query_decoder_new = reference_classes_new = None

    def __init__(self, *passes: torch.Tensor):
        super().__init__()
        self.passes = passes

    def forward(self, *_) -> Prediction:
        def rendering(logits):
            some = torch.ones(len(logits), 2)
            return Rendering(
                some.new_zeros(len(logits), 3), {CLASSES: logits}, some[:, 0], some, some, some[:, 0] > 0, None
            )

        return Prediction(tuple(map(rendering, self.passes)))


def losses_of(cfg, labels: torch.Tensor, *passes: torch.Tensor) -> dict[str, torch.Tensor]:
    """The losses of passes over a query of one row with these labels."""
    size = (1, len(labels))
    cameras = Cameras(torch.eye(3, 4)[None], torch.eye(3)[None], torch.ones(1, 2), size)
    query = Views(cameras, torch.zeros(1, 3, *size), labels=labels[None, None])
    pixels = torch.stack([torch.arange(len(labels)), torch.zeros(len(labels))], -1)[None]
    return Objective(Shown(*passes), cfg, True)(query, query, pixels, None)[0]


def test_pseudo_labels_are_what_the_last_pass_is_sure_of_where_there_is_no_label(config):
    cfg = config(num_classes=K, semantic_loss_scale=1.0, pseudo_labels=0.9)
    labels = torch.tensor([K, K, K, 2])
    fine = torch.zeros(4, K + 1)
    fine[0, 1], fine[1, 1], fine[2, K], fine[3, 0] = (
        5,
        1,
        9,
        9,
    )  # sure, unsure, sure of no class, and labelled otherwise
    coarse = torch.zeros(4, K + 1, requires_grad=True)
    fine.requires_grad_()
    losses = losses_of(cfg, labels, coarse, fine)
    assert losses["pseudo_coarse"].item() == pytest.approx(torch.log(torch.tensor(K + 1.0)).item())
    assert losses["pseudo_fine"].item() == pytest.approx(-fine[0].log_softmax(-1)[1].item(), rel=1e-5)
    losses["pseudo_coarse"].backward()
    assert fine.grad is None and coarse.grad[0].argmin() == 1 and (coarse.grad[1:] == 0).all()
    losses = losses_of(cfg, torch.tensor([1, 2, 0, 2]), coarse, fine)
    assert losses["pseudo_coarse"] == losses["pseudo_fine"] == 0


def test_entropy_counts_in_every_pass_where_there_is_no_label(config):
    cfg = config(num_classes=K, entropy_loss_scale=2.0)
    even = torch.zeros(3, K + 1)
    losses = losses_of(
        cfg, torch.tensor([K, 1, K]), even, 50 * torch.nn.functional.one_hot(torch.arange(3), K + 1).float()
    )
    assert losses["entropy_coarse"].item() == pytest.approx(2 * torch.log(torch.tensor(float(K))).item())
    assert losses["entropy_fine"] < 1e-6
    assert losses_of(cfg, torch.tensor([0, 1, 2]), even, even)["entropy_fine"] == 0


def test_a_step_has_the_losses_that_its_config_asks_for(config):
    plain = losses_of_a_step(config)
    assert not [name for name in plain if name.startswith(("entropy", "consistency", "pseudo"))]
    losses = losses_of_a_step(config, entropy_loss_scale=0.1, consistency_loss_scale=0.1, pseudo_labels=0.999)
    assert {"entropy_surface", "entropy_refined", "consistency", "pseudo_surface", "pseudo_refined"} <= losses.keys()
    assert losses["entropy_surface"] > 0.1  # of 20 classes that are about as likely
    assert 0.001 < losses["consistency"] < 0.1  # of two predictions that are about as unsure
    assert losses["pseudo_surface"] == losses["pseudo_refined"] == 0  # nothing is that sure
    sure = losses_of_a_step(config, semantic_loss_scale=1.0, pseudo_labels=0.999)
    assert sure["pseudo_refined"] < 0.01 < sure["pseudo_surface"]  # rays learn what the decoder is sure of


def test_consistency_teaches_rays_and_references_and_is_refused_without_classes_of_the_references(config):
    cfg = config(**PLUS, val_set_list=[], few_labels=FEW, consistency_loss_scale=1.0)
    trainer = Trainer(cfg)
    trainer.start_or_resume()
    batch = trainer.training_set[0].to("cpu")
    losses, _ = trainer.updates.objective(batch.references, batch.query, batch.pixels, None)
    trainer.updates.gradients.zero_()
    losses["consistency"].backward()
    network = trainer.network
    for layer in (network.agg_net.agg_impl.semantic_fc2_new, network.reference_classes_new):
        assert layer.weight.grad.abs().max() > 0
    assert (network.query_decoder_new.out.weight.grad == 0).all()
    cfg = config(consistency_loss_scale=0.1)
    with pytest.raises(UserError, match="consistency_loss_scale needs reference_classes: true"):
        Objective(build_network(cfg, "cpu"), cfg, True)
