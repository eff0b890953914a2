"""Selection of the references for a camera by overlap and distance, with smooth transitions along a path."""

from __future__ import annotations

import torch

from dataset.scene import Scene
from dataset.view_selection import POOL_STEP
from dataset.views import Cameras
from network.geometry import pixel_grid, pixel_rays, project

DEPTHS = (0.7, 1.5, 3.0)  # metres, at which the overlap of two views is computed
GRID = (5, 7)  # rows and columns of sample points in a view for the overlap
LOYALTY = 0.7  # factor of the cost of references that are in use already
FADE = 8  # frames of a transition from one set of references to the next

Mix = list[tuple[float, tuple[str, ...]]]  # sets of references with weights that sum to 1


class References:
    """Chooses references for cameras from a pool of frames of a scene."""

    def __init__(self, scene: Scene, count: int, for_tests: bool = False):
        """count: references of one view. for_tests: use the pool of an evaluation, which leaves out the test frames."""
        if for_tests:
            self.pool = scene.split().references
        else:  # every fifth frame of a video: neighbouring frames show the same
            self.pool = scene.own_split.references if scene.own_split else scene.frame_ids[::POOL_STEP]
            self.pool = self.pool if len(self.pool) >= count else scene.frame_ids
        self.count = count
        self.cameras = scene.cameras(self.pool)
        self._centres = self.cameras.centres()

    def choose(self, camera: Cameras, current: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Choose the references with the least cost for one camera, sorted by frame. The cost is distance over overlap;
        that of `current` references is lower, so that they are kept unless others are clearly better."""
        distance = (self._centres - camera.centres()).norm(dim=-1) + 0.1
        cost = distance / (self.overlap(camera) + 0.02)
        cost *= torch.tensor([LOYALTY if frame in current else 1.0 for frame in self.pool])
        chosen = torch.argsort(cost, stable=True)[: self.count]
        return tuple(self.pool[i] for i in sorted(chosen.tolist()))

    def overlap(self, camera: Cameras) -> torch.Tensor:
        """Return the share of one camera's view that each frame of the pool shows, (N,)."""
        height, width = camera.size
        grid = pixel_grid(*GRID) * torch.tensor([(width - 1) / (GRID[1] - 1), (height - 1) / (GRID[0] - 1)])
        centres, directions = pixel_rays(grid[None], camera.poses, camera.Ks)
        points = torch.cat([centres + depth * directions[0] for depth in DEPTHS])
        seen = project(points, self.cameras)
        return (seen.valid & (seen.depth > 0)).float().mean(-1)


def mixes(references: References, cameras: Cameras) -> list[Mix]:
    """Return the references of each camera of a path: a new set every FADE frames, and in between a mix of two sets."""
    keys = list(range(0, len(cameras), FADE))
    choices, current = [], ()
    for key in keys:
        current = references.choose(cameras.one(key), current)
        choices.append(current)
    return [_mix(choices, frame) for frame in range(len(cameras))]


def _mix(choices: list[tuple[str, ...]], frame: int) -> Mix:
    before, passed = divmod(frame, FADE)
    after, weight = min(before + 1, len(choices) - 1), passed / FADE
    if weight == 0 or choices[before] == choices[after]:
        return [(1.0, choices[before])]
    return [(1 - weight, choices[before]), (weight, choices[after])]
