"""Whole views: in batches of rays whatever their number, within the memory there is, and from features kept."""

import functools
import math
import weakref
from dataclasses import replace

import pytest
import torch

from dataset.camera import scale_intrinsics
from dataset.database import open_scene
from dataset.render_dataset import Needs, read_references
from network import backend, view_renderer
from network.backend import Backend
from network.view_renderer import FEWEST_RAYS, ViewRenderer
from train.run import build_network
from utils import logging
from utils.devices import compiles_for_cpu
from utils.errors import UserError
from utils.recent import Recent

CPU = torch.device("cpu")


@pytest.fixture
def scene(rooms):
    return open_scene("scannet/test_000/black_64", rooms)


def references(scene, frames=("0", "6", "11")):
    return read_references(scene, list(frames), scene.frame_ids, Needs(depth=True)).to(CPU)


def renderer_of(network, name, rays_at_once=None) -> ViewRenderer:
    return ViewRenderer(network, Backend.for_rendering(name, next(network.parameters()).device), rays_at_once)


def assert_same(view, other, tolerance=1e-4):
    for name in ("color", "logits", "depth", "deviation", "seen"):
        ours, theirs = (getattr(x, name).cpu() for x in (view, other))
        if name == "deviation":  # a root, which makes small differences large
            ours, theirs = ours.square(), theirs.square()
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def counting_renderer(config) -> tuple[ViewRenderer, list[int]]:
    """And how many images it encodes each time that it does."""
    network = build_network(config(), CPU)
    counted, encode = [], network.encode_images
    network.encode_images = lambda views: counted.append(len(views.images)) or encode(views)
    return renderer_of(network, "exact"), counted


def test_what_is_known_of_an_image_is_kept(config, scene):
    renderer, counted = counting_renderer(config)
    camera = scene.cameras(scene.frame_ids[3:4])
    for frames in (("0", "6", "11"), ("6", "11", "16"), ("0", "6", "16")):
        kept = renderer.render(renderer.encode(references(scene, frames), frames), camera)
        assert_same(kept, renderer.render(renderer.encode(references(scene, frames)), camera))
    assert counted == [3, 1]


def test_images_looked_at_last_are_the_ones_kept(config, scene, monkeypatch):
    monkeypatch.setattr(view_renderer, "MOST_IMAGES", 4)
    renderer, counted = counting_renderer(config)
    for frames in (("0", "6"), ("11", "16"), ("0", "6"), ("1", "2"), ("0", "6"), ("11", "16")):
        renderer.encode(references(scene, frames), frames)
    everything = scene.frame_ids[:6]
    renderer.encode(references(scene, everything), everything)  # more than are kept
    assert counted[:4] == [2, 2, 2, 2] and len(counted) == 5


def test_what_was_read_last_is_kept_too():
    recent = Recent(2)
    recent["first"], recent["second"] = 1, 2
    assert recent["first"] == 1
    recent["third"] = 3
    assert list(recent) == ["first", "third"]


def test_batches_are_halved_where_memory_ends(config, scene, monkeypatch):
    renderer = renderer_of(build_network(config(), CPU), "exact", rays_at_once=2048)
    encoding, camera = renderer.encode(references(scene)), scene.cameras(scene.frame_ids[3:4])
    expected = renderer.render(encoding, camera)
    sizes, render_rays = [], view_renderer.render_rays

    def with_little_memory(network, backend, stages, encoding, rays):
        sizes.append(len(rays))
        if len(rays) > 300:
            raise torch.OutOfMemoryError("made up")
        return render_rays(network, backend, stages, encoding, rays)

    monkeypatch.setattr(view_renderer, "render_rays", with_little_memory)
    assert_same(renderer.render(encoding, camera), expected)
    assert sizes[:4] == [1536, 768, 384, 192] and set(sizes[4:]) == {192}

    def with_none(*_):
        raise torch.OutOfMemoryError("made up")

    monkeypatch.setattr(view_renderer, "render_rays", with_none)
    with pytest.raises(UserError, match=f"no memory for {FEWEST_RAYS} rays from 3 references"):
        renderer.render(encoding, camera)


def test_nothing_of_a_batch_is_kept(config, scene, monkeypatch):
    """Small tensors between large ones would split the memory that a process keeps: it grew to 14 GB in one view."""
    renderer = renderer_of(build_network(config(), CPU), "exact", rays_at_once=500)
    render_rays, alive = view_renderer.render_rays, []

    def watched(*inputs):
        assert not any(part() is not None for part in alive[:-1])
        view = render_rays(*inputs)
        alive.append(weakref.ref(view.color))
        return view

    monkeypatch.setattr(view_renderer, "render_rays", watched)
    renderer.render(renderer.encode(references(scene)), scene.cameras(scene.frame_ids[3:4]))
    assert len(alive) == 7


