"""Places to extend: each thing here is added from outside, without a change to the library."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from dataset.database import open_scene
from dataset.render_dataset import Needs, read_references
from dataset.views import Cameras
from network import init_net
from network.aggregate_net import AggregateNet
from network.backend import Backend
from network.cranet import CRANet, HeadWidths, SampleFeatures
from network.engine.requirements import reason_against
from network.front_ends import FrontEnd, GeometryFeatures
from network.geometry import scaled_cameras
from network.linear import RayLinear
from network.renderer import Renderer
from network.samplers import OnSurfaces, Sampler
from network.stage import Stage
from network.view_renderer import ViewRenderer
from train.objective import Term, at_pixels
from train.run import build_network
from train.settings import SCHEMA
from train.trainer import Trainer
from utils import logging
from utils.config import load_config
from utils.errors import UserError

CPU = torch.device("cpu")


def small(cameras: Cameras) -> Cameras:
    """The same with images of few pixels, for the interpreter is slow."""
    return scaled_cameras(cameras, (4, 6))


@pytest.fixture
def scene(rooms):
    return open_scene("scannet/test_000/black_64", rooms)


def references(scene, count=3, needs=None):
    return read_references(scene, scene.frame_ids[:count], scene.frame_ids, needs or Needs(depth=True)).to(CPU)


def modules_that_run(network, run) -> set[str]:
    """The names of the modules whose forward hooks `run()` calls."""
    called = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name)) for name, module in network.named_modules()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return called


@pytest.mark.parametrize("front_end", ["depth", "learned_depth", "cost_volume"])
def test_modules_are_what_runs(config, front_end):
    """In a default training step every module with parameters of its own is called."""
    assert_all_run(config(init_net_type=front_end, mvsnet={"frozen": False}))


@pytest.mark.parametrize("file, changes", [("base", []), ("surfaces", ["train_dataset_cfg.patch=[16,16]"])])
def test_modules_of_s_ray_plus_are_what_runs(config, file, changes):
    tiny = config()
    same = [f"{key}={tiny[key]}" for key in ("data_root", "output_root", "train_set_list", "val_set_list")]
    same += ["device=cpu", "cache=false", "worker_num=0", "depth_sample_num=8", "fine_depth_sample_num=8"]
    same += [f"train_dataset_cfg.{key}" for key in ("train_ray_num=32", "min_wn=3", "max_wn=4")]
    assert_all_run(load_config(f"configs/plus/{file}.yaml", SCHEMA, [*same, *changes]))


def assert_all_run(cfg):
    trainer = Trainer(cfg)
    trainer.start_or_resume()
    batch = trainer.training_set[0].to("cpu")
    called = modules_that_run(trainer.network, lambda: trainer.train_step(batch))
    owners = {name for name, module in trainer.network.named_modules() if list(module.parameters(recurse=False))}
    assert len(owners) > 100 and owners - called == set()


@dataclass(frozen=True)
class Equidistant(Sampler):
    """Three passes of ever more samples, equally far from each other in metres."""

    names = ("few", "some", "many")
    most_samples = 9

    def depths(self, encoding, rays, passes, draws):
        steps = torch.linspace(0, 1, 5 + 2 * len(passes))
        near, far = rays.depth_range.split(1, 1)
        return near + (far - near) * steps


def test_a_sampler(config, scene):
    build = partial(build_network, sampler=Equidistant())
    trainer = Trainer(config(total_step=1), build)
    trainer.start_or_resume()
    log = trainer.train_step(trainer.training_set[0].to("cpu"))
    assert {"color_few", "color_some", "color_many", "semantic_many"} <= log.losses.keys()
    renderer = ViewRenderer(trainer.network, Backend.for_rendering("exact", CPU))
    view = renderer.render(renderer.encode(references(scene)), scene.cameras(scene.frame_ids[3:4]))
    assert view.color.isfinite().all() and len(view.color) == 48 * 64
    for name in ("few", "some", "many"):
        assert log.losses[f"color_{name}"].isfinite()


class Twice(OnSurfaces):
    """A second pass at the depths of the first one."""

    names = ("first", "again")


def test_a_sampler_of_several_passes_at_surfaces(config, scene):
    """Every pass reads the references' depth, and its rays end on one of their samples."""
    cfg = config(sampler="surfaces", use_hierarchical_sampling=False)
    network = build_network(cfg, CPU, sampler=Twice())
    assert network.fine_dist_decoder is None
    encoding = network.encode(references(scene))
    pixels = torch.tensor([[[5, 7], [30, 20], [63, 47], [12, 40]]])
    rays = network.sampler.rays(encoding, scene.cameras(scene.frame_ids[3:4]), pixels)
    first, again = network.render_rays(encoding, rays).passes
    torch.testing.assert_close(again.depths, first.depths)
    for each in (first, again):
        torch.testing.assert_close(each.hit_probability.sum(-1), torch.ones(4))
        assert (each.depth[:, None] == each.depths).any(-1).all()


