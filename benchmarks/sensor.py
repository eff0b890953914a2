"""Statistics of simulated sensor images beside those of a real Kinect: `python -m benchmarks.sensor KITCHEN FURNITURE`.

KITCHEN holds the 50 frames of the 7-Scenes kitchen (frame-*.color.jpg, .depth.png, .pose.txt), FURNITURE is a pack of
models. Renders rooms at 640x480, exact and sensed, and writes benchmarks/results/sensor.md and sensor.jpg.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dataset.sensor import Sensor, drifting, sensed_color, sensed_depth, sensed_labels
from dataset.synthetic import modelled, walks
from dataset.synthetic.meshcast import IGNORED, MeshCaster
from dataset.synthetic.pack import Furniture
from dataset.synthetic.raycast import Light
from utils.cli import command_parser, run_command
from utils.errors import UserError
from utils.files import write_text
from utils.images import read_color, read_map, write_image

SIZE = (480, 640)
K = np.array([[525.0, 0, 319.5], [0, 525, 239.5], [0, 0, 1]])
ROOMS, FRAMES = 5, 8
DEPTHS = ((0.5, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, 2.5), (2.5, 3.0), (3.0, 4.0))
RESULTS = Path(__file__).parent / "results"


def kitchen(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return colour (h, w, 3) uint8 and depth (h, w) metres of every frame."""
    paths = sorted(folder.glob("frame-*.color.jpg"))
    if not paths:
        raise UserError(f"{folder}: holds no frame-*.color.jpg")
    colors = [read_color(path) for path in paths]
    depths = [read_map(path.with_name(path.name.replace("color.jpg", "depth.png"))) for path in paths]
    return colors, [np.where(depth == 65535, 0, depth) / 1000 for depth in depths]


def statistics(colors: list[np.ndarray], depths: list[np.ndarray]) -> dict[str, str]:
    """Return the rows of the table: statistics that need no second picture of the same thing."""
    greys = [cv2.cvtColor(color, cv2.COLOR_RGB2GRAY).astype(np.float32) for color in colors]
    means = np.array([color.reshape(-1, 3).mean(0) for color in colors])
    levels = np.percentile(np.concatenate([grey.ravel()[::17] for grey in greys]), [5, 25, 50, 75, 95])
    rows = {
        "grey levels at 5, 25, 50, 75, 95%": ", ".join(f"{level:.0f}" for level in levels),
        "drift of the mean level": f"{100 * np.std(means.mean(1)) / means.mean():.0f}%",
        "red / green, blue / green": ", ".join(
            f"{ratio.mean():.2f} ± {ratio.std():.2f}"
            for ratio in (means[:, 0] / means[:, 1], means[:, 2] / means[:, 1])
        ),
        "noise of colour, levels": _spread([_color_noise(grey) for grey in greys]),
        "sharpness of the strongest edges": _spread([_sharpness(grey) for grey in greys]),
        "depth unknown, %": _spread([100 * (depth <= 0).mean() for depth in depths], True),
        "unknown beside silhouettes, %": _spread([100 * _lost_at_silhouettes(depth) for depth in depths]),
    }
    for low, high in DEPTHS:
        rows[f"noise of depth at {low} to {high} m, mm"] = _depth_noise(depths, low, high)
    return rows


