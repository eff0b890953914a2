"""Rendered frames as files, which allow an interrupted run to resume."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np

from dataset.maps import FARTHEST
from dataset.views import Cameras
from train.pictures import Picture
from utils.errors import UserError
from utils.files import write_text
from viewing.session import Session

SETTINGS = "settings.json"  # records the settings that the frames in a folder depend on


class FrameFiles:
    """The files of numbered frames in a folder. names: kind -> format of its file names, such as color/{:05d}.png."""

    def __init__(self, folder: Path, names: dict[str, str]):
        self.folder, self.names = folder, names

    def claim(self, settings: dict) -> None:
        """Keep existing frames if they were rendered with the same settings, else remove them. Raise UserError for
        folders that were not written by this class."""
        note, text = self.folder / SETTINGS, json.dumps(settings, indent=1)
        if note.is_file() and note.read_text() == text:
            return
        for folder in {self.path(kind, 0).parent for kind in self.names}:
            if folder.is_dir() and not note.is_file():
                raise UserError(f"{folder}: exists, and was not rendered here; choose another place (--out)")
            shutil.rmtree(folder, ignore_errors=True)
        write_text(note, text)

    def path(self, kind: str, number: int) -> Path:
        return self.folder / self.names[kind].format(number)

    def has(self, number: int) -> bool:
        return all(self.path(kind, number).is_file() for kind in self.names)


def stored_depth(picture: Picture) -> np.ndarray:
    """Return the depth of a rendered picture in millimetres, (h, w) uint16, 0 where no reference sees anything."""
    millimetres = (picture.depth * 1000).round().clip(1, FARTHEST)
    return np.where(picture.seen, millimetres, 0).astype(np.uint16)


def settings_of(session: Session, cameras: Cameras) -> dict:
    """Return the settings that the rendered frames of some cameras depend on."""
    numbers = np.concatenate([cameras.poses.numpy().ravel(), cameras.Ks.numpy().ravel()])
    return {
        **session.origin,
        "scene": session.scene.name,
        "path": sha256(numbers.tobytes()).hexdigest(),
        "size": list(cameras.size),
        "half": session.renderer.backend.half,
    }