class Guesses(nn.Module):
    """Features of any width that are blended like colours, and summed along the ray."""

    def __init__(self, widths: HeadWidths, width: int):
        super().__init__()
        self.layer = RayLinear(widths.geometry + widths.semantic, width)

    def forward(self, samples: SampleFeatures) -> torch.Tensor:
        hit = samples.hit_probability
        of_sample = torch.cat([samples.geometry, samples.blended()], -1)
        of_ray = (hit[..., None] * of_sample).sum(1)
        return self.layer(of_ray, hit.sum(-1, keepdim=True))


def brightness(query, pixels):
    """(R, 5) of images, as if somebody had computed features of them."""
    of_pixel = at_pixels(query.images.permute(0, 2, 3, 1), pixels).mean(-1, keepdim=True)
    return of_pixel * torch.arange(1.0, 6)


def test_a_head_with_a_loss_and_a_target(config, scene):
    term = Term("guesses", 0.5, brightness, lambda rendering, target: F.mse_loss(rendering.heads["guesses"], target))
    heads = {"guesses": partial(Guesses, width=5)}
    cfg = config(total_step=30, lr_cfg={"lr_init": 5e-3}, loss=["render"], save_interval=40, val_set_list=[])
    trainer = Trainer(cfg, partial(build_network, heads=heads), [term])
    losses, step = [], trainer.train_step

    def kept(batch):
        losses.append(step(batch))
        return losses[-1]

    trainer.train_step = kept
    trainer.run()
    assert {"guesses_coarse", "guesses_fine", "color_coarse"} <= losses[0].losses.keys()
    values = [log.losses["guesses_fine"].item() for log in losses]
    assert sum(values[-10:]) < 0.7 * sum(values[:10])
    classes = trainer.network.agg_net.agg_impl.semantic_fc2_new.weight
    assert torch.equal(classes, build_network(cfg, CPU, heads=heads).agg_net.agg_impl.semantic_fc2_new.weight)
    renderer = ViewRenderer(trainer.network, Backend.for_rendering("exact", CPU), rays_at_once=1000)
    view = renderer.render(renderer.encode(references(scene)), scene.cameras(scene.frame_ids[3:4]))
    assert view.heads["guesses"].shape == (48 * 64, 5) and view.logits.shape == (48 * 64, 21)


