"""Preparation of ScanNet's release: extraction of <scan>.sens and <scan>_2d-label-filt.zip to data/scannet."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dataset.exports import seems_to_be
from dataset.labels import SCANNET_TABLE
from dataset.poses import to_pose
from dataset.prepare.sens import SensFile, SensFrame, Truncated
from utils.decoding import PNG as PNG_FILE
from utils.errors import UserError
from utils.files import atomic_write, read_text, write_text
from utils.images import write_image
from utils.logging import say

LABEL_MEMBER = re.compile(r"(?:[\w-]+/)?label-filt/(\d+)\.png")  # the folder above may be the scan's
DONE = ".complete"  # written last: with the stride and the source's size and time it says that a scene is whole
BEGUN = (
    ".prepared"  # written first, with a hash of the recording's: what is in the folder may be added to and written anew
)
BEGINNING = 1024  # bytes of a recording, up to its first pose and time stamps
SHOWN_PROBLEMS = 3  # of one kind


@dataclass
class Outcome:
    """Result for one scan: number of frames, notes, and problems. A scene with frames is usable even if there were
    problems."""

    scan: str
    frames: int = 0
    skipped: bool = False
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def prepare_scannet(source: Path, out: Path, scans: list[str] | None, stride: int, workers: int) -> bool:
    """Prepare all scans of a release, or those named. Return False if any had a problem; each problem is printed."""
    found = find_scans(source)
    missing = [scan for scan in scans or [] if scan not in found]
    if missing:
        raise UserError(
            f"{source}: has no {missing[0]}.sens" + (f" (and {len(missing) - 1} more)" if missing[1:] else "")
        )
    chosen = {scan: found[scan] for scan in scans or sorted(found)}
    if not chosen:
        raise UserError(
            f"{source}: has no scans/<scan>/<scan>.sens; give the folder of the ScanNet release{seems_to_be(source)}"
        )
    copy_label_table(source, out)
    require_space(chosen, out, stride)
    outcomes = []
    with tqdm(total=len(chosen), desc="scenes", unit="scene") as progress:
        if workers <= 1 or len(chosen) == 1:
            results = (prepare_scan(sens, out / scan, stride, True) for scan, sens in chosen.items())
            outcomes += _follow(results, progress)
        else:
            with ProcessPoolExecutor(min(workers, len(chosen)), get_context("spawn")) as pool:
                jobs = [pool.submit(prepare_scan, sens, out / scan, stride, False) for scan, sens in chosen.items()]
                outcomes += _follow((job.result() for job in as_completed(jobs)), progress)
    bad = [outcome for outcome in outcomes if outcome.problems]
    say(
        f"{len(outcomes)} scenes, {sum(outcome.frames for outcome in outcomes)} frames in {out}; "
        f"{sum(outcome.skipped for outcome in outcomes)} were complete already, {len(bad)} had problems"
    )
    return not bad


def _follow(outcomes, progress) -> list[Outcome]:
    done = []
    for outcome in outcomes:
        done.append(outcome)
        state = "complete already" if outcome.skipped else f"{outcome.frames} frames"
        say(f"{outcome.scan}: " + "; ".join([state, *outcome.notes, *outcome.problems]))
        progress.update()
    return done


def find_scans(source: Path) -> dict[str, Path]:
    """Return scan name -> .sens file, below scans/, scans_test/, or the folder itself."""
    found = {}
    for pattern in ("scans/*/*.sens", "scans_test/*/*.sens", "*/*.sens", "*.sens"):
        for path in source.glob(pattern):
            found.setdefault(path.stem, path)
    return found


def copy_label_table(source: Path, out: Path) -> None:
    """Copy the table of label ids beside the scenes. Raise UserError if it is missing."""
    table, target = source / SCANNET_TABLE, out / SCANNET_TABLE
    if table.is_file() and target.is_file() and table.read_bytes() != target.read_bytes():
        raise UserError(f"{target}: is another label table than {table}; remove it, or choose another --out")
    if table.is_file() and not target.is_file():
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            shutil.copyfile(table, temporary)
    if not target.is_file():
        raise UserError(f"{table}: the label table is missing; it is at the top of the ScanNet release")


def require_space(scans: dict[str, Path], out: Path, stride: int) -> None:
    """Raise UserError if the free disk space is less than a generous estimate of what is still to be written."""
    needed = sum(
        sens.stat().st_size * 1.2 / stride for scan, sens in scans.items() if not is_complete(sens, out / scan, stride)
    )
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"{out}: about {needed / 1e9:.1f} GB are needed, but {free / 1e9:.1f} GB are free; "
            "choose another --out, fewer --scenes, or a larger --stride"
        )


def is_complete(sens: Path, folder: Path, stride: int) -> bool:
    """Return whether a scene was prepared from this very file at this stride."""
    try:
        return (folder / DONE).read_text() == _fingerprint(sens, stride)
    except OSError:
        return False


def _fingerprint(sens: Path, stride: int) -> str:
    parts = [f"stride {stride}"]
    for path in (sens, _label_archive(sens)):
        parts.append(
            f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" if path.is_file() else f"no {path.name}"
        )
    return "\n".join(parts) + "\n"


def _label_archive(sens: Path) -> Path:
    return sens.with_name(f"{sens.stem}_2d-label-filt.zip")


def prepare_scan(sens: Path, folder: Path, stride: int, show_progress: bool) -> Outcome:
    """Prepare one scan. Existing frames are kept, so that an interrupted run can be resumed."""
    outcome = Outcome(sens.stem)
    if is_complete(sens, folder, stride):
        outcome.skipped = True
        outcome.frames = sum(1 for _ in (folder / "pose").glob("*.txt"))
        return outcome
    try:
        _claim(folder, sens)
        with SensFile(sens) as file:
            _write_intrinsics(file, folder)
            _write_frames(file, folder, stride, outcome, show_progress)
    except UserError as error:
        outcome.problems.append(str(error))
        return outcome
    archive = _label_archive(sens)
    labels = _write_labels(archive, folder, outcome)
    if not archive.is_file():
        outcome.notes.append(f"no labels ({archive.name} is not there)")
    elif labels < outcome.frames:
        outcome.problems.append(f"{outcome.frames - labels} frames have no label")
    if not outcome.problems:
        write_text(folder / DONE, _fingerprint(sens, stride))
    return outcome


def _claim(folder: Path, sens: Path) -> None:
    """Raise UserError if `folder` has a scene that was not made by preparation, or frames of another recording."""
    if (folder / "color").is_dir() and not any((folder / mark).is_file() for mark in (BEGUN, DONE)):
        raise UserError(f"{folder}: exists already and was not made by preparation; choose another --out, or remove it")
    with open(sens, "rb") as file:
        recording = f"recording {hashlib.blake2b(file.read(BEGINNING), digest_size=16).hexdigest()}\n"
    before = read_text(folder / BEGUN) if (folder / BEGUN).is_file() else ""
    if "recording" in before and before != recording:
        raise UserError(f"{folder}: holds frames of another recording than {sens}; choose another --out, or remove it")
    write_text(folder / BEGUN, recording)


def _write_intrinsics(file: SensFile, folder: Path) -> None:
    for sensor in ("color", "depth"):
        for name, matrices in (("intrinsic", file.header.intrinsics), ("extrinsic", file.header.extrinsics)):
            write_text(folder / "intrinsic" / f"{name}_{sensor}.txt", matrix_text(matrices[sensor]))


def _write_frames(file: SensFile, folder: Path, stride: int, outcome: Outcome, show_progress: bool) -> None:
    frames = tqdm(
        file.frames(), total=file.header.frames, desc=outcome.scan, unit="frame", leave=False, disable=not show_progress
    )
    number, lost, damaged = -1, 0, {}
    try:
        for number, frame in enumerate(frames):
            if number % stride == 0:
                try:
                    lost += not np.isfinite(to_pose(frame.pose, file.path, f"the pose of frame {number}")).all()
                    _write_frame(file, frame, folder, number)
                    outcome.frames += 1
                except (ValueError, cv2.error, zlib.error, UserError) as error:
                    damaged[number] = str(error).splitlines()[0].removeprefix(f"{file.path}: ")
        if odd := file.odd_end():
            outcome.notes.append(f"{file.path.name} {odd}")
    except Truncated:
        outcome.problems.append(
            f"{file.path.name} ends inside frame {number + 1} of {file.header.frames}; the frames before it are there, "
            "and a second run adds the others once the file is whole"
        )
    if damaged:
        some = ", ".join(f"{number} ({why})" for number, why in list(damaged.items())[:SHOWN_PROBLEMS])
        more = f" and {len(damaged) - SHOWN_PROBLEMS} more" if len(damaged) > SHOWN_PROBLEMS else ""
        outcome.problems.append(
            f"frames are damaged and left out: {some}{more}; download the recording again, or go on without them"
        )
    if lost == outcome.frames:
        outcome.problems.append("holds no frames" if not outcome.frames else "no frame has a pose (tracking was lost)")
    elif lost:
        outcome.notes.append(f"tracking was lost in {lost}")


def _write_frame(file: SensFile, frame: SensFrame, folder: Path, number: int) -> None:
    """Write the files of a frame. The pose is written last: a frame with a pose is complete."""
    pose = folder / "pose" / f"{number}.txt"
    if pose.is_file():
        return
    depth = file.depth_millimetres(frame)
    suffix, content = file.color_file(frame)  # which raises an error for a damaged image
    with atomic_write(folder / "color" / f"{number}{suffix}") as temporary:
        temporary.write_bytes(content)
    write_image(folder / "depth" / f"{number}.png", depth)
    write_text(pose, matrix_text(frame.pose))


def _write_labels(archive: Path, folder: Path, outcome: Outcome) -> int:
    """Write the labels of existing frames. Members of the archive with other names are not extracted. Return the
    number."""
    if not archive.is_file():
        return 0
    frames = {int(path.stem) for path in (folder / "pose").glob("*.txt")}
    labels: set[int] = set()
    left_out: dict[str, list[str]] = {}
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                match = LABEL_MEMBER.fullmatch(member.filename)
                number = int(match[1]) if match else None
                if number is None and not member.is_dir():
                    left_out.setdefault("are not label-filt/<number>.png", []).append(member.filename)
                elif number in labels:
                    left_out.setdefault("have the number of another one", []).append(member.filename)
                elif number in frames:
                    if _write_label(members, member, folder / "label-filt" / f"{number}.png"):
                        labels.add(number)
                    else:
                        left_out.setdefault("are no PNG", []).append(member.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        outcome.problems.append(f"{archive.name}: is damaged ({error}); the labels before that are there")
    for why, names in left_out.items():
        some = ", ".join(names[:SHOWN_PROBLEMS]) + (", …" if len(names) > SHOWN_PROBLEMS else "")
        outcome.problems.append(f"{archive.name}: {len(names)} members {why}, left out ({some})")
    return len(labels)


def _write_label(members: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bool:
    """Write a label map unless it exists. Return False, without writing, if it is not a PNG."""
    if path.is_file() and zlib.crc32(path.read_bytes()) == member.CRC:
        return True
    content = members.read(member)
    if not content.startswith(PNG_FILE):
        return False
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return True


def matrix_text(values: np.ndarray) -> str:
    """Return a 4x4 matrix as ScanNet writes it."""
    return "\n".join(" ".join(f"{value:.9g}" for value in row) for row in values) + "\n"
