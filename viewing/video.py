"""Videos along a camera path. Frames are written as files, from which an interrupted run resumes, then joined to a
film."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
from tqdm import tqdm

from dataset.view_selection import evenly
from dataset.views import Cameras
from train.pictures import to_picture
from utils.colors import color_depth
from utils.errors import UserError
from utils.files import atomic_write
from utils.images import read_color, read_map, write_image
from utils.logging import say, warn
from utils.panels import BACKGROUND, GAP, SMALLEST_CELL, legend, mark_unseen
from viewing.frame_files import FrameFiles, settings_of, stored_depth
from viewing.references import References, mixes
from viewing.session import Classes, Session

FORMATS = (".mp4", ".webp", ".gif")
LOOKED_AT = 24  # frames of a film from which the colours of depth, and the classes in the legend, are chosen
FEW_REFERENCES = 0.2  # share of unseen pixels in a frame from which on there is a warning


def render_video(session: Session, cameras: Cameras, references: References, out: Path, fps: float) -> None:
    """Render a camera path into `out` (.mp4, .webp or .gif); its frames are kept in a folder beside it.

    Frames of an interrupted run are reused if model, config and path are the same. Raise UserError if no reference
    shows anything along the path.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"--out {out}: a film ends in one of {', '.join(FORMATS)}")
    require_overlap(references, cameras)
    frames = FilmFiles(out.with_suffix(""), session.classes is not None)
    frames.claim(settings_of(session, cameras))
    unseen = {}
    progress = tqdm(list(enumerate(mixes(references, cameras))), desc=out.stem, unit="frame")
    for number, mix in progress:
        if frames.has(number):
            continue
        view = session.render(cameras.one(number), mix)
        unseen[number] = 1 - view.seen.float().mean().item()
        frames.write(number, view, cameras.size)
    worst = max(unseen, key=unseen.get, default=None)
    if worst is not None and unseen[worst] > FEW_REFERENCES:
        share = sum(unseen.values()) / len(unseen)
        warn(
            f"{share:.0%} of the path, {unseen[worst]:.0%} of its frame {worst}, is not seen by any reference and "
            "is hatched in the film"
        )
    write_film(out, compose(frames, len(cameras), session.classes), fps)
    say(f"film:   {out}\nframes: {frames.folder}")


def require_overlap(references: References, cameras: Cameras) -> None:
    """Raise UserError if no camera of a path sees anything that a reference shows."""
    if not any(references.overlap(cameras.one(i)).max() > 0 for i in range(len(cameras))):
        raise UserError(
            "no reference shows anything of this camera path: is it in the capture's own frame, in metres, "
            "with y up and z backward in the camera?"
        )


class FilmFiles(FrameFiles):
    """The frames of a film as images: color/*.png, classes/*.png (class numbers), depth/*.png (millimetres). Pixels
    that no reference sees are hatched, "invalid" and 0."""

    def __init__(self, folder: Path, with_classes: bool):
        kinds = ("color", "depth", "classes") if with_classes else ("color", "depth")
        super().__init__(folder, {kind: kind + "/{:05d}.png" for kind in kinds})

    def write(self, number: int, view, size: tuple[int, int]) -> None:
        picture = to_picture(view, size)
        images = {"color": mark_unseen(picture.color, picture.seen), "depth": stored_depth(picture)}
        if picture.classes is not None:
            invalid = view.logits.shape[-1] - 1
            images["classes"] = np.where(picture.seen, picture.classes, invalid).astype(np.uint8)
        for kind in self.names:
            write_image(self.path(kind, number), images[kind])

    def read(self, number: int) -> dict[str, np.ndarray]:
        return {kind: (read_color if kind == "color" else read_map)(self.path(kind, number)) for kind in self.names}


def compose(frames: FilmFiles, count: int, classes: Classes | None) -> Iterator[np.ndarray]:
    """Yield frames of colour, classes and depth side by side, over a legend. The colour map of depth is fixed for the
    film."""
    some = [frames.read(number) for number in evenly(range(count), LOOKED_AT)]
    depths = np.concatenate([frame["depth"][frame["depth"] > 0] for frame in some] + [np.array([0, 1])]) / 1000
    near, far = np.quantile(depths, [0.01, 0.99])
    width = some[0]["color"].shape[1]
    larger = max(1, -(-SMALLEST_CELL // width))  # enlarge small pictures, so that the legend is readable
    below = None
    if classes is not None:
        present = np.unique(np.concatenate([np.unique(frame["classes"]) for frame in some]))
        width = 3 * larger * width + 2 * GAP
        below = legend([classes.names[i] for i in present], classes.colors[present], width)
    for number in range(count):
        frame = frames.read(number)
        parts = [frame["color"]]
        parts += [] if classes is None else [classes.colors[frame["classes"]]]
        parts.append(color_depth(frame["depth"] / 1000, near, far))
        parts = [mark_unseen(part, frame["depth"] > 0) for part in parts]
        parts = [part.repeat(larger, 0).repeat(larger, 1) for part in parts]
        gap = np.full((parts[0].shape[0], GAP, 3), BACKGROUND, np.uint8)
        row = np.concatenate([piece for part in parts for piece in (part, gap)][:-1], 1)
        yield row if below is None else np.concatenate([row, below])


def write_film(path: Path, pictures: Iterator[np.ndarray], fps: float) -> None:
    """Write pictures (h, w, 3) uint8 as .mp4 (H.264), or as a looping .webp or .gif."""
    with atomic_write(path) as temporary:
        if path.suffix == ".mp4":
            _write_mp4(temporary, pictures, fps)
        else:
            images = list(pictures)
            imageio.imwrite(temporary, images, extension=path.suffix, duration=round(1000 / fps), loop=0)


def _write_mp4(path: Path, pictures: Iterator[np.ndarray], fps: float) -> None:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise UserError(
            "there is no ffmpeg to write a film with: `pip install imageio-ffmpeg`, or give --out FILE.webp "
            "(the frames are kept)"
        ) from None
    writer = None
    for picture in pictures:
        height, width = picture.shape[:2]
        # H.264 needs even sides.
        picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if writer is None:
            writer = imageio_ffmpeg.write_frames(
                str(path), picture.shape[1::-1], fps=fps, quality=8, macro_block_size=1, output_params=["-f", "mp4"]
            )
            writer.send(None)
        writer.send(np.ascontiguousarray(picture))
    writer.close()