class Constant(FrontEnd):
    """Knows one number for every place, at an eighth of the images' size; its multiple is not the encoder's."""

    DEFAULTS = {"level": 0.5}  # noqa: RUF012
    channels, multiple = 8, 32

    def __init__(self, level: float):
        super().__init__()
        self.level = nn.Parameter(torch.full((self.channels,), level))

    @classmethod
    def of(cls, cfg, image_channels):
        return cls(cfg.init_net_cfg.level)

    @staticmethod
    def needs(cfg):
        return Needs()

    def load_weights(self, cfg):
        self.level.data += 1

    def forward(self, views, image_features=None):
        height, width = views.cameras.size
        assert height % 32 == width % 32 == 0
        return GeometryFeatures(
            self.level[None, :, None, None].expand(len(views), -1, height // 8, width // 8), depth=None
        )


@pytest.fixture
def constant_front_end():
    init_net.register("constant", Constant)
    yield
    del init_net.FRONT_ENDS["constant"], init_net.DEFAULTS["init_net_cfg"]["level"]


def test_a_front_end(config, constant_front_end):
    trainer = Trainer(config(init_net_type="constant", init_net_cfg={"level": 0.25}, total_step=1))
    assert trainer.training_set[0].references.depth is None
    trainer.start_or_resume()
    assert trainer.network.init_net.level.allclose(torch.tensor(1.25))
    trainer.train_step(trainer.training_set[0].to("cpu"))
    assert not trainer.network.init_net.level.allclose(torch.tensor(1.25))
    with pytest.raises(UserError, match="should be one of depth, cost_volume, learned_depth, constant, but is"):
        config(init_net_type="constants")


class HalfSize(nn.Module):
    """20 channels at half the images' size."""

    multiple = 2

    def __init__(self, channels=20):
        super().__init__()
        self.channels = channels
        self.layer = nn.Conv2d(3, 20, 2, stride=2)

    def forward(self, images):
        return self.layer(images).relu()


@pytest.mark.parametrize("front_end", ["depth", "learned_depth"])
def test_an_image_encoder_of_another_width_and_stride(config, scene, front_end):
    build = partial(build_network, encoder=HalfSize())
    trainer = Trainer(config(init_net_type=front_end, total_step=1), build)
    trainer.run()
    renderer = ViewRenderer(trainer.network, Backend.for_rendering("exact", CPU))
    encoding = renderer.encode(references(scene, needs=Needs(depth=front_end == "depth")))
    assert encoding.features.shape == (3, 24, 32, 20 + 32) and encoding.image_channels == 20
    assert renderer.render(encoding, scene.cameras(scene.frame_ids[3:4])).color.isfinite().all()


def test_an_encoder_that_lies_about_its_width(config, scene):
    network = Renderer(config(), encoder=HalfSize(channels=32))
    with pytest.raises(UserError, match="declare 32 and 32 channels, but return 20 and 32"):
        network.encode(references(scene))


# What the engine was not built for runs as it is, and is said once.


class Louder(nn.Linear):
    """Somebody's own layer."""

    def forward(self, x):
        return 2 * super().forward(x)


def replace_a_module(network):
    old = network.fine_agg_net.agg_impl.semantic_fc1_new
    network.fine_agg_net.agg_impl.semantic_fc1_new = Louder(old.in_features, old.out_features)
    return "fine_agg_net.agg_impl.semantic_fc1_new is a Louder, not a Linear"


def subclass_a_network(network):
    class MyDecoder(type(network.fine_dist_decoder)):
        def forward(self, ray_features):
            distribution = super().forward(ray_features)
            return distribution._replace(means=distribution.means + 0.1)

    network.fine_dist_decoder.__class__ = MyDecoder
    return "fine_dist_decoder is a MyDecoder, not a DistDecoder"


def register_a_hook(network):
    network.fine_agg_net.agg_impl.rgb_fc[2].register_forward_hook(lambda _module, _inputs, output: output + 0.5)
    return "fine_agg_net.agg_impl.rgb_fc.2 has hooks, or a forward of its own"


def register_a_pre_hook(network):
    network.fine_agg_net.prob_embed.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 0.2, inputs[1]))
    return "fine_agg_net.prob_embed has hooks, or a forward of its own"


def replace_a_forward(network):
    layer = network.fine_dist_decoder.mean_decoder[0]
    layer.forward = lambda x: F.linear(x, layer.weight) * 0.5
    return "fine_dist_decoder.mean_decoder.0 has hooks, or a forward of its own"


def parametrize_a_weight(network):
    class Half(nn.Module):
        def forward(self, weight):
            return weight / 2

    parametrize.register_parametrization(network.agg_net.agg_impl.neuray_fc[0], "weight", Half())
    return "agg_net.agg_impl.neuray_fc.0 is a ParametrizedLinear, not a Linear"


CHANGES = [
    replace_a_module,
    subclass_a_network,
    register_a_hook,
    register_a_pre_hook,
    replace_a_forward,
    parametrize_a_weight,
]


@pytest.mark.parametrize("change", [None, *CHANGES], ids=lambda change: change.__name__ if change else "as it is")
def test_what_the_engine_was_not_built_for_runs_itself(config, scene, change, capsys):
    """A renderer with the engine, here in Triton's interpreter, renders what the modules do."""
    pytest.importorskip("triton")
    logging.forget()
    network = build_network(config(), CPU)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    views, camera = references(scene, 2), small(scene.cameras(scene.frame_ids[3:4]))
    before, engine = (ViewRenderer(network, Backend(CPU, engine=on)) for on in (False, True))
    unchanged = before.render(before.encode(views), camera)
    if change is not None:
        reason = change(network)
        assert reason_against(network, engine.encode(views)) == reason
    expected = before.render(before.encode(views), camera)
    found = engine.render(engine.encode(views), camera)
    torch.testing.assert_close(found.color, expected.color, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-3, rtol=1e-3)
    if change is not None:
        engine.render(engine.encode(views), camera)
        assert (found.logits - unchanged.logits).abs().max() > 1e-4
        assert capsys.readouterr().out.count(reason) == 1


