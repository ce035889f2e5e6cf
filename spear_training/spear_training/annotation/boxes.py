"""The stage `boxes`: from the cleaned cloud of an object to what is stored of it.

The box is of least volume among those that lie flush with the hull of the cloud; its corners are in
an order that follows the camera's axes.
"""

from dataclasses import asdict, dataclass, replace
from itertools import permutations, product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.records import AnnotatedObject, Dropped, encode_mask
from spear_training.annotation.stages import JobError, ObjectError, StageError


@dataclass(frozen=True)
class FitBoxes:
    """Fits the smallest oriented box to each cloud and makes the object's record.

    Attributes:
        sample_points: how many points of its cloud each object keeps.
        largest_m: objects with a longer side are dropped where lengths are metres: a size that
            only a wrong unit or a wrong camera makes.

    Raises:
        JobError: not at least one point, or no size.
    """

    sample_points: int = 32
    largest_m: float = 10.0
    name: ClassVar[str] = "boxes"
    parallel: ClassVar[int] = 1

    def __post_init__(self):
        if self.sample_points < 1:
            raise JobError(f"boxes: sample_points is {self.sample_points}; keep at least 1")
        if not self.largest_m > 0:
            raise JobError(f"boxes: largest_m is {self.largest_m}; it must be above 0")

    @property
    def settings(self) -> dict:
        """What the boxes depend on."""
        return asdict(self)

    def __call__(self, frame: Frame) -> Frame:
        """Add the annotated objects; an object whose cloud has no box is dropped with the reason.

        Raises:
            StageError: there are no clouds yet.
        """
        kept, lost = [], []
        for candidate in frame.candidates:
            if candidate.cloud_m is None or candidate.mask is None:
                raise StageError("there are no clouds: put the stage clouds before boxes")
            try:
                metric = frame.points is None or frame.points.metric
                annotated = self._annotated(candidate, self.largest_m if metric else np.inf)
                kept.append(replace(candidate, annotated=annotated))
            except ObjectError as error:
                lost.append(Dropped(candidate.label, str(error)))
        return frame.keep(kept, lost)

    def _annotated(self, candidate: Candidate, largest: float) -> AnnotatedObject:
        box = minimal_box(candidate.cloud_m)
        if (side := box.extents_m.max()) > largest:
            raise ObjectError(
                f"it is {side:.3g} m long, over boxes.largest_m ({largest:g}): check units_per_m "
                "and the intrinsics"
            )
        vertices = ordered_vertices(box)
        return AnnotatedObject(
            label=candidate.label,
            box_xyxy_px=candidate.box_xyxy_px,
            mask=encode_mask(candidate.mask),
            score=candidate.score,
            vertices_m=_triples(vertices),
            **cloud_facts(candidate.cloud_m, self.sample_points),
        )


def cloud_facts(cloud_m: NDArray[np.float64], sample_points: int = 32) -> dict:
    """What a record keeps of a cloud: fields of `AnnotatedObject` by their names.

    Args:
        cloud_m: (P, 3), finite, at least one point.
        sample_points: how many points to keep, drawn evenly from the first to the last; all, if
            the cloud has no more.

    Returns:
        cloud_size, closest_m, furthest_m (by their distance from the camera) and sample_m.
    """
    distance_m = np.linalg.norm(cloud_m, axis=1)
    drawn = np.linspace(0, len(cloud_m) - 1, min(sample_points, len(cloud_m)))
    closest, furthest = cloud_m[[distance_m.argmin(), distance_m.argmax()]]
    return {
        "cloud_size": len(cloud_m),
        "closest_m": tuple(closest.tolist()),
        "furthest_m": tuple(furthest.tolist()),
        "sample_m": _triples(cloud_m[drawn.round().astype(int)]),
    }


