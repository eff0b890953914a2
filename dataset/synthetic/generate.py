"""Generation of rooms on disk, several in parallel, and of the lists of their names."""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from dataset.sensor import Sensor, drifting, sensed_color, sensed_depth, sensed_labels, sensed_pose
from dataset.synthetic import fine, modelled, room, walks
from dataset.synthetic.meshcast import MeshCaster, embree
from dataset.synthetic.pack import Furniture, add_pack
from dataset.synthetic.raycast import IGNORED, Light, RayCaster
from dataset.synthetic.writers import WRITERS, write_label_table
from utils.errors import UserError
from utils.files import write_text
from utils.logging import say

LOST_SHARE = 0.03  # share of the frames whose tracking is lost


@dataclass(frozen=True)
class Size:
    """Number and kind of rooms to generate.

    rooms: number of rooms in each split. frames: of each room. image: (height, width) in pixels. light: resolution of
    the baked light. supersampling: rays per pixel are its square. style: of STYLES, for rooms without models.
    """

    rooms: dict[str, int]
    frames: int
    image: tuple[int, int]
    light: Light
    supersampling: int = 2
    style: str = "plain"


STYLES = {"plain": room, "fine": fine}  # modules with the functions furnish and walk

SIZES = {
    "tiny": Size({"train": 2, "val": 1, "test": 1}, 48, (48, 64), Light(0.5, 6, 2), 1),
    "demo": Size({"train": 8, "val": 1, "test": 1}, 60, (192, 256), Light(0.25, 12, 4)),
    "full": Size({"train": 40, "val": 4, "test": 10}, 120, (480, 640), Light()),
    "fine": Size({"train": 12, "val": 1, "test": 3}, 80, (968, 1296), Light(), style="fine"),
}
FIRST_SEED = {"train": 0, "val": 10000, "test": 20000}


@dataclass(frozen=True)
class Job:
    """One room to generate."""

    root: Path
    kind: str
    name: str
    seed: int
    size: Size
    device: str
    furniture: Path | None = None  # a pack of models to furnish the room with
    sensor: bool = False  # simulate a hand-held camera