@pytest.mark.parametrize(
    "parts, reason",
    [
        ({"encoder": HalfSize()}, "the encoding has 20 of 52 channels for images, not 32 of 64"),
        ({"heads": {"guesses": partial(Guesses, width=3)}}, "agg_net.agg_impl.heads_new has other parts"),
    ],
)
def test_networks_of_other_parts_are_not_the_engines(config, scene, parts, reason):
    network = build_network(config(), CPU, **parts)
    assert reason in reason_against(network, network.encode(references(scene)))


def test_views_and_samples_that_the_engine_takes(config, scene):
    network = build_network(config(), CPU)
    assert reason_against(network, network.encode(references(scene, 16))) is None
    assert "17 views" in reason_against(network, network.encode(references(scene, 17)))
    network = build_network(config(fine_depth_sample_num=129), CPU)
    assert "129 samples" in reason_against(network, network.encode(references(scene, 2)))


@pytest.mark.parametrize(
    "changes", [{}, {"agg_net_cfg": {"use_ptrans": False}}, {"dist_decoder_cfg": {"use_vis": False}}]
)
def test_settings_that_the_engine_takes(config, scene, changes):
    network = build_network(config(**changes), CPU)
    assert reason_against(network, network.encode(references(scene))) is None


def test_another_width_is_another_network(config, scene):
    network = build_network(config(), CPU)
    impl = network.agg_net.agg_impl
    impl.geometry_fc[0].weight = nn.Parameter(torch.zeros(80, 65))
    assert "agg_net.agg_impl.geometry_fc.0 has other parameters" in reason_against(
        network, network.encode(references(scene))
    )


WIDTHS = {
    "hidden": 48, "direction_hidden": 12, "blending_hidden": (24, 8), "trust_hidden": 4, "geometry": 24,
    "embedding": 16, "head_width": 8,
}  # fmt: skip
SETTINGS = [  # parameters may look alike, pictures do not
    ({"latent": 48}, "agg_net.agg_impl.latent is 48, not 32"),
    ({"attention_heads": 2}, "agg_net.agg_impl.ray_attention.heads is 2, not 4"),
    ({"attention_heads": 8, "head_width": 2}, "agg_net.agg_impl.ray_attention.heads is 8, not 4"),
    ({"blend_by_angle": True}, "agg_net.agg_impl.blend_by_angle is True, not False"),
    ({"opaque": True}, "agg_net.agg_impl.opaque is True, not False"),
]


@pytest.mark.parametrize(
    "arguments, reason", [*[({key: value}, "has other parameters") for key, value in WIDTHS.items()], *SETTINGS]
)
def test_widths_that_kernels_were_not_built_for(config, scene, arguments, reason):
    """A network of other widths renders by its modules; the engine refuses it."""
    network = build_network(config(), CPU)
    network.agg_net = AggregateNet(num_classes=network.agg_net.agg_impl.semantic_fc2_new.out_features - 1, **arguments)
    encoding = network.encode(references(scene))
    assert reason in reason_against(network, encoding)
    camera = small(scene.cameras(scene.frame_ids[3:4]))
    view = ViewRenderer(network, Backend(CPU, engine=True))
    assert view.render(view.encode(references(scene)), camera).color.isfinite().all()


@pytest.mark.parametrize("width", [0, -8, 2.5, True])
@pytest.mark.parametrize("name", ["hidden", "trust_hidden", "attention_heads"])
def test_what_is_no_width_is_an_error(name, width):
    with pytest.raises(ValueError, match=f"CRANet: {name} should be a positive whole number"):
        CRANet(3, **{name: width})


def test_stages_are_those_of_the_modules_there_are_now(config):
    network = build_network(config(), CPU)
    network.agg_net = nn.Identity()
    assert isinstance(network.stages[0], Stage) and network.stages[0].agg_net is network.agg_net
