"""Writes rooms to disk, several at once, and the lists of their names."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset.synthetic.raycast import Light, RayCaster
from dataset.synthetic.room import furnish, walk
from dataset.synthetic.writers import WRITERS, write_label_table
from utils.errors import UserError
from utils.files import write_text
from utils.logging import say

LOST_SHARE = 0.03  # of the frames have lost tracking


@dataclass(frozen=True)
class Size:
    """rooms of each split, frames of each room, (height, width) of the images, how fine the light is."""

    rooms: dict[str, int]
    frames: int
    image: tuple[int, int]
    light: Light
    supersampling: int = 2


SIZES = {
    "tiny": Size({"train": 2, "val": 1, "test": 1}, 48, (48, 64), Light(0.5, 6, 2), 1),
    "demo": Size({"train": 8, "val": 1, "test": 1}, 60, (192, 256), Light(0.25, 12, 4)),
    "full": Size({"train": 40, "val": 4, "test": 10}, 120, (480, 640), Light()),
}
FIRST_SEED = {"train": 0, "val": 10000, "test": 20000}


@dataclass(frozen=True)
class Job:
    """One room to be written."""

    root: Path
    kind: str
    name: str
    seed: int
    size: Size
    device: str


def generate(
    root: Path, kind: str, size: Size, list_width: int | None = None, device: str = "cpu", workers: int = 1
) -> None:
    """Writes all rooms of a size and the lists train.txt, val.txt and test.txt of their database names.

    What is there already is not written again. Raises UserError if the folder holds rooms of another size.
    """
    list_width = list_width or min(320, max(64, size.image[1] // 2))
    _claim(root / f"{kind}.json", {"frames": size.frames, "image": list(size.image)})
    if kind in ("scannet", "release"):
        write_label_table(root / "scannet" if kind == "scannet" else root)
    jobs = []
    for split, count in size.rooms.items():
        names = [f"{split}_{number:03d}" for number in range(count)]
        jobs += [Job(root, kind, name, FIRST_SEED[split] + number, size, device) for number, name in enumerate(names)]
        tail = "Sequence_1/" if kind == "replica" else ""
        write_text(
            root / f"{split}.txt", "".join(f"{WRITERS[kind].kind}/{name}/{tail}black_{list_width}\n" for name in names)
        )
    workers = max(1, min(workers, len(jobs)))
    with tqdm(total=len(jobs) * size.frames, desc="rooms", unit="frame") as progress:
        if workers == 1:
            for job in jobs:
                progress.update(write_room(job))
        else:
            with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
                for done in as_completed([pool.submit(write_room, job) for job in jobs]):
                    progress.update(done.result())
    say(
        f"{len(jobs)} rooms of {size.frames} frames are in {root}, "
        f"listed in {', '.join(f'{split}.txt' for split in size.rooms)}"
    )


def write_room(job: Job) -> int:
    """Renders and writes the frames of a room that are not there yet. Returns the number of frames."""
    writer = WRITERS[job.kind](job.root, job.name)
    missing = [frame for frame in range(job.size.frames) if not all(path.is_file() for path in writer.files(frame))]
    if not missing:
        return job.size.frames
    room = furnish(job.seed)
    poses = walk(room, job.size.frames, job.seed)
    lost = lost_frames(job.size.frames, job.seed)
    K = writer.intrinsics(job.size.image)
    writer.write_scene(K, poses, job.size.image)
    caster = RayCaster(room, job.size.light, job.seed, job.device)
    for frame in missing:
        color, depth, classes = caster.render(K, poses[frame], job.size.image, job.size.supersampling)
        writer.write_frame(frame, color, depth, classes, poses[frame], frame in lost)
    writer.finish()
    return job.size.frames


def lost_frames(frames: int, seed: int) -> set[int]:
    """The frames of a room whose tracking is lost: at least one where there are twenty."""
    rng = np.random.default_rng([seed, 3])
    return set(rng.choice(frames, int(np.ceil(frames * LOST_SHARE)) if frames >= 20 else 0, replace=False).tolist())


def _claim(path: Path, what: dict) -> None:
    """Notes what the rooms of a folder are, or raises UserError if they are something else already."""
    if path.is_file():
        found = json.loads(path.read_text())
        if found != what:
            raise UserError(
                f"{path.parent}: holds rooms of {found['frames']} frames at {found['image'][1]}x{found['image'][0]}; "
                "choose another --out, or remove that folder"
            )
    else:
        write_text(path, json.dumps(what))


def _one_thread() -> None:
    torch.set_num_threads(1)
