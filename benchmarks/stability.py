"""Train one config with several seeds and precisions in parallel, and compare the results.

python -m benchmarks.stability --data ROOMS --out FOLDER [--cfg configs/plus/base.yaml] [--seeds 0 1 2 3 4]
    [--precisions bf16 fp32] [--steps 2300] [--at-once 5] [--minutes 9]
    [--variants as_it_is log:sample_spacing=log "range:depth_range=[0.5,10],termination_loss_scale=0.1" …]
    [--tests models=ROOMS/models.txt …] [key=value …]

ROOMS holds train.txt and test.txt, as `python -m dataset.synthetic` writes them. A variant is a name, and behind a
colon what it changes in the config, with commas between; `cfg=FILE` there is another config. Each run is trained from
scratch and scored on the test rooms, the first one beside the baselines. --tests: kinds of test rooms, each with a
table of its own. FOLDER gets stability.md (a table: mean, lowest and highest), stability.json, training curves and, of
each variant, the same frame from its worst and its best run. They are written after every run, and the same command
goes on where an earlier one was stopped, by --minutes or by hand.
"""

from __future__ import annotations

import argparse
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import provenance
from benchmarks.plot_curve import draw, read_scalars
from benchmarks.runs import COLUMNS, Launcher, flat, parse, parse_variant, row_of, settings
from dataset.database import list_scenes
from utils.cli import command_parser, run_command
from utils.errors import UserError
from utils.files import write_text
from utils.images import read_color, write_image
from utils.panels import text

EARLY = 0.05  # of the rays may end before half their depth once they have left the near plane


@dataclass(frozen=True)
class Run:
    """One training: a variant, a precision and a seed."""

    variant: str
    precision: str
    seed: int
    cfg: str
    changes: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.variant}_{self.precision}_{self.seed}"

    @property
    def group(self) -> tuple[str, str]:
        return self.variant, self.precision


