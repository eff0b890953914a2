"""What helps a network to learn classes from few labels."""

import pytest
import torch

from train.losses import semantic_loss

K = 4


def test_label_smoothing_keeps_a_network_from_trusting_each_label():
    target = torch.tensor([1, 3, K])
    sure = torch.nn.functional.one_hot(target, K + 1) * 20.0
    smoothed = torch.full((K + 1,), 0.1 / (K + 1))
    smoothed[1] += 0.9
    assert semantic_loss(sure, target, K) < 1e-6 and semantic_loss(sure, target, K, 0.1) > 1
    best = smoothed.log().expand(1, -1)
    lowest = semantic_loss(best, target[:1], K, 0.1)
    assert lowest == pytest.approx(-(smoothed * smoothed.log()).sum().item(), rel=1e-5)
