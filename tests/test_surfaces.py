"""S-Ray+: layers of surfaces against loops, evidence of depth, the decoder in the query view, and a training with all
of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dataset.database import open_scene
from dataset.render_dataset import Needs, TestSet, random_patches
from dataset.view_selection import training_references
from dataset.views import Cameras, Views
from network.backend import Backend
from network.compositing import end_at_last, modal_depth
from network.front_ends.learned_depth import ConvexUpsampling
from network.geometry import pixel_grid, project
from network.ops.splat import see_surface
from network.query_decoder import QueryDecoder, from_around
from network.rendering import camera_rays
from network.samplers import OnSurfaces
from network.sight import Evidence, Sight, look_at_surfaces
from network.surfaces import (
    LONE_SPREAD,
    depth_disagreement,
    find_layers,
    group_depths,
    interpolate_depth,
    read_neighbours,
    reference_surfaces,
    with_neighbours,
)
from network.view_renderer import ViewRenderer
from network.weights import load_checkpoint
from train import run
from train.checkpoint import load_pretrained
from train.evaluator import evaluate
from train.losses import ssim_loss
from train.metrics import ssim
from train.run import build_network, load_trained
from train.trainer import Trainer
from utils.errors import UserError

PLUS = {
    "sampler": "surfaces",
    "use_hierarchical_sampling": False,
    "image_encoder": "context",
    "reference_classes": True,
    "query_decoder": True,
    "density_activation": "softplus",
    "density_bias": -0.5,
    "ray_mask_view_num": 0,
    "ray_mask_point_num": 0,
    "termination_loss_scale": 0.5,
    "ssim_loss_scale": 0.2,
    "train_dataset_cfg": {"patch": [16, 24], "min_wn": 3, "max_wn": 4, "reference_stride": 3},
}

LARGE = ["scannet/val_000/black_64"]  # the encoder takes no images of 32 pixels


@pytest.fixture(scope="module")
def batch(rooms):
    test = TestSet(open_scene("scannet/test_000/black_64", rooms), 4, Needs(depth=True), reference_labels=True)
    return test[0].to("cpu")


def slanted_wall(cameras: Cameras, normal, distance: float) -> torch.Tensor:
    """Exact z-depth of the plane n.x = distance in cameras: (V, 1, h, w)."""
    height, width = cameras.size
    rays = camera_rays(cameras, pixel_grid(height, width).expand(len(cameras), -1, -1))
    normal = torch.tensor(normal)
    depth = (distance - rays.centres @ normal) / (rays.directions @ normal)
    return depth.view(len(cameras), 1, height, width)


def facing(*centres) -> Cameras:
    """Cameras at these places that look along z."""
    poses = torch.eye(4)[:3].repeat(len(centres), 1, 1)
    poses[:, :, 3] = -torch.tensor(centres)
    K = torch.tensor([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]]).repeat(len(centres), 1, 1)
    return Cameras(poses, K, torch.tensor([[0.3, 10.0]]).repeat(len(centres), 1), (48, 64))


def test_rays_meet_a_slanted_surface_far_more_exactly_than_splats_land_on_it():
    cameras, query = facing((0.2, 0.0, 0.0), (-0.2, 0.1, 0.1), (0.0, -0.2, -0.1)), facing((0.03, 0.02, 0.05))
    plane = (0.2, 0.1, 1.0), 3.0
    maps = with_neighbours(slanted_wall(cameras, *plane))
    rays = camera_rays(query, pixel_grid(48, 64)[None])
    layers = find_layers(rays, maps, cameras, query)
    truth = slanted_wall(query, *plane).flatten()
    inner = (pixel_grid(48, 64) - torch.tensor([32, 24])).abs().amax(-1) < 16
    error = ((layers.depth[:, 0] - truth).abs() / truth)[inner & layers.found]
    assert layers.found[inner].all() and error.max() < 1e-4
    assert (layers.depth[inner, 1:] == 0).all()  # one surface has one layer


def layers_by_loops(depths: np.ndarray) -> list[list[float]]:
    """The rule of `group_depths`, of one ray."""
    left = sorted(depth for depth in depths if depth > 0)

    def members(depth):
        return [other for other in left if abs(math.log(other) - math.log(depth)) < 0.03]

    first = [depth for depth in left if len(members(depth)) > 1] or left
    layers = []
    while first and len(layers) < 3:
        group = members(first[0])
        layers.append(float(np.exp(np.mean(np.log(group)))))
        left = first = [depth for depth in left if depth not in group]
    return layers + [0.0] * (3 - len(layers))


def test_depths_are_grouped_as_a_loop_groups_them():
    generator = torch.Generator().manual_seed(0)
    surfaces = torch.tensor([1.0, 1.4, 2.5, 4.0])
    chosen = surfaces[torch.randint(4, (6, 200), generator=generator)]
    depths = chosen * (1 + 0.004 * torch.randn(6, 200, generator=generator))
    depths = torch.where(torch.rand(6, 200, generator=generator) < 0.3, 0, depths)
    layers = group_depths(depths)
    expected = torch.tensor([layers_by_loops(ray) for ray in depths.T.numpy()])
    torch.testing.assert_close(layers.depth, expected)
    assert (layers.found == (depths > 0).any(0)).all()


def test_a_layer_that_one_reference_tells_alone_has_a_spread_of_its_own():
    depths = torch.tensor([[1.0], [2.0], [2.01]])
    layers = group_depths(depths)
    assert layers.depth[0].tolist() == pytest.approx([math.sqrt(2.0 * 2.01), 1.0, 0.0])  # two agree on the first
    assert layers.spread[0, 1] == LONE_SPREAD and layers.spread[0, 0] < 0.003


def test_depth_between_pixels_is_that_of_the_plane_and_never_of_the_air_between_two_surfaces():
    camera = facing((0.0, 0.0, 0.0))
    maps = with_neighbours(slanted_wall(camera, (0.4, 0.2, 1.0), 2.0))
    pixels = torch.tensor([[[10.3, 20.7], [40.5, 30.5]]])
    direction = torch.cat([(pixels[0] - torch.tensor([31.5, 23.5])) / 40, torch.ones(2, 1)], -1)
    expected = 2.0 / (direction @ torch.tensor([0.4, 0.2, 1.0]))
    torch.testing.assert_close(interpolate_depth(*read_neighbours(maps, pixels))[0], expected)
    step = torch.where(torch.arange(64) < 32, 1.0, 3.0).expand(1, 1, 48, 64)
    between = interpolate_depth(*read_neighbours(with_neighbours(step), torch.tensor([[[31.4, 5.0], [31.6, 5.0]]])))
    assert between[0].tolist() == [1.0, 3.0]
    values = read_neighbours(with_neighbours(step), torch.tensor([[[31.5, 5.0]]]))
    for depth in (1.0, 3.0):  # at an edge both surfaces are there
        assert depth_disagreement(*values, torch.tensor([[depth]])) == 0


def test_a_view_does_not_see_what_something_nearer_hides_and_says_nothing_where_it_knows_no_depth():
    cameras = facing((0.0, 0.0, 0.0), (0.1, 0.0, 0.0))
    depth = torch.full((2, 1, 48, 64), 2.0)
    depth[1] = 0
    points = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 2.5]])
    projection = project(points, cameras)
    valid, evidence = look_at_surfaces(with_neighbours(depth), projection, projection.valid)
    assert valid.tolist() == [[True, True, False], [True, True, True]]
    assert evidence.hit[0, 1] == 1 and evidence.hit[0, [0, 2]].max() < 1e-6
    assert evidence.visibility[0, 0] > 0.99 and evidence.visibility[0, 2] < 0.01
    assert (evidence.hit[1] == 0.5).all() and (evidence.visibility[1] == 0.5).all()

    def shown(views: slice, found=None) -> list[bool]:
        """Of the three points, each on a ray of its own."""
        told = Evidence(*(values[views] for values in evidence))
        sight = Sight(valid[views], None, None, 0, None, None, None, torch.Size((3, 1)), told, found)
        return sight.shown[:, 0].tolist()

    assert shown(slice(1)) == [False, True, False], "neither the air before a surface nor what it hides"
    assert shown(slice(1), torch.tensor([True, False, False])) == [True, True, False]
    assert shown(slice(2)) == [True, True, True], "where depth is unknown anything may be"


def test_what_masks_hide_and_padding_adds_is_no_surface():
    cameras = facing((0.0, 0.0, 0.0))
    mask = torch.ones(1, 1, 48, 64)
    mask[..., :10] = 0
    views = Views(cameras, torch.zeros(1, 3, 48, 64), torch.full((1, 1, 48, 64), 2.0), mask=mask)
    maps = reference_surfaces(views, None, (64, 64))
    assert (maps[0, :, :9] == 0).all() and (maps[0, 48:] == 0).all() and (maps[0, :47, 10:] == 2).all()
    with pytest.raises(UserError, match="needs depth of the references"):
        reference_surfaces(replace(views, depth=None), None, (64, 64))


def test_every_ray_ends_and_its_depth_lies_on_one_surface():
    hits = torch.tensor([[0.3, 0.2, 0.1], [0.0, 0.0, 0.0]])
    assert end_at_last(hits).tolist() == [pytest.approx([0.3, 0.2, 0.5]), [0, 0, 1]]
    depths = torch.tensor([[1.0, 1.01, 3.0]])
    assert modal_depth(torch.tensor([[0.3, 0.3, 0.4]]), depths) == 3.0
    assert 1.0 < modal_depth(torch.tensor([[0.35, 0.25, 0.4 - 0.1]]), depths) < 1.01


def test_samples_lie_on_and_around_the_layers_and_are_sorted(batch):
    query = batch.query.cameras
    encoding = build(batch).encode(batch.references)
    sampler = OnSurfaces()
    pixels = torch.tensor([[[5.0, 7.0], [40.0, 20.0], [63.0, 47.0]]])
    rays = sampler.rays(encoding, query, pixels)
    whole = sampler.rays(encoding, query, pixel_grid(*query.size)[None])
    torch.testing.assert_close(rays.layers.depth, whole.layers.depth[[7 * 64 + 5, 20 * 64 + 40, 47 * 64 + 63]])
    depths = sampler.depths(encoding, whole, (), None)
    assert depths.shape == (48 * 64, 5) and (depths.diff(dim=-1) >= 0).all() and (depths > 0).all()
    nearest = (depths / whole.layers.depth[:, :1] - 1).abs().amin(-1)
    assert nearest.max() < 1e-6  # one is on the first layer itself
    jittered = sampler.depths(encoding, whole, (), sampler.draw(48 * 64, torch.Generator().manual_seed(0)))
    assert (
        not torch.equal(jittered, depths) and ((jittered / whole.layers.depth[:, :1] - 1).abs().amin(-1) < 1e-6).all()
    )


def build(batch, **changes):
    from train.settings import SCHEMA
    from utils.config import check_config

    return build_network(check_config({**PLUS, **changes}, SCHEMA), "cpu").eval()


def test_the_decoder_starts_as_the_identity_and_sees_neighbours():
    decoder = QueryDecoder(5, 3)
    rays = torch.randn(2 * 10 * 13, 5)
    assert (decoder(rays, (2, 10, 13)) == 0).all()
    torch.nn.init.normal_(decoder.out.weight)
    before = decoder(rays, (2, 10, 13)).view(2, 10, 13, 3)
    rays.view(2, 10, 13, 5)[0, 4, 6] += 1
    change = (decoder(rays, (2, 10, 13)).view(2, 10, 13, 3) - before).abs().sum(-1) > 1e-6
    assert change[0].sum() > 9 and not change[1].any()


def test_a_pixel_is_the_same_in_a_patch_and_in_the_whole_view(batch):
    network = build(batch, query_decoder=False)
    rows, columns = slice(8, 24), slice(16, 40)
    pixels = pixel_grid(48, 64).view(48, 64, 2)[rows, columns].reshape(1, -1, 2)
    with torch.no_grad():
        whole = network(batch.references, batch.query.cameras, pixel_grid(48, 64)[None], patch=(48, 64)).final
        patch = network(batch.references, batch.query.cameras, pixels, patch=(16, 24)).final
    for ours, theirs in ((patch.color, whole.color), (patch.logits, whole.logits), (patch.depth, whole.depth)):
        expected = theirs.view(48, 64, -1)[rows, columns].reshape(16 * 24, -1)
        torch.testing.assert_close(ours.view(16 * 24, -1), expected, rtol=1e-4, atol=1e-4)


def test_untrained_it_shows_sharper_pictures_and_truer_depth_than_it_could_by_chance(batch):
    network = build(batch)
    view = ViewRenderer(network).render(network.encode(batch.references), batch.query.cameras)
    truth = batch.query.depth.flatten()
    known = truth > 0
    assert ((view.depth - truth).abs() / truth)[known].median() < 0.02
    error = (view.color.T.view(3, 48, 64) - batch.query.images[0]).square().mean()
    assert -10 * math.log10(error) > 20


def test_pixels_that_no_view_shows_take_a_colour_and_are_not_black(batch):
    network = build(batch, query_decoder=False)
    turned = batch.query.cameras
    turn = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    away = replace(turned, poses=turn @ turned.poses)  # looks where no reference does
    view = ViewRenderer(network).render(network.encode(batch.references), away)
    assert (view.color.sum(-1) > 0.02).float().mean() > 0.99
    assert not view.seen.any()


def test_pixels_that_no_view_shows_are_told_and_those_whose_depth_is_unknown_are_none_of_them(batch):
    network, query, references = build(batch), batch.query, batch.references

    def seen_from(views):
        return ViewRenderer(network).render(network.encode(views), query.cameras).seen

    few = replace(references, **{name: getattr(references, name)[:1] for name in ("cameras", "images", "depth")})
    sighting = see_surface(few, query.cameras, query.depth[0, 0])
    seen = seen_from(few)
    hidden = ~sighting.seen & (query.depth.flatten() > 0)
    assert 0.02 < (~seen).float().mean() < 0.9
    assert hidden[~seen].float().mean() > 0.9 and (~seen)[hidden].float().mean() > 0.4
    blind = few.depth.clone()
    blind[..., 10:40, 10:50] = 0  # which a sensor did not measure, but the image shows
    assert (seen_from(replace(few, depth=blind)) | ~seen).float().mean() > 0.97


def test_patches_are_rectangles_row_by_row_and_must_fit(batch):
    pixels = random_patches(batch.query, (4, 6), np.random.default_rng(0))
    assert pixels.shape == (1, 24, 2)
    x, y = pixels[0].view(4, 6, 2).unbind(-1)
    assert (x.diff(dim=1) == 1).all() and (y.diff(dim=0) == 1).all() and (x[0] == x[1]).all()
    with pytest.raises(UserError, match="larger than the images"):
        random_patches(batch.query, (49, 6), np.random.default_rng(0))


def test_references_of_a_stride_are_every_kth_frame():
    centres = np.stack([np.arange(60.0), np.zeros(60), np.zeros(60)], -1)
    strides = set()
    for seed in range(30):
        chosen = training_references(centres, 30, (4, 5), np.random.default_rng(seed), widest_stride=5)
        assert len(chosen) == 4
        strides.add(int(np.gcd.reduce(np.diff(np.sort(chosen)))))
    assert {1, 2, 3, 4, 5} <= strides
    short = training_references(centres[:8], 3, (4, 5), np.random.default_rng(0), widest_stride=5)
    assert len(short) == 4


def test_the_loss_of_structure_is_the_metric():
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(1, 3, 32, 40, generator=generator)
    second = (first + 0.1 * torch.randn(1, 3, 32, 40, generator=generator)).clamp(0, 1)
    images = [(x[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for x in (first, second)]
    assert 1 - ssim_loss(first, second).item() == pytest.approx(ssim(*images), abs=0.01)


def test_it_trains_and_what_is_kept_renders_the_same(config, rooms):
    cfg = config(**PLUS, total_step=4, val_interval=4, save_interval=4, val_set_list=LARGE)
    trainer = Trainer(cfg)
    trainer.run()
    names = set(trainer.log[-1].losses) if trainer.log else set()
    network, _ = load_trained(cfg, torch.device("cpu"), trainer.checkpoints.latest)
    changed = build_network(cfg, torch.device("cpu")).state_dict()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, changed[name])}
    for part in ("image_encoder", "reference_classes_new", "query_decoder_new", "agg_net", "init_net", "vis_encoder"):
        assert any(name.startswith(part) for name in moved), part
    result = evaluate(ViewRenderer(network), run.test_sets(cfg), torch.device("cpu"), 0)
    (score,) = result.network_scores.values()
    assert result.network == "S-Ray+"
    assert np.mean(score.psnr) > 20 and not names & {"termination_refined", "ssim_surface"}


def test_a_faithful_checkpoint_gives_what_agrees(config, tmp_path):
    faithful = build_network(config(seed=3), torch.device("cpu"))
    checkpoint_file = tmp_path / "faithful.pth"
    torch.save({"network_state_dict": faithful.state_dict()}, checkpoint_file)
    plus = build_network(config(**PLUS), torch.device("cpu"))
    before = plus.state_dict()["query_decoder_new.stem.weight"].clone()
    report = load_pretrained(plus, load_checkpoint(checkpoint_file))
    state, theirs = plus.state_dict(), faithful.state_dict()
    for name in ("agg_net.agg_impl.base_fc.0.weight", "vis_encoder.out_conv.0.weight", "init_net.conv_out.weight"):
        assert torch.equal(state[name], theirs[name]) and name in report.loaded
    assert torch.equal(state["query_decoder_new.stem.weight"], before)
    assert "query_decoder_new.stem.weight" in report.missing
    assert "dist_decoder.mean_decoder.0.weight" in report.left_over
    with pytest.raises(UserError, match="no parameter that agrees"):
        torch.save({"network_state_dict": {"dist_decoder.x": torch.zeros(1)}}, checkpoint_file)
        load_pretrained(plus, load_checkpoint(checkpoint_file))


def test_without_a_depth_sensor_predicted_depth_is_sampled(config, rooms):
    cfg = config(
        **PLUS, init_net_type="learned_depth", total_step=2, val_interval=2, save_interval=2, val_set_list=LARGE
    )
    trainer = Trainer(cfg)
    trainer.run()
    network = trainer.network.eval()
    references = TestSet(open_scene("scannet/test_000/black_64", rooms), 4, Needs())[0].references.to("cpu")
    assert references.depth is None
    encoding = network.encode(references)
    inner = encoding.surfaces[:, 4:40, 4:60, 0]
    assert not encoding.surfaces.requires_grad and (inner > 0).all()
    coarse = encoding.depth[:, :, 1:10, 1:15]
    assert inner.min() >= 0.9 * encoding.depth.min() and inner.max() <= 1.1 * encoding.depth.max() and coarse.min() > 0


def test_classes_of_the_references_need_no_patch(config):
    section = {"min_wn": 3, "max_wn": 4, "train_ray_num": 24}
    changes = {"query_decoder": False, "ssim_loss_scale": 0.0, "train_dataset_cfg": section}
    trainer = Trainer(config(**{**PLUS, **changes}, total_step=1, val_set_list=[]))
    trainer.run()
    assert trainer.step == 1


def test_what_needs_a_patch_says_so(config):
    with pytest.raises(UserError, match="need train_dataset_cfg.patch"):
        Trainer(config(**{**PLUS, "train_dataset_cfg": {"min_wn": 3, "max_wn": 4}})).run()
    with pytest.raises(UserError, match=r"should be \[height, width\]"):
        Trainer(config(**{**PLUS, "train_dataset_cfg": {"min_wn": 3, "max_wn": 4, "patch": [16]}}))


MERGED = {"init_net_type": "learned_depth", "init_net_cfg": {"measured_depth": True, "upsampling": "convex"}}


def test_what_the_sensor_did_not_see_is_predicted_and_the_rest_is_measured(batch):
    network = build(batch, **MERGED)
    measured = batch.references.depth.clone()
    measured[:, :, :, 20:40] = 0
    encoding = network.encode(replace(batch.references, depth=measured))
    surfaces = encoding.surfaces[:, :48, :64, 0]
    torch.testing.assert_close(surfaces[:, :, :20], measured[:, 0, :, :20])
    torch.testing.assert_close(surfaces[:, :, 20:40], encoding.depth[:, 0, :48, 20:40])
    assert encoding.depth.shape[-2:] == encoding.cameras.size and (surfaces[:, :, 20:40] > 0).all()
    without = network.encode(replace(batch.references, depth=None)).surfaces[:, :48, :64, 0]
    torch.testing.assert_close(without, encoding.depth[:, 0, :48, :64])
    other = build(batch, **{**MERGED, "init_net_cfg": {"measured_depth": False, "upsampling": "convex"}})
    torch.testing.assert_close(other.encode(batch.references).surfaces[:, :48, :64, 0], without)


def test_nothing_is_predicted_where_all_depth_is_measured(batch):
    network, complete = build(batch, **MERGED), batch.references.depth.clamp_min(0.5)
    references = replace(batch.references, depth=complete)
    predicted = network.train().encode(references)
    spared = network.eval().encode(references)
    assert spared.depth is None and predicted.depth is not None
    torch.testing.assert_close(spared.surfaces, predicted.surfaces)
    torch.testing.assert_close(spared.features, predicted.features)


def test_a_renderer_tells_the_network_whether_depth_is_complete(batch, monkeypatch):
    renderer, told = ViewRenderer(build(batch, **MERGED)), []
    complete = batch.references.depth.clamp_min(0.5)
    with_hole = complete.clone()
    with_hole[0, 0, 3, 4] = 0
    monkeypatch.setattr(renderer, "_encode", lambda references: told.append(references.complete))
    for depth in (complete, with_hole):
        renderer.encode(replace(batch.references, depth=depth))
    assert told == [True, False]


def test_convex_upsampling_keeps_planes_and_follows_its_features():
    torch.manual_seed(0)
    upsampling, features = ConvexUpsampling(4, 4), torch.randn(2, 4, 5, 6)
    maps = torch.rand(2, 1, 5, 6)
    torch.testing.assert_close(upsampling(torch.full_like(maps, 1.5), features), torch.full((2, 1, 20, 24), 1.5))
    sharp = upsampling(maps, features)
    lowest, highest = (F.max_pool2d(sign * F.pad(maps, (1,) * 4, mode="replicate"), 3, 1) * sign for sign in (-1, 1))
    lowest, highest = (F.interpolate(x, scale_factor=4, mode="nearest") for x in (lowest, highest))
    assert (sharp >= lowest - 1e-6).all() and (sharp <= highest + 1e-6).all()  # means of the 3x3 around
    torch.nn.init.zeros_(upsampling.weigh[-1].weight)
    torch.nn.init.zeros_(upsampling.weigh[-1].bias)
    with torch.no_grad():
        upsampling.weigh[-1].bias.view(9, 16)[4] = 100.0  # the weight of the middle
    torch.testing.assert_close(upsampling(maps, features), F.interpolate(maps, scale_factor=4, mode="nearest"))


def test_rays_that_nobody_sees_show_what_is_around_them():
    seen = torch.zeros(2, 8, 8, dtype=torch.bool)
    seen[0, 1, 1] = seen[1, :, :2] = seen[1, :, 6:] = True
    values = torch.arange(128.0)[:, None].requires_grad_()
    filled, nothing = from_around((values, None), seen.flatten(), (2, 8, 8))
    assert nothing is None and (filled[:64] == 9).all()
    assert torch.equal(filled[64:].view(8, 8)[seen[1]], values[64:].view(8, 8)[seen[1]])
    between = filled[64:].view(8, 8)[4, 2:6]
    assert (between > 64).all() and (between.diff().abs() < 8).all()  # no step where nothing is known
    filled.sum().backward()
    assert torch.equal(values.grad[:, 0], seen.flatten().float())


def test_rays_that_meet_one_surface_have_one_sample_and_lie_in_their_places(batch):
    network, query = build(batch, **MERGED), batch.query.cameras
    encoding = network.encode(batch.references)
    rays = network.sampler.rays(encoding, query, pixel_grid(*query.size)[None])
    groups = network.sampler.groups(rays)
    assert sorted(torch.cat([places for places, _ in groups]).tolist()) == list(range(len(rays)))
    (places, single), (others, several) = groups
    assert len(others) == network.sampler.count_full(rays)
    assert (rays.layers.depth[places, 1:] == 0).all() and rays.layers.found[places].all()
    assert torch.equal(network.sampler.depths(encoding, single, (), None), rays.layers.depth[places, :1])
    assert network.sampler.depths(encoding, several, (), None).shape == (len(others), 5)
    view = ViewRenderer(network).render(encoding, query)
    for of_group, part in groups:
        by_hand = network.render_rays(encoding, part).final
        shown = by_hand.seen
        torch.testing.assert_close(view.depth[of_group][shown], by_hand.depth[shown], rtol=1e-4, atol=1e-4)


def test_room_for_more_rays_than_need_it_changes_nothing(batch):
    network, query = build(batch, **MERGED), batch.query.cameras
    encoding = network.encode(batch.references)
    rays = network.sampler.rays(encoding, query, pixel_grid(*query.size)[None])
    _, (needed, _) = network.sampler.groups(rays)
    (everywhere, single), (places, several) = network.sampler.groups(rays, len(needed) + 7)
    assert everywhere is None and len(single) == len(rays) and single.layers.depth.shape[1] == 1
    assert len(places) == len(needed) + 7 and set(places.tolist()) == set(needed.tolist())
    assert several.layers.depth.shape[1] == 3
    renderer = ViewRenderer(network)
    expected, found = (renderer._render(encoding, rays, query.size, room, False) for room in (None, len(needed) + 7))
    torch.testing.assert_close(found.color, expected.color, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.depth, expected.depth, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["exact", "fast"])
def test_a_gpus_recording_renders_what_the_modules_do(batch, name):
    """Also for another camera and other references than those that were recorded."""
    device = torch.device("cuda")
    network = build(batch, **MERGED, balance_exposure=True).to(device)
    torch.nn.init.normal_(network.query_decoder_new.out.weight, std=0.01)
    plain, recorded = (ViewRenderer(network, Backend.for_rendering(kind, device)) for kind in ("plain", name))
    references, camera = batch.references.to(device), batch.query.cameras.to(device)
    for i in range(6):  # the first calls run kernel by kernel, then as recorded
        camera = replace(camera, poses=camera.poses + 0.01 * i)
        references = replace(references, images=references.images * 0.98)
        expected, found = (renderer.render(renderer.encode(references), camera) for renderer in (plain, recorded))
        error = (expected.color - found.color).square().mean()
        assert -10 * torch.log10(error) > (80 if name == "exact" else 45)
        assert ((expected.depth / found.depth - 1).abs() < 0.01).float().mean() > 0.99


@pytest.mark.gpu
def test_a_training_step_is_recorded_on_a_gpu(config, capsys):
    cfg = config(**PLUS, **MERGED, total_step=6, val_set_list=[], train_log_step=3)
    Trainer(cfg).run()
    assert "cannot be recorded" not in capsys.readouterr().err