@dataclass
class Results:
    """Results so far, saved in a file. runs: name of a run -> its scores, those of the test rooms by kind under
    "tests". baselines: kind of rooms -> method without a network -> its scores."""

    path: Path
    runs: dict[str, dict] = field(default_factory=dict)
    baselines: dict[str, dict[str, dict]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Return the results of an earlier, stopped call."""
        content = json.loads(path.read_text()) if path.is_file() else {}
        return cls(path, content.get("runs", {}), content.get("baselines", {}))

    def save(self) -> None:
        content = {"runs": self.runs, "baselines": self.baselines}
        write_text(self.path, json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = command_parser("python -m benchmarks.stability", __doc__)
    parser.add_argument(
        "--tests",
        nargs="+",
        metavar="KIND=LIST",
        help="lists of test rooms, a table each (default: test=ROOMS/test.txt)",
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("auto", "bf16", "fp32"),
        default=["auto"],
        help="of training, a run each (default: auto)",
    )
    parser.set_defaults(cfg="configs/plus/base.yaml", variants=["config"], seeds=[0, 1, 2, 3, 4], steps=2300)
    args = parse(parser, assignments=("tests",))
    for name in ("train.txt", "test.txt"):
        if not (args.data / name).is_file():
            raise UserError(f"--data {args.data}: has no {name}; make rooms with `python -m dataset.synthetic`")
    args.out.mkdir(parents=True, exist_ok=True)
    args.tests = parse_tests(args.tests or [f"test={args.data / 'test.txt'}"])
    runs = [
        Run(name, precision, seed, cfg, changes)
        for seed in args.seeds
        for name, cfg, changes in (parse_variant(entry, args.cfg) for entry in args.variants)
        for precision in args.precisions
    ]
    results = Results.load(args.out / "stability.json")
    try:
        carry_out(args, runs, results)
    finally:
        summarise(args, runs, results)
    print((args.out / "stability.md").read_text())
    missing = [run.name for run in runs if run.name not in results.runs]
    if missing:
        print(f"{len(missing)} of {len(runs)} runs are not finished; the same command goes on: {', '.join(missing)}")


def parse_tests(entries: list[str]) -> dict[str, list[str]]:
    """Parse `kind=list` entries into names of rooms by kind."""
    if not all("=" in entry for entry in entries):
        raise UserError("--tests: should be KIND=LIST, for example models=data/models/test.txt")
    return {kind: list_scenes(path, "--tests") for kind, path in (entry.split("=", 1) for entry in entries)}


def carry_out(args, runs: list[Run], results: Results) -> None:
    """Train and score all runs without results, `--at-once` at a time, until `--minutes` are over."""
    todo = [run for run in runs if run.name not in results.runs]
    lock, commands = threading.Lock(), Commands(args, runs[0].name)
    launcher = Launcher(args.at_once, args.minutes)

    def work(run: Run) -> None:
        steps = {"train": commands.training(run), "test": commands.test(run)}
        if not all(launcher.run(command, args.out / f"{run.name}.{what}.log") for what, command in steps.items()):
            return
        with lock:
            results.runs[run.name] = numbers_of(args, run)
            if run.name == commands.first:  # the others were scored without baselines
                results.baselines = baselines_of(args, run)
            results.save()
            write_text(args.out / "stability.md", table(args, runs, results))
            print(
                f"{run.name}: "
                + "; ".join(
                    f"{kind}: " + ", ".join(f"{k} {row[k]:.4g}" for k in COLUMNS if k in row)
                    for kind, row in results.runs[run.name]["tests"].items()
                ),
                flush=True,
            )

    launcher.each(work, todo)


@dataclass
class Commands:
    """The commands of each run. first: the run that is scored beside the baselines."""

    args: argparse.Namespace
    first: str

    def training(self, run: Run) -> list[str]:
        steps = self.args.steps
        own = [f"name={run.name}", f"seed={run.seed}", f"precision={run.precision}", f"total_step={steps}"]
        logs = [f"train_log_step={max(1, min(20, steps // 50))}", f"save_interval={max(1, steps // 4)}"]
        rooms = f"train_set_list={self.args.data / 'train.txt'}"  # unless the variant has a list of its own
        changes = settings(self.args, run.cfg, (rooms, *run.changes))
        return ["run_training.py", *changes, *own, *logs, "val_set_list=[]"]

    def test(self, run: Run) -> list[str]:
        renderer = "exact" if run.precision == "fp32" else "auto"
        rooms = [name for names in self.args.tests.values() for name in names]
        own = [f"name=test_{run.name}", f"renderer={renderer}", f"val_set_list={json.dumps(rooms)}"]
        own += [f"baselines={str(run.name == self.first).lower()}"]
        model = self.args.out / "model" / run.name / "model.pth"
        return ["run_evaluation.py", *settings(self.args, run.cfg, run.changes), *own, "--model-path", str(model)]


def numbers_of(args, run: Run) -> dict[str, float | None]:
    """Return the scores of a run that are compared. left_near: see `step_of_leaving`."""
    scalars = read_scalars(args.out / "model" / run.name / "logs")
    results = read_results(args, run)
    scenes = results["scenes_of_methods"][results["network"]]
    rows = scalars["loss/total"]
    return {
        "tests": by_kind(args.tests, scenes),
        "left_near": step_of_leaving([row[:2] for row in scalars.get("train/ended_early", [])]),
        "seconds": rows[-1][2] - rows[0][2],
    }


def by_kind(tests: dict[str, list[str]], scenes: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Return the numbers of a method for each kind of rooms, each the mean over its rooms; scenes: room -> summary."""
    rows = {kind: [flat(scenes[name]) for name in names if name in scenes] for kind, names in tests.items()}
    return {
        kind: {key: float(np.mean([row[key] for row in of_rooms if key in row])) for key in set().union(*of_rooms)}
        for kind, of_rooms in rows.items()
    }


def read_results(args, run: Run) -> dict:
    return json.loads((args.out / "model" / f"test_{run.name}" / "results.json").read_text())


def baselines_of(args, run: Run) -> dict[str, dict[str, dict]]:
    """Return kind of rooms -> baseline -> its numbers."""
    results = read_results(args, run)
    methods = results["scenes_of_methods"].items()
    rows = {name: by_kind(args.tests, scenes) for name, scenes in methods if name != results["network"]}
    return {kind: {name: row[kind] for name, row in rows.items()} for kind in args.tests}


def step_of_leaving(rows: list[tuple[int, float]]) -> int | None:
    """Return the step from which on few rays end before half their depth; None if there is none. rows: step, share."""
    staying = [step for step, share in rows if share > EARLY]
    after = [step for step, _ in rows if not staying or step > staying[-1]]
    return after[0] if after else None


def table(args, runs: list[Run], results: Results) -> str:
    """Return for each kind of rooms the variants, with the mean and the lowest and highest of their runs; commands and
    what they ran on below."""
    lines = []
    for kind in args.tests:
        lines += [f"## {kind}", ""] if len(args.tests) > 1 else []
        lines += [*table_of_kind(kind, runs, results), ""]
    variants = {run.variant: (run.cfg, *run.changes) for run in runs}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines += ["Mean (lowest to highest). Depth error: median of |rendered - true| / true.", ""]
    lines += [f"- {name}: `{' '.join(changes)}`" for name, changes in variants.items()]
    own = " ".join(args.overrides)
    lines += [f"- all: {args.steps} steps{f', `{own}`' if own else ''}; rooms: {args.data}", f"- {provenance(device)}"]
    return "\n".join(lines) + "\n"


def table_of_kind(kind: str, runs: list[Run], results: Results) -> list[str]:
    """Return the lines of one table."""
    header = ["variant", "precision", "runs", *[title for title, _ in COLUMNS.values()], "left the near plane at step"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for group in dict.fromkeys(run.group for run in runs):
        rows = [results.runs[run.name] for run in runs if run.group == group and run.name in results.runs]
        if rows:
            cells = row_of([row["tests"][kind] for row in rows], COLUMNS)
            steps = sorted(row["left_near"] or float("inf") for row in rows)
            left = ", ".join("never" if step == float("inf") else str(step) for step in steps)
            lines.append(f"| {group[0]} | {group[1]} | {len(rows)} | {cells} | {left} |")
    for name, row in results.baselines.get(kind, {}).items():
        lines.append(f"| {name} | – | – | {row_of([row], COLUMNS)} | – |")
    return lines


def summarise(args, runs: list[Run], results: Results) -> None:
    """Write the table and, for each variant, the curves of its runs and a frame of its worst and of its best run."""
    write_text(args.out / "stability.md", table(args, runs, results))
    done = [run for run in runs if run.name in results.runs]
    for group in dict.fromkeys(run.group for run in done):
        members = [run for run in done if run.group == group]
        name = "_".join(group)
        logs = {f"seed {run.seed}": args.out / "model" / run.name / "logs" for run in members}
        draw(logs, args.out / f"curves_{name}.png")
        ranked = sorted(members, key=lambda run: psnr_of(args, results, run))
        write_image(args.out / f"worst_and_best_{name}.jpg", same_frame(args, [ranked[0], ranked[-1]], results))


def psnr_of(args, results: Results, run: Run) -> float:
    """Return a run's PSNR on the first kind of rooms."""
    return results.runs[run.name]["tests"][next(iter(args.tests))]["psnr"]


def same_frame(args, runs: list[Run], results: Results) -> np.ndarray:
    """Return the panel of the frame in the middle of the test frames, as each run rendered it, one above the other."""
    folders = [args.out / "model" / f"test_{run.name}" / "panels" for run in runs]
    frames = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*.jpg"))
    panels = [read_color(folder / frames[len(frames) // 2]) for folder in folders]
    width = max(panel.shape[1] for panel in panels)
    parts = []
    for run, panel in zip(runs, panels, strict=True):
        title = np.full((24, width, 3), 255, np.uint8)
        text(
            title, f"{run.variant}, {run.precision}, seed {run.seed}: {psnr_of(args, results, run):.2f} dB", 8, 17, 0.5
        )
        parts += [title, np.pad(panel, ((0, 0), (0, width - panel.shape[1]), (0, 0)), constant_values=255)]
    return np.concatenate(parts)


if __name__ == "__main__":
    run_command(main)
