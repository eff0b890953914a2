"""check.html: tables and pictures of all scenes in one file that needs nothing else."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from dataset.check.consistency import Consistency
from dataset.check.inventory import Inventory, summarize
from dataset.check.labelling import Labelling
from dataset.check.warping import Pair, warp
from dataset.frames import LOST
from dataset.labels import LabelSet
from utils.colors import color_depth
from utils.files import write_text
from utils.panels import grid

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1150px; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top }
img { max-width: 100%; display: block; margin: .5rem 0 } .warning { background: #fde8d0; padding: .5rem 1rem; border-radius: 6px }
.good { background: #e2f3e2; padding: .5rem 1rem; border-radius: 6px } .bar { background: #7a9cc6; height: .8rem; display: inline-block }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem } small { color: #666 }
"""


@dataclass(frozen=True)
class SceneReport:
    """Findings about a scene. error: the message if it could not be opened. hints: further signs of a wrong capture."""

    name: str
    error: str | None = None
    inventory: Inventory | None = None
    consistency: Consistency | None = None
    pairs: tuple[Pair, ...] = ()
    labels: LabelSet | None = None
    hints: tuple[str, ...] = ()
    labelling: Labelling | None = None


def write_page(reports: list[SceneReport], path: Path) -> None:
    sections = "\n".join(_section(report) for report in reports)
    write_text(
        path,
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Data check</title><style>{STYLE}</style>"
        f"<h1>Data check</h1>\n{sections}</html>\n",
    )


def _section(report: SceneReport) -> str:
    title = f"<h2>{escape(report.name)}</h2>"
    if report.error is not None:
        return f"{title}<p class='warning'>{escape(report.error)}</p>"
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in describe(report.inventory).items()
    )
    return "\n".join(
        [
            title,
            _verdict(report),
            f"<table>{rows}</table>",
            _histogram(report.inventory),
            *[_pair_picture(pair, report.labels) for pair in report.pairs],
        ]
    )


def describe(inventory: Inventory) -> dict[str, str]:
    """Return an inventory as text, row by row."""
    sizes = "; ".join(
        f"{kind} "
        + ", ".join(f"{w}x{h}" + (f" ({count})" if len(found) > 1 else "") for (w, h), count in found.items())
        for kind, found in inventory.sizes.items()
    )
    rows = {
        "frames": f"{inventory.frames}",
        "left out": ", ".join(f"{reason}: {count}" for reason, count in inventory.skipped.items()) or "none",
        "gaps in the numbering": f"{inventory.gaps}",
        "image sizes": sizes,
        "camera path": f"{inventory.path_length:.2f} m",
        "unreadable": f"{len(inventory.unreadable)} of the images of {inventory.decoded} frames",
    }
    if inventory.depth_valid is not None:
        rows["pixels with depth"] = f"{inventory.depth_valid:.1%}"
    else:
        rows["depth"] = "none, so that lengths are taken for metres"
    if inventory.unknown_ids:
        rows["label ids unknown to the table"] = ", ".join(
            f"{raw} ({count} pixels)" for raw, count in inventory.unknown_ids.items()
        )
    return rows


