"""A made-up confocal stack of kidney tubules, with its truth.

In the spirit of the volumes of Çiçek et al. 2016 ("3D U-Net: Learning Dense Volumetric Segmentation from Sparse
Annotation", Xenopus kidney, 0.88 x 0.88 x 1.76 µm): bent tubes with a bright wall around a dark lumen, crowded in
an organ with dim tissue between them, and light that is lost and spread with depth.

1. Centre lines grow one after the other, each step towards the side where the others are farthest.
2. A voxel belongs to the tube whose centre line is nearest in units of its radius; that ratio says lumen, wall or
   outside.
3. Brightness: wall with cells and a brighter rim, tissue with texture; then loss and blur with depth, and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from napari_unet3d.engine.axes import VoxelSize
from napari_unet3d.engine.volume import NOT_ANNOTATED

CLASS_NAMES: Final = {1: "background", 2: "tubule wall", 3: "lumen"}
"""Label ids of painted and true labels."""

VOXEL_SIZE: Final = VoxelSize(1.76, 0.88, 0.88, "um")

PAINTED_PLANES: Final = ((0, 0.3), (0, 0.7), (1, 0.4), (2, 0.6))
"""Axis (0 = Z, 1 = Y, 2 = X) and place along it, 0..1."""

_RADIUS_UM: Final = (9.0, 14.0)
_LUMEN: Final = 0.45  # of the radius
_STEP_UM: Final = 2.0
_LONGEST: Final = 160  # steps
_TURNS: Final = 6  # directions tried at each step
_APART: Final = 1.05  # least distance of two centre lines, in sums of their radii
_SHORTEST: Final = 12  # steps
_TUBES: Final = 80  # started; some find no room


@dataclass(frozen=True, eq=False)
class TubuleVolume:
    """The stack.

    Parameters
    ----------
    image
        Z Y X, uint8.
    truth
        Z Y X, uint8, ids of `CLASS_NAMES`.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]

    def painted(self) -> NDArray[np.uint8]:
        """Sparse labels, Z Y X uint8: the truth on `PAINTED_PLANES`, 0 = not annotated elsewhere."""
        labels = np.full_like(self.truth, NOT_ANNOTATED)
        for axis, place in PAINTED_PLANES:
            plane = (slice(None),) * axis + (round(place * (self.truth.shape[axis] - 1)),)
            labels[plane] = self.truth[plane]
        return labels


def make_tubules(shape: tuple[int, int, int] = (64, 256, 256), random_state: int = 0) -> TubuleVolume:
    """Generate a stack; the same for the same arguments.

    Parameters
    ----------
    shape
        Z Y X, of voxels of `VOXEL_SIZE`; at least 8 x 32 x 32 to hold a tube.
    random_state
        Another number gives another stack.
    """
    random = np.random.default_rng(random_state)
    ratio = _ratio(shape, _grow(np.array(shape) * VOXEL_SIZE.zyx, random))
    organ = _organ(shape, random)
    truth = np.ones(shape, np.uint8)
    truth[ratio < 1] = 2
    truth[ratio < _LUMEN] = 3
    truth[~organ] = 1
    return TubuleVolume(_imaged(truth, ratio, organ, random), truth)


