"""Fine-tune on single scenes, from several starting points or with fewer labels, and score held-out frames over time.

python -m benchmarks.finetune --data ROOMS --scenes scannet/test_000/black_320 … --out FOLDER
    [--cfg configs/plus/ft_plus_synthetic_test_000.yaml] [--steps 1000] [--every 250] [--seeds 0] [--at-once 4] [--minutes 9]
    [--variants all_labels scratch:load_pretrain=null few:few_labels.frames=0.05 …] [--elsewhere scannet/test_001/black_320 …]
    [key=value …]

A variant is a name and, after a colon, its changes to the config, separated by commas. Its starting point is evaluated
too, beside baselines with the same labels. Test frames are scored every --every steps, but not used to select a
checkpoint. Seconds are those of training, without start and validation. --elsewhere: scenes on which the first variant
is scored too, before its first and after its last step, to measure forgetting. FOLDER gets finetune.md, finetune.json
and curves. The same command resumes an interrupted one.
"""

from __future__ import annotations

import json
import statistics
import threading
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import provenance
from benchmarks.plot_curve import pyplot, read_scalars
from benchmarks.runs import COLUMNS, Launcher, flat, parse, parse_variant, row_of, settings
from train.settings import SCHEMA
from utils.cli import command_parser, run_command
from utils.config import load_config
from utils.errors import UserError
from utils.files import write_text

METRICS = {key: COLUMNS[key] for key in ("psnr", "ssim", "miou", "total_accuracy", "depth_median")}
ALL_FRAMES = "validation_frames=null"  # all training frames are trained on, and may have labels
ELSEWHERE = (
    "elsewhere",
    "elsewhere_before",
)  # parts of a result that are of other scenes, and of the first variant alone
LOG_STEP = 10  # steps between two times of which a step's seconds are the median


@dataclass(frozen=True)
class Run:
    """One fine-tuning: of which variant, on which scene, from which seed."""

    variant: str
    scene: str
    seed: int
    cfg: str
    changes: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.variant}_{self.scene.split('/')[1]}_{self.seed}"


def main() -> None:
    parser = command_parser("python -m benchmarks.finetune", __doc__)
    parser.add_argument("--scenes", nargs="+", required=True, help="database names of the scenes to fine-tune on")
    parser.add_argument(
        "--elsewhere", nargs="+", default=[], help="scenes to score the last step on as well (default: none)"
    )
    parser.add_argument("--every", type=int, default=250, help="steps between two evaluations (default: %(default)s)")
    parser.set_defaults(
        cfg="configs/plus/ft_plus_synthetic_test_000.yaml", variants=["all_labels"], seeds=[0], steps=1000
    )
    args = parse(parser)
    if args.steps < 2:
        raise UserError(
            f"--steps should be 2 at least, between which a step's seconds are measured, but is {args.steps}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    runs = [
        Run(name, scene, seed, cfg, changes)
        for seed in args.seeds
        for name, cfg, changes in (parse_variant(entry, args.cfg) for entry in args.variants)
        for scene in args.scenes
    ]
    path = args.out / "finetune.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    carry_out(args, runs, results)
    write_text(args.out / "finetune.md", table(args, runs, results))
    draw(runs, results, args.out / "finetune.png")
    print((args.out / "finetune.md").read_text())


def carry_out(args, runs: list[Run], results: dict[str, dict]) -> None:
    """Run everything that `results` lacks, and add it: fine-tunings first, then the evaluations of their starting
    points."""
    lock, launcher = threading.Lock(), Launcher(args.at_once, args.minutes)

    def missing(run: Run, *parts: str) -> list[tuple[str, Run]]:
        elsewhere = args.elsewhere and run.variant == runs[0].variant
        known = results.get(run.name, {})
        return [(part, run) for part in parts if not known.get(part) and (elsewhere or part not in ELSEWHERE)]

    def work(job: list[tuple[str, Run]]) -> None:
        for part, run in job:
            command = training(args, run) if part == "curve" else evaluation(args, run, part)
            if not launcher.run(command, args.out / f"{run.name}.{part}.log"):
                return
            with lock:
                found = curve(args, run) if part == "curve" else methods_of(args, run, part)
                results.setdefault(run.name, {})[part] = found
                write_text(args.out / "finetune.json", json.dumps(results, indent=2) + "\n")
                write_text(args.out / "finetune.md", table(args, runs, results))
            print(f"{part} {run.name}: done", flush=True)

    jobs = [missing(run, "curve", "elsewhere") for run in runs]
    jobs += [missing(run, "before", "elsewhere_before") for run in runs if start_of(args, run)]
    launcher.each(work, [job for job in jobs if job])


def start_of(args, run: Run) -> str | None:
    """Return the weights that a run starts from."""
    return load_config(run.cfg, SCHEMA, [*args.overrides, *run.changes]).load_pretrain