def verdict(report: SceneReport) -> list[str]:
    """Return the warnings about a scene, a line each."""
    inventory, consistency = report.inventory, report.consistency
    lines = summarize(inventory.unreadable)
    lines += [f"{count} frames are left out: {why}" for why, count in inventory.skipped.items() if why != LOST]
    if inventory.unknown_ids:
        lines.append(f"label ids {', '.join(map(str, inventory.unknown_ids))} are not in the table")
    lines += report.hints
    if consistency is not None and consistency.geometry_is_wrong:
        cause = f"likely cause: {consistency.cause}" if consistency.cause else "check poses, intrinsics and depth"
        lines.append(
            f"frames do not agree with each other ({consistency.agreement:.0%} of the pixels land on a surface at their "
            f"depth; in the best pairs {consistency.best_agreement:.0%}); {cause}"
        )
    if consistency is not None and consistency.color_is_wrong:
        cause = f"likely cause: {consistency.color_cause}" if consistency.color_cause else "are images of other frames?"
        lines.append(
            f"colour does not fit depth and poses (where surfaces agree it differs by {consistency.color_disagreement:.3f}, in "
            f"the best pairs by {consistency.best_color:.3f}; its detail correlates to {consistency.detail:.2f} of 1); {cause}"
        )
    labelling = report.labelling
    if labelling is not None and labelling.is_wrong and not (consistency and consistency.geometry_is_wrong):
        cause = (
            f"likely cause: {labelling.cause}" if labelling.cause else "are labels of other frames, or of instances?"
        )
        lines.append(
            f"labels do not fit depth and poses (where surfaces agree {labelling.agreement:.0%} of the pixels have the same class, "
            f"in the best pairs {labelling.best_agreement:.0%}); {cause}"
        )
    return lines


def _verdict(report: SceneReport) -> str:
    numbers = ""
    if report.consistency is not None:
        c = report.consistency
        numbers = (
            f"<p><small>{c.pairs} pairs of frames: {c.agreement:.0%} of the pixels agree ({c.best_agreement:.0%} in the best "
            f"pairs); median disagreement of depth {c.depth_disagreement:.1%}, of colour {c.color_disagreement:.3f}; "
            f"detail of colour correlates to {c.detail:.2f}"
            + (f"; {report.labelling.agreement:.0%} of the labels agree" if report.labelling else "")
            + "</small></p>"
        )
    lines = verdict(report)
    if lines:
        return "".join(f"<p class='warning'>{escape(line)}</p>" for line in lines) + numbers
    return "<p class='good'>Nothing wrong was found.</p>" + numbers


def _histogram(inventory: Inventory) -> str:
    total = sum(inventory.classes.values())
    if not total:
        return "<p><small>no labels</small></p>"
    rows = [
        f"<tr><td>{escape(name)}</td><td><span class='bar' style='width:{400 * count / total:.0f}px'></span> {count / total:.1%}</td></tr>"
        for name, count in inventory.classes.items()
        if count
    ]
    return f"<table>{''.join(rows)}</table>"


def _pair_picture(pair: Pair, labels: LabelSet | None) -> str:
    """Return the first frame moved into the second one's view, beside it, and how they differ."""
    moved = warp(pair)
    order = np.argsort(-moved.depth)  # the nearest is written last
    rows, columns, source = moved.rows[order], moved.columns[order], moved.source[order]
    warped = np.zeros_like(pair.colors[1])
    warped[rows, columns] = pair.colors[0].reshape(-1, 3)[source]
    landed = np.zeros(warped.shape[:2], bool)
    landed[rows, columns] = True
    difference = (
        np.where(landed[..., None], np.abs(warped.astype(int) - pair.colors[1]), 0).clip(0, 255).astype(np.uint8)
    )
    known = pair.depths[1][pair.depths[1] > 0]
    near, far = np.quantile(known, [0.01, 0.99]) if len(known) else (0.1, 5.0)
    pictures = [
        [
            (f"frame {pair.frames[1]}", pair.colors[1]),
            (f"frame {pair.frames[0]} moved into it", warped),
            ("difference", difference),
        ],
        [("depth", color_depth(pair.depths[1], near, far))],
    ]
    if pair.classes is not None and labels is not None:
        over = [labels.colors[pair.classes[1]], np.zeros_like(warped)]
        over[1][rows, columns] = labels.colors[pair.classes[0].ravel()[source]]
        pictures[1] += [
            (title, (0.4 * pair.colors[1] + 0.6 * layer).astype(np.uint8))
            for title, layer in zip(("its classes", "the moved frame's classes"), over, strict=True)
        ]
    encoded = cv2.imencode(".jpg", grid(pictures)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return f"<img alt='frames {pair.frames[0]} and {pair.frames[1]}' src='data:image/jpeg;base64,{base64.b64encode(encoded).decode()}'>"