@pytest.mark.slow
@pytest.mark.skipif(not compiles_for_cpu(), reason="no C++ compiler")
def test_a_cpu_compiles_its_fast_pass_for_one_size_of_batch_and_calls_hooks_registered_later(config, scene):
    network = build_network(config(depth_sample_num=8, use_hierarchical_sampling=False), CPU)
    renderers = [renderer_of(network, "exact"), renderer_of(network, "fast", rays_at_once=700)]
    torch._dynamo.utils.counters.clear()
    camera = scene.cameras(scene.frame_ids[3:4])
    exact, fast = [renderer.render(renderer.encode(references(scene)), camera) for renderer in renderers]
    assert_same(fast, exact)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # look and shade, once each
    encoding = renderers[1].encode(references(scene))
    hook = network.agg_net.agg_impl.semantic_fc1_new.register_forward_hook(lambda _m, _i, output: output + 1)
    assert (renderers[1].render(encoding, camera).logits - fast.logits).abs().max() > 1e-3
    hook.remove()
    torch.testing.assert_close(renderers[1].render(encoding, camera).logits, fast.logits)


@pytest.mark.skipif(not compiles_for_cpu(), reason="no C++ compiler")
def test_a_broken_compiler_is_no_reason_to_stop(config, scene, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/bin/false"))
    monkeypatch.setattr(backend, "_compiled", functools.cache(backend._Compiled))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network = build_network(config(depth_sample_num=9, fine_depth_sample_num=9), CPU)
    renderers = [renderer_of(network, "exact"), renderer_of(network, "fast", rays_at_once=1024)]
    camera = scene.cameras(scene.frame_ids[3:4])
    exact, fast = [renderer.render(renderer.encode(references(scene)), camera) for renderer in renderers]
    assert_same(fast, exact)
    said = capsys.readouterr()
    assert (said.out + said.err).count("the network cannot be compiled") == 1


@pytest.mark.parametrize(("size", "compiled"), [((24, 32), False), ((2000, 2000), True)])
def test_a_cpu_compiles_by_default_where_it_pays(config, scene, size, compiled):
    renderer = ViewRenderer(build_network(config(depth_sample_num=8, fine_depth_sample_num=8), CPU))
    work = math.prod(size) * renderer._samples() * len(references(scene))
    assert renderer.backend.compiles(work) == (compiled and compiles_for_cpu())


@pytest.mark.skipif(not compiles_for_cpu(), reason="no C++ compiler")
def test_that_something_is_compiled_is_said_once(config, capsys):
    """Validation makes a new renderer each time."""
    logging.forget()
    network = build_network(config(), CPU)
    for _ in range(2):
        renderer = renderer_of(network, "fast")
        renderer.backend.stages(network)
    assert capsys.readouterr().out.count("compiling") == 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["exact", "fast"])
def test_renderers_of_a_gpu_agree_with_the_plain_one(config, scene, name):
    network = build_network(config(depth_sample_num=32, fine_depth_sample_num=32), torch.device("cuda"))
    views, camera = references(scene).to("cuda"), scene.cameras(scene.frame_ids[3:4]).to("cuda")
    renderers = [renderer_of(network, kind) for kind in ("plain", name)]
    for _ in range(6):  # the first calls run kernel by kernel, then as recorded
        plain, other = [renderer.render(renderer.encode(views), camera) for renderer in renderers]
        error = (plain.color - other.color).square().mean()
        assert -10 * torch.log10(error) > (80 if name == "exact" else 50)
        same = (plain.logits.argmax(-1) == other.logits.argmax(-1)).float().mean()
        assert same > (0.999 if name == "exact" else 0.98)


@pytest.mark.gpu
def test_a_4k_frame_with_2_gib(config, scene):
    """Eight references at 320x240 and all samples; beside what is in use already there are 2 GiB and no more."""
    network = build_network(config(depth_sample_num=64, fine_depth_sample_num=64), torch.device("cuda"))
    frames = [scene.frame_ids[i] for i in range(0, 40, 5)]
    views = references(scene, frames)
    size = (240, 320)
    images = torch.nn.functional.interpolate(views.images, size)
    depth = torch.nn.functional.interpolate(views.depth, size)
    cameras = replace(views.cameras, Ks=scale_intrinsics(views.cameras.Ks, scene.size, size), size=size)
    views = replace(views, cameras=cameras, images=images, depth=depth).to("cuda")
    query = scene.cameras(scene.frame_ids[3:4])
    query = replace(query, Ks=scale_intrinsics(query.Ks, scene.size, (2160, 3840)), size=(2160, 3840)).to("cuda")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2 * 2**30) / total)
    try:
        renderer = renderer_of(network, "fast")
        view = renderer.render(renderer.encode(views), query)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert view.color.shape == (2160 * 3840, 3) and not view.color.is_cuda and view.color.isfinite().all()