def training(args, run: Run) -> list[str]:
    """Return the command that fine-tunes; it goes on where an earlier one was stopped."""
    own = [f"name={run.name}", f"total_step={args.steps}", f"val_interval={args.every}", f"save_interval={args.steps}"]
    scenes = [f"train_set_list=[{run.scene}]", f"val_set_list=[{run.scene}]", ALL_FRAMES]
    return [
        "run_training.py",
        *settings(args, run.cfg, run.changes),
        f"seed={run.seed}",
        *own,
        *scenes,
        f"train_log_step={min(LOG_STEP, args.steps // 2)}",
    ]


def evaluation(args, run: Run, part: str) -> list[str]:
    """Return the command that scores the starting point of a run beside the baselines, or its starting point or result
    on the scenes of --elsewhere."""
    scenes = args.elsewhere if part in ELSEWHERE else [run.scene]
    own = [f"name={part}_{run.name}", f"seed={run.seed}", f"val_set_list={json.dumps(scenes)}"]
    own += [f"baselines={str(part == 'before').lower()}", ALL_FRAMES]
    model = str(folder(args, run) / "model.pth") if part == "elsewhere" else start_of(args, run)
    return ["run_evaluation.py", *settings(args, run.cfg, run.changes), *own, "--model-path", model]


def folder(args, run: Run) -> Path:
    return args.out / "model" / run.name


def curve(args, run: Run) -> list[dict[str, float]]:
    """Return a row for each validation of a run, with its step and seconds."""
    scalars = read_scalars(folder(args, run) / "logs")
    times = [(step, time) for step, _, time in scalars["loss/total"]]
    pace = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(times))
    rows: dict[int, dict] = {}
    for key in METRICS:
        for step, value, _ in scalars.get(f"val/{key}", []):
            rows.setdefault(step, {"step": step, "seconds": step * pace})[key] = value
    return list(rows.values())


def methods_of(args, run: Run, part: str) -> dict[str, dict[str, float]]:
    """Return the numbers of an evaluation, method by method."""
    path = args.out / "model" / f"{part}_{run.name}" / "results.json"
    return {name: flat(summary) for name, summary in json.loads(path.read_text())["methods"].items()}


def table(args, runs: list[Run], results: dict[str, dict]) -> str:
    """Return tables for each scene: the baselines, and the start and curve of each variant, mean and range over
    seeds."""
    lines = []
    for scene in dict.fromkeys(run.scene for run in runs):
        lines += [
            f"## {scene}",
            "",
            "| variant | step | seconds | " + " | ".join(t for t, _ in METRICS.values()) + " |",
        ]
        lines += ["|---" * (3 + len(METRICS)) + "|"]
        for variant in dict.fromkeys(run.variant for run in runs):
            members = [run for run in runs if (run.scene, run.variant) == (scene, variant) and run.name in results]
            lines += rows_of(variant, [results[run.name] for run in members])
        lines.append("")
    lines += [
        f"- {run.variant}: `{' '.join((run.cfg, *run.changes))}`" for run in {r.variant: r for r in runs}.values()
    ]
    lines += [f"- all: {args.steps} steps, seeds {args.seeds}, rooms: {args.data} {' '.join(args.overrides)}"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines += [
        "- PSNR, SSIM and classes per image; depth error: median of |rendered - true| / true",
        f"- {provenance(device)}",
    ]
    return "\n".join(lines) + "\n"


def rows_of(variant: str, found: list[dict]) -> list[str]:
    """Return the rows of a variant on a scene; found: of each seed, as far as it is known."""
    lines = []
    for part, label in (
        ("before", "{}: {}, before"),
        ("elsewhere_before", "{}: {}, elsewhere, before"),
        ("elsewhere", "{}: {}, elsewhere, after"),
    ):
        known = [row[part] for row in found if row.get(part)]
        for method in known[0] if known else ():
            lines.append(
                f"| {label.format(variant, method)} | – | – | {row_of([row[method] for row in known], METRICS)} |"
            )
    curves = [row["curve"] for row in found if "curve" in row]
    for step in [row["step"] for row in curves[0]] if curves else ():
        rows = [row for curve in curves for row in curve if row["step"] == step]
        lines.append(
            f"| {variant} | {step} | {np.mean([row['seconds'] for row in rows]):.0f} | {row_of(rows, METRICS)} |"
        )
    return lines


def draw(runs: list[Run], results: dict[str, dict], picture: Path) -> None:
    """Plot PSNR and mIoU by seconds of training, a curve for each run."""
    plt = pyplot()
    if plt is None or not results:
        return
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for run in (run for run in runs if "curve" in results.get(run.name, {})):
        rows = results[run.name]["curve"]
        for axis, key in zip(axes, ("psnr", "miou"), strict=True):
            axis.plot([row["seconds"] for row in rows], [row[key] for row in rows], marker="o", label=run.name)
            axis.set(title=METRICS[key][0], xlabel="seconds of training")
    axes[-1].legend(fontsize=6)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    run_command(main)
