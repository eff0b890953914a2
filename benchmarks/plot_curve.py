"""Draws training curves from TensorBoard logs, by step and by time (needs matplotlib).

python -m benchmarks.plot_curve PICTURE LOGS [LOGS …]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.cli import command_parser, run_command

PANELS = {
    "loss": ("loss/total",),
    "PSNR in dB": ("train/psnr", "val/psnr"),
    "mIoU": ("val/miou",),
    "median depth error": ("train/depth_median", "val/depth_median"),
    "rays ending before half their depth": ("train/ended_early",),
}
SMOOTHED = 0.05  # of a curve's points are averaged to draw one


def main() -> None:
    parser = command_parser("python -m benchmarks.plot_curve", __doc__)
    parser.add_argument("picture", type=Path, help="file to write: .png, .svg or .pdf")
    parser.add_argument("logs", type=Path, nargs="+", help="folders of logs: data/model/<name>/logs")
    args = parser.parse_args()
    draw({log.parent.name: log for log in args.logs}, args.picture)


def read_scalars(logs: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Return name -> rows of step, value and wall time in seconds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: [(row.step, row.value, row.wall_time) for row in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def pyplot():
    """Return matplotlib's pyplot with a file backend; without matplotlib None, and a line says so."""
    try:
        import matplotlib
    except ImportError:
        print("no curves: they need matplotlib")
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw(runs: dict[str, Path], picture: Path) -> None:
    """Plot several runs in one picture (title -> folder of logs): what they have in common, by step, and the loss by
    time.

    Without matplotlib there is no picture, and a line says so.
    """
    plt = pyplot()
    if plt is None:
        return
    scalars = {title: read_scalars(logs) for title, logs in runs.items()}
    panels = {t: names for t, names in PANELS.items() if any(n in run for n in names for run in scalars.values())}
    figure, axes = plt.subplots(1, len(panels) + 1, figsize=(4.2 * (len(panels) + 1), 3.2), constrained_layout=True)
    for number, (title, run) in enumerate(scalars.items()):
        style = {"color": f"C{number}", "linewidth": 1}
        for axis, names in zip(axes, panels.values(), strict=False):
            for name in (name for name in names if name in run):
                steps, values, _ = np.array(run[name]).T
                unseen = len(names) > 1 and name.startswith("val")
                label = f"{title}, unseen rooms" if unseen else title
                axis.plot(steps, _smooth(values), label=label, linestyle="--" if unseen else "-", **style)
        _, values, times = np.array(run["loss/total"]).T
        axes[-1].plot(times - times[0], _smooth(values), label=title, **style)
    for axis, (title, unit) in zip(axes, [*((t, "step") for t in panels), ("loss", "seconds")], strict=True):
        axis.set(title=title, xlabel=unit)
        axis.grid(alpha=0.3)
    axes[min(1, len(panels) - 1)].legend(fontsize=7)
    figure.savefig(picture, dpi=110)


def _smooth(values: np.ndarray) -> np.ndarray:
    width = max(1, round(SMOOTHED * len(values)))
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, "valid")


if __name__ == "__main__":
    run_command(main)