def _triples(points: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    return tuple(tuple(point) for point in points.tolist())


# The smallest box around a cloud, and the clouds that have none -----------------------------------

MIN_POINTS = 4
# Of the cloud's length. Thinner is flat (a sheet of paper, a picture on the wall) and gets a box
# of this thickness; narrower is a line and gets none.
FLAT = 1e-3
_SAME_PLACE = 1e-12  # of the points' coordinates: what rounding leaves of a length of zero


@dataclass(frozen=True)
class OrientedBox:
    """A box in the camera frame.

    Attributes:
        centre_m: (3,).
        axes: (3, 3) whose columns are unit vectors along the edges, right-handed.
        extents_m: (3,) lengths of the edges along these axes, all positive.
    """

    centre_m: NDArray[np.float64]
    axes: NDArray[np.float64]
    extents_m: NDArray[np.float64]


def minimal_box(cloud_m: NDArray[np.float64]) -> OrientedBox:
    """Fit a box of least volume; points that are not finite do not count.

    A box along the principal axes would be simpler and wrong: a cube's is up to four times too
    large.

    Args:
        cloud_m: (P, 3).

    Raises:
        ObjectError: too few points, or they lie in one place or on a line.
    """
    cloud = np.asarray(cloud_m, np.float64)
    cloud = cloud[np.isfinite(cloud).all(axis=1)]
    if len(cloud) < MIN_POINTS:
        raise ObjectError(f"it has {len(cloud)} points, fewer than a box needs ({MIN_POINTS})")
    middle = cloud.mean(axis=0)
    try:
        principal = np.linalg.svd(cloud - middle, full_matrices=False)[2].T
    except np.linalg.LinAlgError as error:
        raise ObjectError(f"its points cannot be measured: {error}") from None
    points = (cloud - middle) @ principal
    # The spread along the principal axes tells lines and planes; it is not the box.
    spread = np.ptp(points, axis=0)
    length, width = spread.max(), np.median(spread)
    if not (np.isfinite(length) and length > _SAME_PLACE * np.abs(cloud).max()):
        raise ObjectError("all of its points lie in one place")
    if width <= FLAT * length:
        raise ObjectError("its points lie on a line")
    flat = spread[2] <= FLAT * length
    try:
        turn = _flat_axes(points) if flat else best_axes(points)
    except QhullError:
        raise ObjectError("its points lie too nearly on a line or in a plane for a box") from None
    seen = points @ turn
    low, high = seen.min(axis=0), seen.max(axis=0)
    centre = middle + principal @ turn @ ((low + high) / 2)
    axes = principal @ turn
    if np.linalg.det(axes) < 0:
        axes = axes * np.array([1.0, 1.0, -1.0])
    return OrientedBox(centre, axes, np.maximum(high - low, FLAT * length))


def _flat_axes(points):
    """Axes (3, 3), columns, of the rectangle of least area around points in the plane z = 0."""
    across = points[:, :2]
    corners = across[ConvexHull(across).vertices]
    sides = np.roll(corners, -1, axis=0) - corners
    x, y = (sides / np.linalg.norm(sides, axis=1, keepdims=True)).T
    areas = np.ptp(np.outer(corners[:, 0], x) + np.outer(corners[:, 1], y), axis=0) * np.ptp(
        np.outer(corners[:, 1], x) - np.outer(corners[:, 0], y), axis=0
    )
    x, y = x[np.argmin(areas)], y[np.argmin(areas)]
    return np.array([[x, -y, 0.0], [y, x, 0.0], [0.0, 0.0, 1.0]])


# Its orientation, where the cloud shows only the near side ----------------------------------------

OUTERMOST = 256
# Larger than the smallest by this share counts as equal; and so many of these are compared.
EQUAL_VOLUME = 0.1
MOST_COMPARED = 400
POINTS_COMPARED = 400


def best_axes(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes (3, 3), columns, right-handed, of a smallest box around points (P, 3).

    As for all such searches, a box is tried that lies flush with each face of the convex hull and
    with an edge of that face. Two things are peculiar to clouds from pictures:

    - A ball's cloud of 10,000 points has a hull of 20,000 faces, so the faces tried are those of
      the hull of a few hundred points, the outermost ones in directions all around. The size of
      the box still comes from all points.
    - A camera that sees two faces of a carton sees half of it, and the box flush with the cut from
      edge to edge is exactly as large as the carton: noise alone would choose. So among the boxes
      that are hardly larger than the smallest, the one is taken on whose faces the points lie.

    Args:
        points_m: around the origin, along their principal axes; neither on a line nor in a plane.

    Raises:
        scipy.spatial.QhullError: they are too nearly in a plane for a convex hull.
    """
    hull = outermost_points(points_m)
    frames = _flush_frames(hull)
    volumes = np.prod([np.ptp(hull @ frames[:, i].T, axis=0) for i in range(3)], axis=0)
    order = np.argsort(volumes, kind="stable")
    equal = order[volumes[order] <= (1 + EQUAL_VOLUME) * volumes[order[0]]][:MOST_COMPARED]
    some = np.linspace(0, len(points_m) - 1, min(POINTS_COMPARED, len(points_m))).astype(int)
    off_faces = _mean_distance_from_faces(points_m[some], hull, frames[equal])
    return frames[equal[np.argmin(off_faces)]].T


def outermost_points(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of a convex hull of the outermost points in `OUTERMOST` directions.

    The directions are evenly spread for a cloud that is stretched to equal length along its axes,
    so that a thin one has points at its rim and on both sides.
    """
    round_m = points_m / np.ptp(points_m, axis=0)
    chosen = np.unique(np.argmax(_DIRECTIONS @ round_m.T, axis=1))
    found = points_m[chosen] if len(chosen) > 3 else points_m
    return found[ConvexHull(found).vertices]


def _directions(count):
    """Unit vectors (count, 3) on a spiral around the sphere, the golden angle apart."""
    step = np.arange(count) + 0.5
    height = 1 - 2 * step / count
    turn = np.pi * (1 + 5**0.5) * step
    radius = np.sqrt(1 - height**2)
    return np.column_stack([radius * np.cos(turn), radius * np.sin(turn), height])


_DIRECTIONS = _directions(OUTERMOST)


def _flush_frames(hull):
    """Frames (N, 3, 3) whose rows are an edge of a face, the face's normal, and their normal."""
    faces = ConvexHull(hull)
    corners = hull[faces.simplices]
    edges = (corners[:, [1, 2, 0]] - corners).reshape(-1, 3)
    normals = np.repeat(faces.equations[:, :3], 3, axis=0)
    first = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    second = np.cross(normals, first)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def _mean_distance_from_faces(points, hull, frames):
    """Mean distance (N,) of points from the nearest face of the box around a hull in each frame."""
    turns = frames.reshape(-1, 3).T
    sides, seen = hull @ turns, points @ turns
    nearest = np.minimum(seen - sides.min(axis=0), sides.max(axis=0) - seen)
    return nearest.reshape(len(points), len(frames), 3).min(axis=2).mean(axis=0)


# The order of its corners: the same for the same box, whatever its axes are called ----------------

# Corner 4*sx + 2*sy + sz: s is 0 on the negative side of that axis and 1 on the positive one.
CORNER_SIDES = np.array(list(product((-1.0, 1.0), repeat=3)))
_NAMINGS = [
    (list(order), np.array(signs))
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


def ordered_vertices(box: OrientedBox) -> NDArray[np.float64]:
    """Corners (8, 3) of a box in the camera frame, in the canonical order.

    A library may list the axes of a box in any order and with either sign. Here each axis is given
    to the camera axis that it fits best, and points along it: of the 48 ways to name them, the one
    with the largest sum of the three cosines. Corner 0 is then the left, upper, near one, corner 7
    the right, lower, far one.

    No such rule can be continuous: turning a cube by 90 degrees brings it onto itself, so somewhere
    on the way the names must jump. Here they jump where two axes of the box fit two of the camera
    equally well, which for a turn about a camera axis is at 45 degrees.
    """
    order, signs = max(_NAMINGS, key=lambda naming: _fitness(box.axes, *naming))
    half_edges = box.axes[:, order] * signs * (box.extents_m[order] / 2)
    return box.centre_m + CORNER_SIDES @ half_edges.T


def edges_of(vertices_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of a box (rows: along its x, y and z axis) from its corners in canonical order."""
    return vertices_m[[4, 2, 1]] - vertices_m[0]


def _fitness(axes, order, signs):
    """Sum of cosines; the axes themselves decide between equals, so names never do."""
    named = axes[:, order] * signs
    return (np.trace(named), *named.ravel())
