"""Labels of the references, where they have some, in place of the classes that a network finds in them."""

from dataclasses import replace

import pytest
import torch

from dataset.database import open_scene
from dataset.render_dataset import Needs, TestSet, TrainingSet
from network.backend import Backend
from network.init_net import needs as renderer_needs
from network.rendering import KNOWN
from network.view_renderer import ViewRenderer
from tests.test_surfaces import LARGE, PLUS
from train import run
from train.evaluator import evaluate
from train.report import report, summary_table
from train.run import build_network
from train.step import TrainingStep
from train.trainer import Trainer
from utils.errors import UserError

K = 20


@pytest.fixture(scope="module")
def batch(rooms):
    needs = Needs(depth=True, known_labels=True)
    return TestSet(open_scene("scannet/test_000/black_64", rooms), 4, needs)[0].to("cpu")


@pytest.fixture
def renderers(config):
    """The same untrained network without labels and with them; its decoder corrects nothing yet."""
    plain, given = (build_network(config(**PLUS, use_reference_labels=asked), "cpu") for asked in (False, True))
    given.load_state_dict(plain.state_dict())
    return ViewRenderer(plain), ViewRenderer(given)


def logits(renderer, references, query) -> torch.Tensor:
    return renderer.render(renderer.encode(references), query).logits


def test_true_labels_are_rendered_where_they_belong_by_an_untrained_network(batch, renderers):
    truth, known = batch.query.labels.flatten(), batch.query.labels.flatten() != K

    def agreement(renderer):
        found = logits(renderer, batch.references, batch.query.cameras).argmax(-1)
        return (found == truth)[known].float().mean().item()

    without, given = map(agreement, renderers)
    assert given > 0.8 > 0.4 > without
    layer = renderers[1].network.reference_classes_new  # what it finds in the references itself does not count there
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=30)
    assert agreement(renderers[1]) > given - 0.05


def test_without_labels_the_network_finds_the_classes_itself_and_unlabelled_references_take_part(batch, renderers):
    plain, given = renderers
    unknown = replace(batch.references, labels=torch.full_like(batch.references.labels, K))
    expected = logits(plain, batch.references, batch.query.cameras)
    for references in (unknown, replace(unknown, labels=None)):
        torch.testing.assert_close(logits(given, references, batch.query.cameras), expected, atol=1e-4, rtol=1e-4)
    one = batch.references.labels.clone()
    one[1:] = K
    mixed = logits(given, replace(batch.references, labels=one), batch.query.cameras)
    everything = logits(given, batch.references, batch.query.cameras)
    known = batch.query.labels.flatten() != K
    sureness = [
        x.softmax(-1).gather(1, batch.query.labels.flatten()[:, None])[known].mean()
        for x in (expected, mixed, everything)
    ]
    assert sureness[0] < sureness[1] < sureness[2]


@pytest.fixture
def partly(batch):
    """References of which one has no labels, and another one only a few."""
    labels = batch.references.labels.clone()
    labels[1], labels[2, :, 20:] = K, K
    return replace(batch.references, labels=labels)


def test_a_cpu_renders_the_same_fast_as_plainly(batch, partly, renderers):
    """Rays come in groups by the number of their samples, however they are rendered."""
    network, query = renderers[1].network, batch.query.cameras
    plain, fast = (
        ViewRenderer(network, Backend.for_rendering(name, torch.device("cpu"))) for name in ("plain", "fast")
    )
    for references in (partly, replace(partly, labels=None)):
        expected, found = (x.render(x.encode(references), query) for x in (plain, fast))
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.color, expected.color)


def test_half_precision_renders_nearly_the_same_and_loses_no_label(batch, partly, renderers):
    network, cpu = renderers[1].network, torch.device("cpu")
    plain, half = (ViewRenderer(network, Backend(cpu, half=asked)) for asked in (False, True))
    expected, found = (x.render(x.encode(partly), batch.query.cameras) for x in (plain, half))
    ours, theirs = (x.heads[KNOWN][:, : K + 1] for x in (found, expected))
    assert ours.dtype == torch.float32 and ours.sum(1).sub(1).abs().max() < 1e-5
    assert (ours - theirs).abs().mean() < 2e-3
    assert (found.logits.argmax(1) == expected.logits.argmax(1)).float().mean() > 0.97


def test_a_step_of_training_in_half_precision_learns_nearly_the_same(config):
    cfg = config(**PLUS, use_reference_labels=True, few_labels={"frames": 0.5}, consistency_loss_scale=0.1)
    batch = TrainingSet(cfg, 0, renderer_needs(cfg))[0].to("cpu")
    steps = []
    for half in (False, True):
        step = TrainingStep(build_network(cfg, "cpu"), cfg, Backend(torch.device("cpu"), half))
        step.differentiate(batch.references, batch.query, batch.pixels, None)
        steps.append(step)
    gradients = [step.gradients for step in steps]
    assert steps[0]._losses == steps[1]._losses and gradients[1].isfinite().all()
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


def test_it_is_trained_evaluated_and_reported_under_a_name_of_its_own(config):
    changes = {"total_step": 1, "val_set_list": LARGE, "baselines": True, "few_labels": {"frames": 0.5}}
    cfg = config(**PLUS, use_reference_labels=True, **changes)
    trainer = Trainer(cfg)
    trainer.run()
    result = evaluate(ViewRenderer(trainer.network), run.test_sets(cfg), torch.device("cpu"), 0, baselines=True)
    content = report(result, {"name": "run"})
    assert content["network"] == "S-Ray+ (labels of the references)"
    assert "| S-Ray+ (labels of the references) |" in summary_table(content)
    with pytest.raises(UserError, match="use_reference_labels: true needs reference_classes"):
        build_network(config(use_reference_labels=True), "cpu")
