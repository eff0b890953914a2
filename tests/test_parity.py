"""The network against recorded outputs of the published one.

Runs every case (NAME.json + NAME.npz) in the folder that SRAY_PARITY_DIR names, tests/data/parity by default.
What to build is decided by each case's own config.
"""

import functools
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dataset.views import Batch, Cameras, Sources, Views
from network.renderer import Renderer
from tests.reference import plain
from train.settings import SCHEMA
from utils.config import check_config

FOLDER = Path(os.environ.get("SRAY_PARITY_DIR", Path(__file__).parent / "data" / "parity"))
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def fill(name: str, shape) -> np.ndarray:
    """Every parameter is drawn from its own name, so that a wrong name shows as a wrong result."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return 1 + 0.2 * rng.random(shape)
    if name.endswith("running_mean"):
        return 0.1 * rng.standard_normal(shape)
    if len(shape) >= 2:
        return rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])) * 1.3
    return (1 if name.endswith("weight") else 0) + 0.1 * rng.standard_normal(shape)


def build(config: dict) -> Renderer:
    network = Renderer(check_config(config, SCHEMA)).eval()
    state = {
        name: torch.from_numpy(fill(name, tuple(value.shape))).to(value.dtype)
        for name, value in network.state_dict().items()
        if value.is_floating_point() and "imagenet_" not in name
    }
    network.load_state_dict(state, strict=False)
    return network


def views(arrays, prefix: str) -> Views | None:
    if f"{prefix}.imgs" not in arrays:
        return None
    tensors = {
        key: torch.from_numpy(arrays[f"{prefix}.{key}"])
        for key in ("imgs", "depth", "poses", "Ks", "depth_range", "labels")
    }
    cameras = Cameras(tensors["poses"], tensors["Ks"], tensors["depth_range"], tuple(tensors["imgs"].shape[-2:]))
    return Views(cameras, tensors["imgs"], tensors["depth"], tensors["labels"][:, 0])


def load(case: str):
    description = json.loads((FOLDER / f"{case}.json").read_text())
    arrays = dict(np.load(FOLDER / f"{case}.npz"))
    references = views(arrays, "ref")
    if "ref.nn_ids" in arrays:
        references = replace(references, sources=Sources(views(arrays, "src"), torch.from_numpy(arrays["ref.nn_ids"])))
    batch = Batch(references, views(arrays, "que"), torch.from_numpy(arrays["que.coords"]), case, "0")
    return description, arrays, batch


@pytest.mark.parametrize("case", CASES)
def test_state_dict_names_and_shapes(case):
    description, _, _ = load(case)
    ours = {name: list(value.shape) for name, value in build(description["config"]).state_dict().items()}
    assert ours == {name: list(shape) for name, shape in description["state_dict"].items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("by", ["reference", "modules"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case, by, device):
    description, arrays, batch = load(case)
    network, batch = build(description["config"]).to(device), batch.to(device)
    tolerance = 1e-3
    fine_logits_tolerance = 5e-3 if description["config"]["init_net_type"] == "cost_volume" else tolerance

    def check(actual: torch.Tensor, key: str, atol: float = tolerance):
        expected = arrays[key]
        np.testing.assert_allclose(
            actual.detach().cpu().numpy().reshape(expected.shape), expected, atol=atol, rtol=tolerance, err_msg=key
        )

    image_features = network.image_encoder(batch.references.images)
    geometry = network.init_net(batch.references, image_features).features
    check(geometry, "stage.init_net")
    check(image_features, "stage.image_encoder")
    check(network.vis_encoder(image_features, geometry), "stage.vis_encoder")

    stages = [functools.partial(plain.render, stage) for stage in network.stages] if by == "reference" else None
    prediction = network(batch.references, batch.query.cameras, batch.pixels, stages=stages)
    target_color = torch.from_numpy(arrays["target.rgb"][0]).to(device)
    target_label = torch.from_numpy(arrays["target.label"]).to(device)
    loss = 0
    for rendering, suffix in zip(prediction.passes, ("", "_fine"), strict=False):
        check(rendering.color, f"out.pixel_colors_nr{suffix}")
        check(rendering.hit_probability, f"out.hit_prob_nr{suffix}")
        assert (rendering.scored.cpu().numpy() == arrays[f"out.ray_mask{suffix}"][0]).all()
        loss = loss + (rendering.color - target_color).square().sum(-1).mean()
        if rendering.logits is not None:
            check(rendering.logits, f"out.pixel_label_nr{suffix}", fine_logits_tolerance if suffix else tolerance)
            loss = loss + F.cross_entropy(rendering.logits, target_label)
    check(loss, "out.loss", 1e-2)

    loss.backward()
    for name, parameter in network.named_parameters():
        expected = description["grad_norm"].get(name)
        if expected is not None:
            actual = 0.0 if parameter.grad is None else parameter.grad.norm().item()
            assert actual == pytest.approx(expected, rel=2e-2, abs=1e-6), name
