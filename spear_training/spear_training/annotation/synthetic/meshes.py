"""Triangle meshes that objects are put together from: boxes, surfaces of revolution, tubes.

What is drawn is exactly these triangles, so the boxes taken from their corners are exact too.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_bringup.sim.table_top import revolve

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
    """A closed outline turned about the z axis; the texture goes around once.

    Args:
        profile_m: (N, 2) radius and height as `revolve` takes them: from the axis at the
            bottom along the outside back to the axis.
        segments: corners of the circle.
    """
    return _painted_around(*revolve(_with_sharp_edges(np.asarray(profile_m, float)), segments))


def ring(outline_m: ArrayLike, segments: int = SEGMENTS) -> Surface:
    """A closed outline that does not touch the z axis, turned about it.

    Args:
        outline_m: (N, 2) radius and height, seen so that the outside is on the right hand; its
            end is joined to its beginning.
        segments: corners of the circle.
    """
    outline = np.asarray(outline_m, float)
    loop = np.array([[0, 0], *outline, outline[0], [0, 0]])
    vertices, triangles = revolve(_with_sharp_edges(loop), segments)
    poles = len(vertices) - 2
    return _painted_around(vertices[:poles], triangles[(triangles < poles).all(axis=1)])


def _painted_around(vertices: NDArray, triangles: NDArray) -> Surface:
    """Texture coordinates of something turned about the z axis."""
    triangles = triangles[_has_area(vertices, triangles)]
    corners = vertices[triangles]
    around = np.arctan2(corners[..., 1], corners[..., 0]) / (2 * np.pi) % 1.0
    around = np.where(around.max(axis=1, keepdims=True) - around > 0.5, around + 1.0, around)
    radius = np.linalg.norm(corners[..., :2], axis=-1)
    # Height plus radius grows along walls and along flat tops alike.
    along = (corners[..., 2] + radius) / (2 * np.pi * radius.max())
    return Surface(vertices, triangles, np.stack([around, along], axis=-1))


def ball(radius_m: float) -> Surface:
    """A ball about the origin."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 21)
    profile = radius_m * np.column_stack([np.cos(angles), np.sin(angles)])
    profile[[0, -1], 0] = 0.0
    return round_body(profile)


def cylinder(radius_m: float, low_m: float, high_m: float, segments: int = SEGMENTS) -> Surface:
    """An upright cylinder between two heights."""
    outline = [[0, low_m], [radius_m, low_m], [radius_m, high_m], [0, high_m]]
    return round_body(outline, segments)


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
    count = len(path)
    # The ends have circles of their own, so that their edges are sharp.
    vertices = np.concatenate([rings.reshape(-1, 3), rings[0], rings[-1], path[[0, -1]]])
    here = np.arange(segments)
    there = np.roll(here, -1)
    triangles = []
    for ring in range(count - 1):
        a, b = ring * segments + here, ring * segments + there
        c, d = a + segments, b + segments
        triangles += [np.stack([a, b, d], axis=1), np.stack([a, d, c], axis=1)]
    first, last, ends = count * segments, (count + 1) * segments, (count + 2) * segments
    triangles.append(np.stack([first + there, first + here, np.full(segments, ends)], axis=1))
    triangles.append(np.stack([last + here, last + there, np.full(segments, ends + 1)], axis=1))
    triangles = np.concatenate(triangles)
    around = np.concatenate([np.tile(here / segments, count + 2), [0.5, 0.5]])
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    lengths /= 2 * np.pi * radii.max()
    along = np.concatenate([np.repeat(lengths, segments), np.repeat(lengths[[0, -1]], segments)])
    along = np.concatenate([along, lengths[[0, -1]]])
    uv = np.stack([around, along], axis=-1)[triangles]
    wraps = uv[..., 0].max(axis=1, keepdims=True) - uv[..., 0] > 0.6
    uv[..., 0] += wraps
    keep = _has_area(vertices, triangles)
    return Surface(vertices, triangles[keep], uv[keep])


def arc(
    centre_m: ArrayLike,
    across_m: ArrayLike,
    up_m: ArrayLike,
    begin_rad: float,
    end_rad: float,
    points: int = 13,
) -> NDArray[np.float64]:
    """Points (N, 3) on a part of an ellipse with the half axes `across_m` and `up_m`."""
    angles = np.linspace(begin_rad, end_rad, points)[:, None]
    return np.asarray(centre_m) + np.cos(angles) * across_m + np.sin(angles) * np.asarray(up_m)


def _with_sharp_edges(profile: NDArray) -> NDArray:
    """The outline with each sharp corner twice, so that turning gives it two rings."""
    steps = np.diff(profile, axis=0)
    headings = np.arctan2(steps[:, 1], steps[:, 0])
    bends = np.abs((np.diff(headings) + np.pi) % (2 * np.pi) - np.pi)
    copies = np.ones(len(profile), int)
    copies[1:-1] += bends > CREASE_RAD
    return np.repeat(profile, copies, axis=0)


def _has_area(vertices: NDArray, triangles: NDArray) -> NDArray:
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12


def _circles(path: NDArray, segments: int) -> NDArray:
    """Unit circles (N, segments, 3) square to the path, each turned as little as can be."""
    ahead = np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead[0], np.eye(3)[np.abs(ahead[0]).argmin()])
    angles = 2 * np.pi * np.arange(segments) / segments
    circles = []
    for forward in ahead:
        side = side - forward * (side @ forward)
        side /= np.linalg.norm(side)
        up = np.cross(forward, side)
        circles.append(np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * up)
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
            if (ours.min(axis=0) > theirs.max(axis=0) + gap_m).any():
                return True
            if (theirs.min(axis=0) > ours.max(axis=0) + gap_m).any():
                return True
        return False

    def inside(self, half_m: tuple[float, float]) -> bool:
        """Whether it lies within the rectangle of these half lengths about the origin."""
        return bool((np.abs(self.corners_m) <= np.asarray(half_m)).all())


def turn(yaw_rad: float) -> NDArray[np.float64]:
    """Turn by an angle in the plane (2, 2)."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin], [sin, cos]])
