"""Procedural textures at true scale. Each function takes a random generator and returns a Surface that repeats.

Noise is generated in the Fourier domain, so it has no seams. Colours are sRGB in [0, 1].
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from dataset.synthetic.meshes import Surface

SIZE = 384
WOOD_TONES = (
    (0.62, 0.44, 0.27),
    (0.47, 0.31, 0.19),
    (0.74, 0.58, 0.40),
    (0.83, 0.72, 0.56),
    (0.33, 0.22, 0.15),
    (0.56, 0.36, 0.22),
    (0.70, 0.64, 0.56),
)
PAINTS = (
    (0.93, 0.92, 0.88),
    (0.90, 0.86, 0.77),
    (0.86, 0.87, 0.86),
    (0.80, 0.83, 0.80),
    (0.84, 0.80, 0.74),
    (0.74, 0.79, 0.83),
    (0.88, 0.80, 0.70),
    (0.78, 0.80, 0.70),
    (0.70, 0.71, 0.72),
    (0.82, 0.72, 0.66),
    (0.62, 0.70, 0.72),
)


def plain(color, glow: float = 0.0, gloss: float = 0.0) -> Surface:
    """Return a surface of a single colour."""
    texture = np.tile(np.asarray(np.clip(color, 0, 1)) * 255, (4, 4, 1)).astype(np.uint8)
    return Surface(texture, glow=glow, gloss=gloss)


def paint(rng, color=None) -> Surface:
    """Return painted plaster: nearly uniform, slightly cloudy, with the grain of a roller."""
    color = _vary(rng, PAINTS[rng.integers(len(PAINTS))] if color is None else color, 0.04)
    shade = 1 + 0.015 * _noise(rng, 1.7) + 0.012 * _noise(rng, 0.3)
    return _surface(color * shade[..., None], (1.6, 1.6))


def wallpaper(rng) -> Surface:
    """Return wallpaper with stripes, a motif in rows, or diamonds."""
    ground = _vary(rng, PAINTS[rng.integers(len(PAINTS))], 0.06)
    ink = np.clip(ground * rng.uniform(0.78, 0.93) + rng.normal(0, 0.03, 3), 0, 1)
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    kind = rng.integers(3)
    if kind == 0:
        count = rng.integers(3, 8)
        amount = (np.sin(2 * np.pi * count * u) > rng.uniform(-0.4, 0.6)).astype(float)
    elif kind == 1:
        amount = _motif(rng, u, v, int(rng.integers(2, 4)))
    else:
        count = rng.integers(2, 4)
        amount = (np.abs(np.sin(np.pi * count * (u + v))) < 0.12) | (np.abs(np.sin(np.pi * count * (u - v))) < 0.12)
    amount = cv2.GaussianBlur(amount.astype(np.float32), (0, 0), 0.8)
    color = ground + (ink - ground) * amount[..., None]
    return _surface(color * (1 + 0.01 * _noise(rng, 0.2))[..., None], (rng.uniform(0.4, 0.7),) * 2)


def wood(rng, color=None, upright: bool = False) -> Surface:
    """Return a wooden board with its grain along u, or along v if `upright`."""
    tone = _vary(rng, WOOD_TONES[rng.integers(len(WOOD_TONES))] if color is None else color, 0.06)
    image = tone * _grain(rng, 0.10)[..., None]
    return _surface(image.swapaxes(0, 1), (0.5, 1.3), 0.03) if upright else _surface(image, (1.3, 0.5), 0.03)


def parquet(rng) -> Surface:
    """Return floor boards along u, each with its own tone, with dark joints."""
    tone = _vary(rng, WOOD_TONES[rng.integers(len(WOOD_TONES))], 0.05)
    rows, columns = int(rng.integers(8, 13)), 2
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    row = np.floor(v * rows).astype(int) % rows
    along = (u * columns + rng.random(rows)[row]) % columns
    board = np.floor(along).astype(int) % columns
    tones = 1 + rng.normal(0, 0.09, (rows, columns))
    grain = np.stack([np.roll(_grain(rng, 0.09), int(rng.integers(SIZE)), 1) for _ in range(2)])
    shade = tones[row, board] * np.where((row + board) % 2, grain[0], grain[1])
    joint = ((v * rows) % 1 < 0.035) | (along % 1 < 0.006)
    shade = np.where(joint, shade * 0.55, shade)
    return _surface(
        tone * shade[..., None], (rows * rng.uniform(0.09, 0.14) * 1.1, rows * 0.11), rng.choice([0, 0.03, 0.05])
    )


def tiles(rng, edge: float | None = None) -> Surface:
    """Return square tiles with grout, slightly different from each other, some marbled. edge: of a tile in metres."""
    edge = rng.uniform(0.2, 0.45) if edge is None else edge
    color = _vary(rng, PAINTS[rng.integers(len(PAINTS))], 0.05)
    count = 4
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE * count
    x, y = np.floor(u).astype(int), np.floor(v).astype(int)
    shade = (1 + rng.normal(0, 0.02, (count, count)))[y, x]
    vein = 1 - rng.choice([0, 0.05, 0.12]) * np.exp(-np.abs(_noise(rng, 1.6)) * 6)
    shade = shade * (1 + 0.02 * _noise(rng, 1.2)) * vein
    color = color * shade[..., None]
    if rng.random() < 0.25:
        color = np.where(((x + y) % 2)[..., None], color * rng.uniform(0.45, 0.8), color)
    joint = 0.004 / edge
    grout = (u % 1 < joint * 2) | (v % 1 < joint * 2)
    return _surface(np.where(grout[..., None], np.full(3, rng.uniform(0.45, 0.75)), color), (count * edge,) * 2, 0.05)


def carpet(rng) -> Surface:
    """Return a carpet: speckled and slightly cloudy."""
    muted = rng.uniform(0.3, 0.7, 3) * 0.5 + 0.25
    color = _vary(rng, muted if rng.random() < 0.4 else cloth_color(rng), 0.05)
    shade = 1 + 0.09 * _noise(rng, 0.15) + 0.03 * _noise(rng, 1.4)
    return _surface(color * shade[..., None], (0.9, 0.9))


def fabric(rng, color=None) -> Surface:
    """Return woven cloth of the given colour, or of a random colour and perhaps striped, chequered or printed."""
    kind = 1.0 if color is not None else rng.random()
    color = _vary(rng, cloth_color(rng) if color is None else color, 0.05)
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    weave = 1 + 0.05 * np.sin(2 * np.pi * 96 * u) * np.sin(2 * np.pi * 96 * v) + 0.05 * _noise(rng, 0.4)
    image = color * weave[..., None]
    second = _vary(rng, cloth_color(rng), 0.05)
    if kind < 0.15:
        band = (np.sin(2 * np.pi * rng.integers(3, 9) * u) > 0.2)[..., None]
    elif kind < 0.28:
        count = rng.integers(3, 7)
        band = ((np.sin(2 * np.pi * count * u) > 0).astype(float) + (np.sin(2 * np.pi * count * v) > 0))[..., None] / 2
    elif kind < 0.42:
        band = _motif(rng, u, v, int(rng.integers(2, 5)))[..., None]
    else:
        band = 0.0
    image = image * (1 - band) + second * weave[..., None] * band
    return _surface(image, (rng.uniform(0.35, 0.6),) * 2)


def stone(rng) -> Surface:
    """Return a worktop of granite or marble."""
    color = _vary(rng, np.full(3, rng.choice([0.2, 0.35, 0.6, 0.8, 0.88])), 0.04)
    speckle = np.clip(1 + rng.uniform(0.03, 0.25) * _noise(rng, 0.4), 0.3, 1.6)
    vein = 1 - rng.choice([0.0, 0.15]) * np.exp(-np.abs(_noise(rng, 1.8)) * 8)
    return _surface(color * (speckle * vein)[..., None], (0.8, 0.8), 0.05)


def brick(rng) -> Surface:
    """Return a wall of bricks, bare or painted."""
    rows, columns = 8, 3
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    row = np.floor(v * rows).astype(int)
    along = u * columns + 0.5 * (row % 2)
    tones = 1 + rng.normal(0, 0.09, (rows, columns))
    shade = tones[row, np.floor(along).astype(int) % columns] * (1 + 0.06 * _noise(rng, 0.6))
    color = _vary(rng, rng.choice([(0.58, 0.33, 0.25), (0.86, 0.85, 0.82), (0.5, 0.4, 0.34)]), 0.04)
    joint = ((v * rows) % 1 < 0.13) | (along % 1 < 0.045)
    image = np.where(joint[..., None], 0.75 * np.ones(3) * color.mean() / 0.6, color * shade[..., None])
    return _surface(image, (columns * 0.225, rows * 0.075))


def rug(rng) -> Surface:
    """Return a rug, which should cover a face exactly once: a border, a field, and a medallion or bands."""
    ground, border, third = (_vary(rng, cloth_color(rng), 0.05) for _ in range(3))
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    inner = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    image = np.where((inner < 0.1)[..., None], border, ground)
    image = np.where(((inner > 0.1) & (inner < 0.12))[..., None], third, image)
    kind = rng.integers(4)
    if kind == 0:
        pattern = _motif(rng, u, v, int(rng.integers(3, 7)))
    elif kind == 1:
        pattern = (np.sin(2 * np.pi * rng.integers(4, 10) * v) > 0.3).astype(float)
    elif kind == 2:
        ring = np.hypot(u - 0.5, v - 0.5)
        pattern = ((np.sin(ring * 40 + 3 * np.cos(np.arctan2(v - 0.5, u - 0.5) * 8)) > 0) & (ring < 0.36)).astype(float)
    else:
        pattern = np.zeros_like(u)
    pattern = (pattern * (inner > 0.14))[..., None]
    image = image * (1 - 0.8 * pattern) + third * 0.8 * pattern
    return Surface(_bytes(image * (1 + 0.07 * _noise(rng, 0.2))[..., None]))


def painting(rng) -> Surface:
    """Return a picture, which should cover a face exactly once: a landscape, or abstract blots."""
    v, u = np.mgrid[:SIZE, :SIZE] / SIZE
    if rng.random() < 0.5:
        image = _landscape(rng, v)
    else:
        image = np.ones((SIZE, SIZE, 3)) * rng.uniform(0.5, 0.95, 3)
        for _ in range(int(rng.integers(4, 9))):
            field = _noise(rng, 2.2)
            image = np.where((field > rng.uniform(0.3, 1.2))[..., None], rng.uniform(0.05, 0.95, 3), image)
    mat = rng.choice([0.0, 0.12])
    inside = (np.minimum(u, 1 - u) > mat) & (np.minimum(v, 1 - v) > mat)
    return Surface(_bytes(np.where(inside[..., None], image, 0.93)), gloss=0.03)


def outside(rng) -> Surface:
    """Return a hazy view from a window: sky and trees."""
    v = np.mgrid[:SIZE, :SIZE][0] / SIZE
    image = 0.6 * _landscape(rng, v) + 0.4
    return Surface(_bytes(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.5)))


def screen(rng) -> Surface:
    """Return a computer screen that shows windows, or is off."""
    image = np.ones((SIZE, SIZE, 3)) * rng.uniform(0.1, 0.6, 3)
    if rng.random() < 0.5:
        return plain((0.03, 0.03, 0.035), gloss=0.08)
    for _ in range(3):
        x, y = rng.integers(0, SIZE // 2, 2)
        w, h = rng.integers(SIZE // 4, SIZE // 2, 2)
        image[y : y + h, x : x + w] = rng.uniform(0.75, 1.0)
        for line in range(y + 12, y + h - 8, 12):
            image[line : line + 4, x + 8 : x + 8 + int((w - 16) * rng.uniform(0.3, 1))] = rng.uniform(0.1, 0.5, 3)
    return Surface(_bytes(image), glow=rng.uniform(0.5, 1.0), gloss=0.05)


def spines(rng) -> Surface:
    """Return the spines of a row of upright books, with a period of 0.4 m."""
    image = np.zeros((128, SIZE, 3))
    x = 0
    palette = [_vary(rng, cloth_color(rng), 0.05) for _ in range(7)]
    while x < SIZE:
        width = int(rng.integers(14, 44))
        color = palette[rng.integers(len(palette))] * rng.uniform(0.7, 1.1)
        image[:, x : x + width] = color
        for _ in range(int(rng.integers(1, 4))):
            y, height = rng.integers(5, 110), rng.integers(3, 16)
            image[y : y + height, x + 3 : x + width - 3] = np.clip(color + rng.choice([-0.3, 0.35]), 0, 1)
        image[:, x : x + 2] *= 0.35
        x += width
    return Surface(_bytes(image), period=(0.4, 1.0))


def _surface(image: np.ndarray, period, gloss: float = 0.0) -> Surface:
    return Surface(_bytes(image), (float(period[0]), float(period[1])), gloss=float(gloss))


def _bytes(image: np.ndarray) -> np.ndarray:
    """Return uint8 with row 0 at the bottom (v = 0), as in all textures of meshes."""
    return np.ascontiguousarray((image.clip(0, 1) * 255).astype(np.uint8)[::-1])


def _vary(rng, color, spread: float) -> np.ndarray:
    """Return a colour with slightly varied brightness and tint."""
    return np.clip(np.asarray(color) * rng.normal(1, spread) + rng.normal(0, spread / 5, 3), 0.02, 0.97)


def cloth_color(rng) -> np.ndarray:
    """Return a random colour, mostly muted, sometimes saturated."""
    hue, saturation, value = rng.random(), rng.beta(1.3, 3.2), rng.uniform(0.2, 0.9)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def any_color(rng) -> np.ndarray:
    """Return a random colour for painted objects, equally often dark, medium and light."""
    return cloth_color(rng) * rng.choice([0.2, 0.6, 1.0])


def _noise(rng, steepness: float, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Return periodic noise (SIZE, SIZE) of mean 0 and deviation 1, with amplitudes frequency ** -steepness."""
    white = np.fft.rfft2(rng.normal(size=(SIZE, SIZE)))
    fy = np.fft.fftfreq(SIZE)[:, None] * SIZE * stretch[0]
    fx = np.fft.rfftfreq(SIZE)[None] * SIZE * stretch[1]
    amplitude = np.maximum(np.hypot(fy, fx), 1) ** -steepness
    amplitude[0, 0] = 0
    noise = np.fft.irfft2(white * amplitude, s=(SIZE, SIZE))
    return noise / noise.std()


