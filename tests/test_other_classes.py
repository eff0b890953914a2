"""Fine-tuning for other classes than those of the weights it starts from."""

from pathlib import Path

import pytest
import torch

from network.weights import Checkpoint, load_checkpoint
from tests.test_surfaces import PLUS
from train.checkpoint import checkpoint_content, load_pretrained, save_checkpoint
from train.commands import evaluate_model
from train.run import build_network
from train.schedule import build_optimizer
from train.trainer import Trainer
from utils.errors import UserError

NAMES = ("lamp", "wall", "floor")
HEADS = {"agg_net.agg_impl.semantic_fc2_new", "reference_classes_new"}
DECODER = {"query_decoder_new.stem", "query_decoder_new.out"}


@pytest.fixture
def three(config, tmp_path):
    """A checkpoint of three named classes, and its path. No parameter of it is what another seed draws, or zero."""
    cfg = config(**PLUS, num_classes=len(NAMES), seed=1)
    network = build_network(cfg, "cpu")
    torch.nn.init.normal_(network.query_decoder_new.out.weight)
    content = checkpoint_content(network, build_optimizer(network, cfg), 7, 7, 0.5, cfg, NAMES)
    save_checkpoint(tmp_path / "three.pth", content)
    return load_checkpoint(tmp_path / "three.pth"), str(tmp_path / "three.pth")


def rows(state: dict, layer: str, count: int) -> torch.Tensor:
    """The weights of a layer's classes, (K+1, …)."""
    weight = state[f"{layer}.weight"]
    return (weight.transpose(0, 1) if layer.endswith("stem") else weight)[-count - 1 :]


def test_classes_of_the_same_name_and_all_other_layers_are_taken_over(config, three):
    ours = ("floor", "plant", "wall", "sofa")
    network = build_network(config(**PLUS, num_classes=4), "cpu")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = load_pretrained(network, three[0], ours)
    state, theirs = network.state_dict(), three[0].network
    assert set(report.classes.layers) == HEADS | DECODER and report.missing == report.left_over == []
    assert report.classes.kept == ("floor", "wall") and report.classes.new == ("plant", "sofa")
    for layer in HEADS | DECODER:
        mine, other, fresh = rows(state, layer, 4), rows(theirs, layer, 3), rows(before, layer, 4)
        for own, their in ((0, 2), (2, 1), (4, 3)):  # floor, wall and "invalid"
            assert torch.equal(mine[own], other[their]), layer
        for own in (1, 3):
            assert torch.equal(mine[own], fresh[own]), layer
    same = [name for name in state if name.rpartition(".")[0] not in HEADS | DECODER]
    assert all(torch.equal(state[name], theirs[name]) for name in same) and len(same) > 100
    fixed = state["query_decoder_new.stem.weight"].shape[1] - 5
    assert torch.equal(*(x["query_decoder_new.stem.weight"][:, :fixed] for x in (state, theirs)))
    assert torch.equal(*(x["query_decoder_new.out.weight"][:3] for x in (state, theirs)))


def test_as_many_classes_in_another_order_are_told_by_name(config, three):
    network = build_network(config(**PLUS, num_classes=3), "cpu")
    load_pretrained(network, three[0], NAMES[::-1])
    mine, theirs = network.state_dict(), three[0].network
    for layer in HEADS:
        assert torch.equal(rows(mine, layer, 3)[:3], rows(theirs, layer, 3)[:3].flip(0))
    assert load_pretrained(network, three[0], ()).classes is None  # without names they are taken for the same
    assert torch.equal(rows(mine, "reference_classes_new", 3), rows(theirs, "reference_classes_new", 3))


def test_without_names_all_classes_are_new(config, three):
    network = build_network(config(**PLUS, num_classes=5), "cpu")
    before = rows(network.state_dict(), "reference_classes_new", 5).clone()
    report = load_pretrained(network, three[0])
    assert report.classes.kept == report.classes.new == () and "with all classes new" in str(report)
    assert torch.equal(rows(network.state_dict(), "reference_classes_new", 5)[:5], before[:5])


def test_the_published_network_takes_other_classes_too(config):
    theirs, network = (build_network(config(num_classes=k, seed=k), "cpu") for k in (7, 20))
    checkpoint = Checkpoint(Path("theirs.pth"), theirs.state_dict(), None, 0, 0, 0.0, None)
    report = load_pretrained(network, checkpoint)
    assert {layer.partition(".")[0] for layer in report.classes.layers} == {"agg_net", "fine_agg_net"}
    name = "agg_net.agg_impl.base_fc.0.weight"
    assert torch.equal(network.state_dict()[name], theirs.state_dict()[name])


def test_a_run_for_other_classes_says_which_are_new_and_an_evaluation_is_refused(config, three, capsys):
    changes = {**PLUS, "total_step": 1, "val_set_list": [], "load_pretrain": three[1]}
    Trainer(config(**changes)).run()
    said = capsys.readouterr()
    started = next(line for line in said.out.splitlines() if line.startswith("starts from"))
    assert "reference_classes_new" in started and "with wall, floor as they were" in started
    assert "three.pth knows no class cabinet, bed" in said.err and "but lamp, wall, floor" in said.err
    with pytest.raises(UserError, match="was trained for 3 classes, but the config asks for 20"):
        evaluate_model(config(**PLUS), three[1])