def _spread(values: list[float], whole: bool = False) -> str:
    low, middle, high = np.percentile(values, [10, 50, 90])
    digits = 0 if whole else 2
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _color_noise(grey: np.ndarray) -> float:
    """Return the standard deviation of the noise, the rest after planes of brightness are removed (Immerkær 1996)."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    return float(np.median(np.abs(cv2.filter2D(grey, -1, mask))) / 0.6745 / 6)


def _sharpness(grey: np.ndarray) -> float:
    """Return how much of the strongest edges lies within a pixel: their second difference over their first."""
    first = np.abs(cv2.Sobel(grey, -1, 1, 0, scale=1 / 8))
    second = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1))
    return float(np.percentile(second, 99) / np.percentile(first, 99))


def _lost_at_silhouettes(depth: np.ndarray) -> float:
    """Return the share of what is unknown that lies within 12 pixels of a step in depth of more than 8%."""
    filled = np.where(depth > 0, depth, np.nan).astype(np.float32)
    reach = np.ones((25, 25), np.uint8)
    far = cv2.dilate(np.nan_to_num(filled), reach)
    near = cv2.erode(np.nan_to_num(filled, nan=100.0), reach)
    lost = depth <= 0
    return float((lost & (far > 1.08 * near)).sum() / max(lost.sum(), 1))


def _depth_noise(depths: list[np.ndarray], low: float, high: float) -> str:
    """Return the deviation of depth from its neighbours' line on smooth surfaces between two depths, and the share of
    pixels that have exactly the depth of theirs."""
    left = []
    for depth in depths:
        middle = depth[:, 2:-2]
        chosen = (middle >= low) & (middle < high) & (depth[:, 4:] > 0) & (depth[:, :-4] > 0)
        bend = (depth[:, 4:] - 2 * middle + depth[:, :-4])[chosen]
        left.append(bend[np.abs(bend) < 0.04 * low])
    left = np.concatenate(left)
    if len(left) < 5000:
        return "–"
    return f"{1000 * left.std() / np.sqrt(6):.1f}, {100 * (np.abs(left) < 1e-6).mean():.0f}% flat"


def rendered(furniture: Path):
    """Return colour and depth of rooms of models, exact and sensed, and pictures (h, w, 3) of one frame of each."""
    models = Furniture(furniture)
    exact, sensed, panels = ([], []), ([], []), []
    for seed in range(ROOMS):
        rng = np.random.default_rng(seed)
        room = modelled.furnish(models, 30000 + seed)
        poses = walks.walk(room, 60, seed)[:: 60 // FRAMES][:FRAMES]
        caster = MeshCaster(room, Light(), seed)
        caster.expose(K, poses, SIZE, room.key)
        sensor, drift = Sensor.drawn(rng), drifting(60, rng)
        for frame, pose in enumerate(poses):
            color, depth, classes = caster.render(K, pose, SIZE)
            noisy = sensed_color(color, sensor, drift[frame], rng)
            measured = np.round(sensed_depth(depth, sensor, rng, color) * 1000) / 1000
            for kind, values in ((exact, (color, depth)), (sensed, (noisy, measured))):
                kind[0].append(values[0])
                kind[1].append(values[1])
            if frame == 2:
                ragged = sensed_labels(classes, sensor, rng, IGNORED)
                panels.append(_panel(((color, depth, classes), (noisy, measured, ragged))))
    return exact, sensed, np.concatenate(panels)


def _panel(versions) -> np.ndarray:
    """Return colour, depth and classes of two versions of a frame side by side, at half size."""
    tiles = []
    for color, depth, classes in versions:
        shades = cv2.applyColorMap((depth.clip(0, 5) * 51).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
        hues = cv2.applyColorMap((classes * 12).astype(np.uint8), cv2.COLORMAP_HSV)[..., ::-1]
        tiles += [color, shades * (depth > 0)[..., None], hues * (classes < IGNORED)[..., None]]
    return cv2.resize(np.concatenate(tiles, 1), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = command_parser("python -m benchmarks.sensor", __doc__)
    parser.add_argument("kitchen", type=Path, help="folder of the recording")
    parser.add_argument("furniture", type=Path, help="pack of dataset.synthetic.pack")
    args = parser.parse_args()
    real = statistics(*kitchen(args.kitchen))
    exact, sensed, panels = rendered(args.furniture)
    rows = [
        f"| {name} | {value} | {other[name]} | {third[name]} |"
        for other, third in [(statistics(*sensed), statistics(*exact))]
        for name, value in real.items()
    ]
    text = (RESULTS / "sensor.md").read_text() if (RESULTS / "sensor.md").is_file() else ""
    head, _, _ = text.partition("| | kitchen")
    table = ["| | kitchen, 50 frames | rooms, sensed | rooms, exact |", "|---|---|---|---|", *rows]
    write_text(RESULTS / "sensor.md", head + "\n".join(table) + "\n")
    write_image(RESULTS / "sensor.jpg", panels, quality=85)
    print("\n".join(table))


if __name__ == "__main__":
    run_command(main)