def _grain(rng, contrast: float) -> np.ndarray:
    """Return the brightness (SIZE, SIZE) of wood with fibres along u."""
    fibres = _noise(rng, 1.0, (1.0, 14.0))
    rings = np.sin(6 * np.cumsum(1 + 0.3 * _noise(rng, 1.5, (1.0, 8.0)), 0) / SIZE * 2 * np.pi)
    return 1 + contrast * (0.6 * fibres + 0.4 * rings * np.sin(np.linspace(0, np.pi, SIZE))[:, None])


def _motif(rng, u, v, count: int) -> np.ndarray:
    """Return a mask of flowers in rows, with every other row shifted: 0 or 1 at u, v in [0, 1]."""
    row = np.floor(v * count * 2)
    x, y = (u * count + 0.5 * (row % 2)) % 1 - 0.5, (v * count * 2) % 1 - 0.5
    radius, angle = np.hypot(x, y * 0.7), np.arctan2(y, x)
    petals = rng.integers(3, 8)
    return (radius < 0.22 * (1 + 0.45 * np.cos(petals * angle + rng.uniform(0, 6)))).astype(float)


def _landscape(rng, v) -> np.ndarray:
    """Return sky over hills and trees, row 0 at the top."""
    sky = np.array([0.55, 0.72, 0.92]) * (1 - v[..., None]) + np.array([0.95, 0.93, 0.88]) * v[..., None]
    clouds = np.clip(_noise(rng, 1.7, (2.0, 1.0)), 0, 1.5)[..., None] / 1.5
    image = sky * (1 - 0.7 * clouds) + 0.7 * clouds
    horizon = rng.uniform(0.4, 0.65)
    for layer in range(3):
        line = horizon + 0.12 * layer + 0.05 * _noise(rng, 1.6)[:1] + 0.02 * _noise(rng, 1.0)[:1]
        green = rng.uniform((0.15, 0.25, 0.1), (0.45, 0.5, 0.3)) * (1.2 - 0.2 * layer)
        image = np.where((v > line)[..., None], green * (1 + 0.25 * _noise(rng, 0.9))[..., None], image)
    return image