class _Tubes:
    """Centre lines, points x (Z, Y, X) in µm, and their radii."""

    def __init__(self) -> None:
        self.lines: list[tuple[NDArray[np.float64], float]] = []
        self._tree: KDTree | None = None
        self._radii = np.zeros(0)

    def add(self, line: NDArray[np.float64], radius: float) -> None:
        self.lines.append((line, radius))
        self._radii = np.concatenate([np.full(len(points), width) for points, width in self.lines])
        self._tree = KDTree(np.concatenate([points for points, _ in self.lines]))

    def room(self, points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        """Distance of points to the centre lines, in units of the least one for a tube of `radius`."""
        if self._tree is None:
            return np.full(len(points), 2.0)
        distances, indices = self._tree.query(points, k=min(4, len(self._radii)))
        least = _APART * (radius + self._radii[indices])
        return np.asarray(np.reshape(distances / least, (len(points), -1)).min(axis=1))


def _grow(extent: NDArray[np.float64], random: np.random.Generator) -> _Tubes:
    tubes = _Tubes()
    margin = _RADIUS_UM[1]
    for _ in range(_TUBES):
        radius = float(random.uniform(*_RADIUS_UM))
        starts = random.uniform(0, extent, size=(200, 3))
        free = tubes.room(starts, radius)
        if free.max() < 1:
            continue
        # the narrowest place that is wide enough: tubes lie side by side
        start = starts[np.argmin(np.where(free < 1, np.inf, free))]
        heading = random.normal(size=3)
        heading[0] *= 0.6  # tubes run rather in the plane
        heading /= np.linalg.norm(heading)
        halves = [_walk(start, way * heading, radius, extent + margin, tubes, random) for way in (-1, 1)]
        line = np.concatenate([halves[0][::-1], start[np.newaxis], halves[1]])
        if len(line) >= _SHORTEST:
            tubes.add(line, radius)
    return tubes


def _walk(
    point: NDArray[np.float64],
    heading: NDArray[np.float64],
    radius: float,
    extent: NDArray[np.float64],
    tubes: _Tubes,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Points after `point`, until there is no way on, a loop closes or the volume ends."""
    line = [point]
    bend = random.normal(size=3)
    for step in range(_LONGEST):
        bend = 0.9 * bend + random.normal(size=3) * 0.4
        headings = heading + 0.12 * bend + 0.25 * random.normal(size=(_TURNS, 3))
        headings /= np.linalg.norm(headings, axis=1, keepdims=True)
        ahead = line[-1] + _STEP_UM * headings
        room = np.minimum(tubes.room(ahead, radius), 1.6)
        own = np.array(line[: max(0, step - int(np.pi * radius / _STEP_UM))])
        if len(own):
            gaps = np.linalg.norm(ahead[:, np.newaxis] - own, axis=2).min(axis=1)
            room = np.minimum(room, gaps / (2 * _APART * radius))
        best = int(np.argmax(room + 0.5 * (headings @ heading)))
        if room[best] < 1 or (ahead[best] < -radius).any() or (ahead[best] > extent).any():
            break
        heading = headings[best]
        line.append(ahead[best])
    return np.array(line[1:]).reshape(-1, 3)


def _ratio(shape: tuple[int, int, int], tubes: _Tubes) -> NDArray[np.float32]:
    """Distance to the nearest centre line in units of its radius, at most 2, at each voxel."""
    ratio = np.full(shape, 2, np.float32)
    size = np.array(VOXEL_SIZE.zyx)
    for line, radius in tubes.lines:
        for point in line:
            low = np.maximum(np.floor((point - 1.5 * radius) / size).astype(int), 0)
            high = np.minimum(np.ceil((point + 1.5 * radius) / size).astype(int) + 1, shape)
            if (low >= high).any():
                continue
            z, y, x = (
                ((np.arange(a, b) + 0.5) * edge - centre) ** 2
                for a, b, edge, centre in zip(low, high, size, point, strict=True)
            )
            box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            squared = (z[:, np.newaxis, np.newaxis] + y[:, np.newaxis] + x).astype(np.float32)
            np.minimum(ratio[box], np.sqrt(squared) / np.float32(radius), out=ratio[box])
    return ratio


def _organ(shape: tuple[int, int, int], random: np.random.Generator) -> NDArray[np.bool_]:
    """Where there is tissue: an ellipsoid with an uneven surface that leaves the corners empty."""
    z, y, x = np.ogrid[tuple(slice(-1, 1, length * 1j) for length in shape)]
    uneven = _texture(shape, 20.0, random)
    return np.asarray((z * 0.45) ** 2 + (y * 0.9) ** 2 + (x * 0.8) ** 2 < 0.95 + 0.12 * uneven)


def _imaged(
    truth: NDArray[np.uint8], ratio: NDArray[np.float32], organ: NDArray[np.bool_], random: np.random.Generator
) -> NDArray[np.uint8]:
    """The stack as a microscope would show it."""
    shape = truth.shape
    cells = _texture(shape, 2.5, random)
    light = np.where(organ, 26 + 9 * cells, 5).astype(np.float32)  # tissue between the tubes
    rims = np.exp(-(((ratio - 0.93) / 0.07) ** 2)) + 0.7 * np.exp(-(((ratio - _LUMEN) / 0.07) ** 2))
    wall = 78 + 20 * cells + 75 * rims
    light = np.where(truth == 2, wall, light)
    light[truth == 3] = 13
    light *= 1 + 0.25 * _texture(shape, 25.0, random)  # the stain is uneven
    light = ndimage.gaussian_filter1d(light, 0.8, axis=0)
    for z in range(shape[0]):
        depth = z / max(1, shape[0] - 1)
        light[z] = ndimage.gaussian_filter(light[z], 0.6 + 1.3 * depth) * np.exp(-0.7 * depth)
    photons = random.poisson(np.maximum(light, 0) * 0.9) / 0.9
    noisy = photons + random.normal(4, 2.5, shape)
    image: NDArray[np.uint8] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return image


def _texture(shape: tuple[int, ...], length_um: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of mean 0 and variance 1."""
    sigma = length_um / np.array(VOXEL_SIZE.zyx)
    # coarse noise is made small and enlarged: the same look, in a fraction of the time
    factors = np.maximum(1, np.floor(sigma))
    small = [max(2, int(np.ceil(n / f)) + 1) for n, f in zip(shape, factors, strict=True)]
    noise = ndimage.gaussian_filter(random.normal(size=small).astype(np.float32), sigma / factors, mode="wrap")
    noise = ndimage.zoom(noise, [n / s for n, s in zip(shape, small, strict=True)], order=1)
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)
