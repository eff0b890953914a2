"""Signs of a wrong scene that no single file shows: what all its images and maps have in common."""

from __future__ import annotations

from collections.abc import Iterator

from dataset.check.inventory import Inventory
from dataset.labels import SCANNET_TABLE, look_like_nyu40
from dataset.poses import leaps
from dataset.scannet import NYU40_HINT
from dataset.scene import Scene
from dataset.transforms import unit_hint

CUT_OFF = 0.01  # of all known depth: so much of it at its largest or smallest value is no coincidence
BLENDED = 0.1  # of the pixels at borders of labels
FEW_LEFT = 0.2  # of their images by masks
DARK = 64  # of 255: 16 bits that hold 14 end below
NOTHING = {"depth": "hold no depth", "mask": "leave nothing of their image", "color": "show a single colour"}


def find_hints(scene: Scene, inventory: Inventory, label_ids: str) -> tuple[str, ...]:
    """Return what is odd about a scene, a line each."""
    return (
        *_of_scene(scene, inventory, label_ids),
        *_of_emptiness(inventory),
        *_of_colors(inventory),
        *_of_depth(inventory),
    )


def _of_scene(scene: Scene, inventory: Inventory, label_ids: str) -> Iterator[str]:
    raw_ids = scene.labels is not None and scene.labels.source.endswith(SCANNET_TABLE)
    if raw_ids and label_ids == "auto" and look_like_nyu40(inventory.ids):
        yield NYU40_HINT
    if not scene.has_depth and (hint := unit_hint(scene.camera_to_world)):
        yield hint
    if count := int(leaps(scene.camera_to_world).sum()):
        yield f"the poses of {count} frames leap away from those before and after"
    if inventory.borders and inventory.blended > BLENDED * inventory.borders:
        yield "labels have numbers between others along borders, as if resized with interpolation; resize with nearest"


def _of_emptiness(inventory: Inventory) -> Iterator[str]:
    if inventory.depth_valid == 0:
        yield "no depth map holds a depth"
    for kind, count in inventory.empty.items():
        what = "images" if kind == "color" else "maps"
        yield f"{count} of the {kind} {what} of {inventory.decoded} frames {NOTHING[kind]}"
    left = inventory.mask_left
    if left == 1:
        yield "masks ignore nothing: only black (0), or transparent, is ignored"
    elif left is not None and 0 < left < FEW_LEFT:
        yield f"masks leave {left:.0%} of their images; are they inverted? black is ignored"


def _of_colors(inventory: Inventory) -> Iterator[str]:
    if 0 < inventory.grey < inventory.decoded:
        yield f"{inventory.grey} of the color images of {inventory.decoded} frames are grey, and the others are not"
    if 0 < inventory.brightest < DARK:
        yield f"images are dark: none is brighter than {inventory.brightest} of 255; do their 16 bits hold 14 or fewer?"


def _of_depth(inventory: Inventory) -> Iterator[str]:
    farthest, nearest = max(inventory.highest, default=0), min(inventory.lowest, default=0)
    ends = {farthest: (inventory.highest, "the largest: it seems to be cut off there")}
    if nearest < farthest:
        ends[nearest] = (inventory.lowest, "the smallest: it seems to stand for what is not known")
    for depth, (pixels, told) in ends.items():
        if pixels[depth] > CUT_OFF * inventory.depth_known:
            share = pixels[depth] / inventory.depth_known
            yield f"{share:.0%} of all depth is exactly {depth} mm, {told}; write 0 where depth is not known"
