"""Draws a run's training curve from its TensorBoard logs (needs matplotlib).

python benchmarks/plot_curve.py LOGS PICTURE
"""

from __future__ import annotations

import argparse

import matplotlib
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = {"loss": ("loss/total",), "PSNR in dB": ("train/psnr", "val/psnr"), "mIoU": ("val/miou",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs")
    parser.add_argument("picture")
    args = parser.parse_args()
    events = EventAccumulator(args.logs, size_guidance={"scalars": 0})
    events.Reload()
    there = events.Tags()["scalars"]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 3), constrained_layout=True)
    for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
        for name in names:
            if name in there:
                rows = events.Scalars(name)
                axis.plot(
                    [row.step for row in rows],
                    [row.value for row in rows],
                    "o-" if name.startswith("val") else "-",
                    label=name,
                    linewidth=1,
                    markersize=4,
                )
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()