def generate(
    root: Path,
    kind: str,
    size: Size,
    list_width: int | None = None,
    device: str = "cpu",
    workers: int = 1,
    furniture: list[Path] | None = None,
    mixed: bool = False,
    sensor: bool = False,
) -> None:
    """Write all rooms of a size below `root`, and the lists train.txt, val.txt and test.txt of their database names.

    kind: of WRITERS. list_width: image width in pixels in the lists. furniture: a pack or libraries of models to
    furnish the rooms with; mixed: only every other one. sensor: simulate a hand-held camera in colour, depth, labels
    and poses (dataset.sensor). Frames that exist are not written again. Raise UserError if the folder holds rooms of
    another size.
    """
    if furniture:
        embree()  # raises before anything is read or written
    list_width = list_width or min(320, max(64, size.image[1] // 2))
    note = root / f"{kind}.json"
    what = {"frames": size.frames, "image": list(size.image), "style": _style(size, furniture, mixed, sensor)}
    _refuse_others(note, what)
    pack = add_pack(furniture, root) if furniture else None
    write_text(note, json.dumps(what))
    if kind in ("scannet", "release"):
        write_label_table(root / "scannet" if kind == "scannet" else root)
    jobs = []
    for split, count in size.rooms.items():
        names = [f"{split}_{number:03d}" for number in range(count)]
        for number, name in enumerate(names):
            seed = FIRST_SEED[split] + (number // 2 if mixed else number)
            jobs.append(Job(root, kind, name, seed, size, device, None if mixed and number % 2 else pack, sensor))
        tail = "Sequence_1/" if kind == "replica" else ""
        write_text(
            root / f"{split}.txt", "".join(f"{WRITERS[kind].kind}/{name}/{tail}black_{list_width}\n" for name in names)
        )
    _write_rooms(jobs, workers)
    say(
        f"{len(jobs)} rooms of {size.frames} frames are in {root}, "
        f"listed in {', '.join(f'{split}.txt' for split in size.rooms)}"
    )


def _write_rooms(jobs: list[Job], workers: int) -> None:
    """Write the rooms, `workers` at a time."""
    workers = max(1, min(workers, len(jobs)))
    with tqdm(total=sum(job.size.frames for job in jobs), desc="rooms", unit="frame") as progress:
        if workers == 1:
            for job in jobs:
                progress.update(write_room(job))
        else:
            with _threads_of_children(1), ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
                for done in as_completed([pool.submit(write_room, job) for job in jobs]):
                    progress.update(done.result())


def write_room(job: Job) -> int:
    """Render and write the missing frames of a room. Return the number of frames of the room."""
    writer = WRITERS[job.kind](job.root, job.name)
    missing = [frame for frame in range(job.size.frames) if not all(path.is_file() for path in writer.files(frame))]
    if not missing:
        return job.size.frames
    lost = lost_frames(job.size.frames, job.seed)
    K = writer.intrinsics(job.size.image)
    caster, poses = _visited(job, K)
    camera = _Camera(job) if job.sensor else None
    tracked = camera.tracked(poses) if camera else poses
    writer.write_scene(K, tracked, job.size.image)
    for frame in missing:
        seen = caster.render(K, poses[frame], job.size.image, job.size.supersampling)
        writer.write_frame(frame, *(camera.sensed(frame, *seen) if camera else seen), tracked[frame], frame in lost)
    writer.finish()
    return job.size.frames


class _Camera:
    """A simulated sensor and its drift in one room. The noise of a frame depends only on the room and the frame."""

    def __init__(self, job: Job):
        rng = np.random.default_rng([job.seed, 9])
        self._seed, self._sensor, self._drift = job.seed, Sensor.drawn(rng), drifting(job.size.frames, rng)

    def tracked(self, poses: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self._seed, 10])
        return np.stack([sensed_pose(pose, self._sensor, rng) for pose in poses])

    def sensed(self, frame: int, color, depth, classes):
        rng = np.random.default_rng([self._seed, 11, frame])
        return (
            sensed_color(color, self._sensor, self._drift[frame], rng),
            sensed_depth(depth, self._sensor, rng, color),
            sensed_labels(classes, self._sensor, rng, IGNORED),
        )


def _visited(job: Job, K: np.ndarray) -> tuple[RayCaster | MeshCaster, np.ndarray]:
    """Return a caster of a furnished room, and the camera-to-world poses (frames, 4, 4) of a walk through it."""
    size = job.size
    if job.furniture:
        furnished = modelled.furnish(Furniture(job.furniture), job.seed)
        poses = walks.walk(furnished, size.frames, job.seed)
        caster = MeshCaster(furnished, size.light, job.seed)
        caster.expose(K, poses, size.image, furnished.key)
        return caster, poses
    style = STYLES[size.style]
    furnished = style.furnish(job.seed)
    return RayCaster(furnished, size.light, job.seed, job.device), style.walk(furnished, size.frames, job.seed)


def _style(size: Size, furniture, mixed: bool, sensor: bool) -> str:
    style = size.style if not furniture else f"modelled and {size.style}" if mixed else "modelled"
    return f"{style} (as by a sensor)" if sensor else style


def lost_frames(frames: int, seed: int) -> set[int]:
    """Return the frames of a room whose tracking is lost: at least one in rooms of 20 frames or more, else none."""
    rng = np.random.default_rng([seed, 3])
    return set(rng.choice(frames, int(np.ceil(frames * LOST_SHARE)) if frames >= 20 else 0, replace=False).tolist())


def _refuse_others(path: Path, what: dict) -> None:
    """Raise UserError if the rooms of a folder, described in the file `path`, differ from `what`."""
    found = {"style": "plain", **json.loads(path.read_text())} if path.is_file() else what
    if found != what:
        raise UserError(
            f"{path.parent}: holds {found['style']} rooms of {found['frames']} frames at "
            f"{found['image'][1]}x{found['image'][0]}; choose another --out, or remove that folder"
        )


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@contextlib.contextmanager
def _threads_of_children(count: int):
    """Set the number of NumPy's threads in processes started inside this context. NumPy reads it only when imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
