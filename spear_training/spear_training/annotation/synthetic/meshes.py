"""Triangle meshes that objects are put together from: boxes, surfaces of revolution, tubes.

What is drawn is exactly these triangles, so the boxes taken from their corners are exact too.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Where a turned outline or a tube bends by more than this, its edge is sharp.
CREASE_RAD = np.radians(40.0)
SEGMENTS = 40  # corners of a circle


@dataclass(frozen=True)
class Surface:
    """A closed triangle mesh.

    Attributes:
        vertices_m: (V, 3); a sharp edge has its vertices once for each side.
        triangles: (T, 3) vertices, seen anticlockwise from outside.
        texture_uv: (T, 3, 2) place of each corner in the texture; 1 is one copy of it.
    """

    vertices_m: NDArray[np.float64]
    triangles: NDArray[np.int64]
    texture_uv: NDArray[np.float64]

    @property
    def normals(self) -> NDArray[np.float64]:
        """Outward unit normals (V, 3), smooth where triangles share a vertex."""
        corners = self.vertices_m[self.triangles]
        facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros_like(self.vertices_m)
        np.add.at(normals, self.triangles.ravel(), np.repeat(facing, 3, axis=0))
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        return np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)

    def moved(self, shift_m: ArrayLike, axes: ArrayLike | None = None) -> "Surface":
        """Turned by the rotation matrix `axes` (3, 3), then shifted by (3,)."""
        turned_m = self.vertices_m if axes is None else self.vertices_m @ np.asarray(axes).T
        return replace(self, vertices_m=turned_m + np.asarray(shift_m, float))

    def stretched(self, factors: ArrayLike) -> "Surface":
        """Scaled along x, y and z by three positive factors."""
        return replace(self, vertices_m=self.vertices_m * np.asarray(factors, float))


def box(size_m: ArrayLike, centre_m: ArrayLike = (0.0, 0.0, 0.0)) -> Surface:
    """A box with its edges along the axes; the texture lies once along the longest of them."""
    half = np.asarray(size_m, float) / 2
    vertices, uv = [], []
    for axis in range(3):
        for side in (-1.0, 1.0):
            # The two other axes, in the order that makes the face look outward.
            across, up = [(axis + 1) % 3, (axis + 2) % 3][:: int(side)]
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[[axis, across, up]] = side * half[axis], a * half[across], b * half[up]
                vertices.append(corner)
                # The texture stands upright on upright faces.
                first, second = sorted((across, up))
                uv.append((corner[[first, second]] + half[[first, second]]) / (2 * half.max()))
    quads = 4 * np.arange(6)[:, None]
    triangles = np.concatenate([quads + [0, 1, 2], quads + [0, 2, 3]])
    return Surface(np.array(vertices) + np.asarray(centre_m), triangles, np.array(uv)[triangles])


def round_body(profile_m: ArrayLike, segments: int = SEGMENTS) -> Surface:
    """An outline turned about the z axis; the texture goes around once.

    Args:
        profile_m: (N, 2) radius and height, the outside on the right hand; from the axis at the
            bottom back to the axis, or for a ring from a corner back to that corner.
        segments: corners of the circle.
    """
    profile = _with_sharp_edges(np.asarray(profile_m, float))
    angles = 2 * np.pi * np.arange(segments) / segments
    circle = np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    return _skin(profile[:, None, :1] * circle + profile[:, None, 1:] * [0, 0, 1])


def ball(radius_m: float) -> Surface:
    angles = np.linspace(-np.pi / 2, np.pi / 2, 21)
    profile = radius_m * np.column_stack([np.cos(angles), np.sin(angles)])
    profile[[0, -1], 0] = 0.0
    return round_body(profile)


def cylinder(radius_m: float, low_m: float, high_m: float) -> Surface:
    return round_body([[0, low_m], [radius_m, low_m], [radius_m, high_m], [0, high_m]])


def tube(path_m: ArrayLike, radii_m: ArrayLike, segments: int = 14) -> Surface:
    """A tube along a bent path, closed at both ends.

    Args:
        path_m: (N, 3) its middle line, no two neighbours equal.
        radii_m: one radius, or (N,).
        segments: corners of its circle.
    """
    path = np.asarray(path_m, float)
    radii = np.broadcast_to(np.asarray(radii_m, float), len(path))
    rings = path[:, None] + radii[:, None, None] * _circles(path, segments)
    # The flat ends have circles of their own, so that their edges are sharp.
    ends = [np.repeat(path[[end]], segments, axis=0) for end in (0, -1)]
    return _skin(np.stack([ends[0], rings[0], *rings, rings[-1], ends[1]]))


def _skin(rings_m: NDArray) -> Surface:
    """A surface through rings of corners (R, S, 3), each anticlockwise seen from the next."""
    count, segments, _ = rings_m.shape
    row, column = np.divmod(np.arange((count - 1) * segments), segments)
    # The two triangles between neighbours in a ring and in the next one.
    rows = (row[:, None] + [0, 0, 1, 0, 1, 1]).reshape(-1, 3)
    columns = (column[:, None] + [0, 1, 1, 0, 1, 0]).reshape(-1, 3)
    steps_m = np.linalg.norm(np.diff(rings_m[:, 0], axis=0), axis=1)
    around_m = np.linalg.norm(rings_m - np.roll(rings_m, 1, axis=1), axis=2).sum(axis=1).max()
    along = np.concatenate([[0], np.cumsum(steps_m)]) / around_m
    uv = np.stack([columns / segments, along[rows]], axis=-1)
    vertices, triangles = rings_m.reshape(-1, 3), rows * segments + columns % segments
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    has_area = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12
    used, triangles = np.unique(triangles[has_area], return_inverse=True)
    return Surface(vertices[used], triangles.reshape(-1, 3), uv[has_area])


def _with_sharp_edges(profile: NDArray) -> NDArray:
    """The outline with each sharp corner twice, so that turning gives it two rings."""
    steps = np.diff(profile, axis=0)
    headings = np.arctan2(steps[:, 1], steps[:, 0])
    bends = np.abs((np.diff(headings) + np.pi) % (2 * np.pi) - np.pi)
    copies = np.ones(len(profile), int)
    copies[1:-1] += bends > CREASE_RAD
    return np.repeat(profile, copies, axis=0)


def _circles(path: NDArray, segments: int) -> NDArray:
    """Unit circles (N, segments, 3) square to the path, each turned as little as can be."""
    ahead = np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead[0], np.eye(3)[np.abs(ahead[0]).argmin()])
    angles = 2 * np.pi * np.arange(segments)[:, None] / segments
    circles = []
    for forward in ahead:
        side = side - forward * (side @ forward)
        side /= np.linalg.norm(side)
        circles.append(np.cos(angles) * side + np.sin(angles) * np.cross(forward, side))
    return np.array(circles)


# Footprints: rectangles that objects take up on a level ----------------------------------------


@dataclass(frozen=True)
class Footprint:
    """The rectangle that something takes up on the ground.

    Attributes:
        centre_m: (2,).
        half_m: (2,) half lengths along its own two axes.
        yaw_rad: of its first axis.
    """

    centre_m: NDArray[np.float64]
    half_m: NDArray[np.float64]
    yaw_rad: float

    @property
    def corners_m(self) -> NDArray[np.float64]:
        """(4, 2)."""
        signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
        return self.centre_m + (signs * self.half_m) @ turn(self.yaw_rad).T

    def apart_from(self, other: "Footprint", gap_m: float) -> bool:
        """Whether a line with `gap_m` of room separates the two rectangles."""
        for yaw in (self.yaw_rad, other.yaw_rad):
            ours, theirs = self.corners_m @ turn(yaw), other.corners_m @ turn(yaw)
            apart_m = np.maximum(ours.min(axis=0) - theirs.max(axis=0),
                                 theirs.min(axis=0) - ours.max(axis=0))  # fmt: skip
            if (apart_m > gap_m).any():
                return True
        return False


def turn(yaw_rad: float) -> NDArray[np.float64]:
    """Turn by an angle in the plane (2, 2)."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin], [sin, cos]])
