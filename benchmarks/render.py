"""Rendering time of a frame: python -m benchmarks.render [--cfg CFG] [--widths 320 640] [--model-path MODEL]

A frame is everything from references on the device to colour, classes and depth of all pixels there: encoding the
references, which change from frame to frame, and all passes; kept: the passes alone, of references encoded before.
plain: the modules as they are; exact: the engine where it can, float32; fast: products in float16. Prints the median of
some frames, what a reference view and a sample cost, and with --profile where the time goes. --cfg: of the network
(default: the paper's; configs/plus/surfaces.yaml for S-Ray+, whose samples are of its own number). Weights are random
unless --model-path names others.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.common import make_room, median_milliseconds, peak_gib, profile, provenance
from benchmarks.plot_curve import pyplot
from dataset.database import open_scene
from dataset.render_dataset import Needs, read_references
from dataset.view_selection import test_references
from dataset.views import Batch
from network.backend import Backend
from network.view_renderer import ViewRenderer
from network.weights import load_checkpoint
from train.checkpoint import load_network
from train.run import build_network, choose_device
from train.settings import SCHEMA
from utils.cli import command_parser, run_command
from utils.config import check_config, load_config
from utils.files import write_text

FRAMES = 20
PLAIN_FRAMES = 5  # it is slow, and no faster the next time
VIEWS, SAMPLES = (2, 4, 8, 16), (32, 64)


def main() -> None:
    parser = command_parser("python -m benchmarks.render", __doc__)
    parser.add_argument("--cfg", default="configs/base.yaml", help="YAML file of the config (default: %(default)s)")
    parser.add_argument(
        "--modes", nargs="+", default=["plain", "exact", "fast"], help="backends to time (default: all)"
    )
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[320, 640], help="widths of the picture in pixels (default: 320 640)"
    )
    parser.add_argument(
        "--frames", type=int, default=FRAMES, help="frames whose median is taken (default: %(default)s)"
    )
    parser.add_argument("--views", type=int, default=8, help="reference views (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=64, help="samples of a ray in each pass (default: %(default)s)")
    parser.add_argument("--curves", action="store_true", help="time per reference view and per sample too")
    parser.add_argument("--model-path", help="weights (default: random ones)")
    parser.add_argument(
        "--data", type=Path, default=Path("data/bench"), help="folder of the room (default: %(default)s)"
    )
    parser.add_argument("--profile", type=Path, help="file for the times of the kernels (default: none)")
    parser.add_argument("--out", type=Path, help="file for the tables (default: only printed)")
    args = parser.parse_args()
    make_room(args.data)
    device = choose_device(check_config({}, SCHEMA))
    lines = ["| frame | mode | views | samples | ms a frame | kept | memory, GiB |", "|---|---|---|---|---|---|---|"]
    cases = [(width, mode, args.views, args.samples) for width in args.widths for mode in args.modes]
    curves = [(320, args.modes[-1], views, samples) for samples in SAMPLES for views in VIEWS] if args.curves else []
    times = {}
    for case in [*cases, *curves]:
        times[case], line = measure(args, device, *case)
        lines.append(line)
        print(line, flush=True)
    if args.out:
        write_text(args.out, f"{provenance(device)}\n\n" + "\n".join(lines) + "\n")
        if curves:
            draw({case: times[case] for case in curves}, args.out.with_suffix(".png"))


def draw(times: dict[tuple[int, str, int, int], float], picture: Path) -> None:
    """Plot milliseconds by the number of reference views, a curve for each number of samples."""
    plt = pyplot()
    if plt is None:
        return
    figure, axis = plt.subplots(figsize=(4.6, 3.2), constrained_layout=True)
    for samples in SAMPLES:
        points = [(views, time) for (_, _, views, count), time in times.items() if count == samples]
        axis.plot(*zip(*points, strict=True), marker="o", label=f"{samples} + {samples} samples")
    axis.set(xlabel="reference views", ylabel="ms a frame", xticks=VIEWS, ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(picture, dpi=110)


@torch.no_grad()
def measure(args, device: torch.device, width: int, mode: str, views: int, samples: int) -> tuple[float, str]:
    cfg = load_config(args.cfg, SCHEMA, [f"depth_sample_num={samples}", f"fine_depth_sample_num={samples}"])
    network = build_network(cfg, device)
    if args.model_path:
        load_network(network, load_checkpoint(args.model_path))
    batches = [batch.to(device) for batch in make_batches(args.data, width, views)]
    renderer = ViewRenderer(network, Backend.for_rendering(mode, device))

    def run(i: int) -> None:
        batch = batches[i % len(batches)]
        renderer.render(renderer.encode(batch.references), batch.query.cameras)

    peak_gib(device)
    frames, warm_up = (min(args.frames, PLAIN_FRAMES), 1) if mode == "plain" else (args.frames, 5)
    milliseconds = median_milliseconds(run, frames, device, warm_up)
    encodings = [renderer.encode(batch.references) for batch in batches]

    def render(i: int) -> None:
        renderer.render(encodings[i % len(batches)], batches[i % len(batches)].query.cameras)

    kept = median_milliseconds(render, frames, device, warm_up)
    if args.profile and mode != "plain" and (width, views, samples) == (320, args.views, args.samples):
        profile(run, 1, args.profile, f"{mode}: one frame", device)
    height = batches[0].query.cameras.size[0]
    shown = network.sampler.most_samples
    line = (
        f"| {width}x{height} | {mode} | {views} | {shown} | {milliseconds:.1f} | {kept:.1f} | {peak_gib(device):.2f} |"
    )
    return milliseconds, line


def make_batches(data: Path, width: int, views: int) -> list[Batch]:
    """Return four frames of a room, each with its nearest other frames."""
    scene = open_scene(f"scannet/train_000/black_{width}", data)
    batches = []
    for frame in scene.frame_ids[1::10][:4]:
        pool = [other for other in scene.frame_ids if other != frame]
        chosen = test_references(scene.centres(pool), scene.centres([frame])[0], views)
        references = read_references(scene, [pool[i] for i in chosen], pool, Needs(depth=True))
        batches.append(Batch(references, scene.views([frame]), None, scene.name, frame))
    return batches


if __name__ == "__main__":
    run_command(main)
