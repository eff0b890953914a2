"""Selection of the references that show a camera best, with a smooth change along a path."""

from __future__ import annotations

import torch

from dataset.scene import Scene
from dataset.view_selection import POOL_STEP
from dataset.views import Cameras
from network.geometry import pixel_grid, pixel_rays, project

DEPTHS = (0.7, 1.5, 3.0)  # metres, at which it is asked how much of a view a reference shows
GRID = (5, 7)  # points of a view that are asked about
LOYALTY = 0.7  # a reference in use may be so much nearer than it is
FADE = 8  # frames in which one choice passes into the next

Mix = list[tuple[float, tuple[str, ...]]]  # weights that sum to 1, and the references of each


class References:
    """The frames of a scene that are referred to, and which of them to take for a camera."""

    def __init__(self, scene: Scene, count: int, for_tests: bool = False):
        """count: references of one view. for_tests: the pool of an evaluation, which leaves out the test frames."""
        if for_tests:
            self.pool = scene.split().references
        else:  # of a video's frames every fifth: the nearest of all would show one and the same
            self.pool = scene.own_split.references if scene.own_split else scene.frame_ids[::POOL_STEP]
            self.pool = self.pool if len(self.pool) >= count else scene.frame_ids
        self.count = count
        self.cameras = scene.cameras(self.pool)
        self._centres = self.cameras.centres()

    def choose(self, camera: Cameras, current: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Choose the references for one camera, in the order of their frames: near ones that show much of the same.

        Those in use are kept where others are hardly better.
        """
        distance = (self._centres - camera.centres()).norm(dim=-1) + 0.1
        cost = distance / (self.overlap(camera) + 0.02)
        cost *= torch.tensor([LOYALTY if frame in current else 1.0 for frame in self.pool])
        chosen = torch.argsort(cost, stable=True)[: self.count]
        return tuple(self.pool[i] for i in sorted(chosen.tolist()))

    def overlap(self, camera: Cameras) -> torch.Tensor:
        """Return the share of what one camera looks at that each frame of the pool shows, (N,)."""
        height, width = camera.size
        grid = pixel_grid(*GRID) * torch.tensor([(width - 1) / (GRID[1] - 1), (height - 1) / (GRID[0] - 1)])
        centres, directions = pixel_rays(grid[None], camera.poses, camera.Ks)
        points = torch.cat([centres + depth * directions[0] for depth in DEPTHS])
        seen = project(points, self.cameras)
        return (seen.valid & (seen.depth > 0)).float().mean(-1)


def mixes(references: References, cameras: Cameras) -> list[Mix]:
    """Return what to render each camera of a path from: a choice every FADE frames, and in between two, fading."""
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
