"""How far annotated boxes are from the true ones, object by object.

In order: the IoU of two oriented boxes; boxes of objects with an axis of symmetry, which are turned
about it before they are compared; the truth of a picture and its file; the comparison.
"""

import json
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from spear_training.annotation.boxes import CORNER_SIDES, edges_of
from spear_training.annotation.records import AnnotatedObject, Annotation, RecordError, Triple

# IoU of two oriented boxes ---------------------------------------------------------------------


# Pairs of corners, of boxes in canonical order, that have an edge between them.
_EDGES = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])

_ROUNDING = 1e-9


def box_iou(vertices_a_m: NDArray[np.float64], vertices_b_m: NDArray[np.float64]) -> float:
    """Volume of the intersection over that of the union, 0..1.

    The corners of the intersection are the ends of either box's edges, as far as these lie in the
    other box; its volume is that of their convex hull.

    Args:
        vertices_a_m, vertices_b_m: (8, 3) each, in the order of `boxes.ordered_vertices`.

    Raises:
        ValueError: a box has no volume.
    """
    a, b = np.asarray(vertices_a_m, float), np.asarray(vertices_b_m, float)
    volume_a, volume_b = box_volume_m3(a), box_volume_m3(b)
    if not (volume_a > 0 and volume_b > 0):
        raise ValueError("a box without volume has no IoU")
    # In the frame of b, where b is the cube from -1 to 1, sizes and distances are near 1.
    middle, half_edges = b.mean(axis=0), edges_of(b) / 2
    a_seen = np.linalg.solve(half_edges.T, (a - middle).T).T
    corners = np.vstack([_edges_in_cube(a_seen), _cube_edges_in(a_seen)])
    if len(corners) < 4:
        return 0.0
    try:
        common = ConvexHull(corners).volume * volume_b / 8
    except QhullError:  # the boxes touch and have no volume in common
        return 0.0
    common = min(common, volume_a, volume_b)
    return float(common / (volume_a + volume_b - common))


def box_volume_m3(vertices_m: NDArray[np.float64]) -> float:
    """Volume of a box (8, 3) in canonical order."""
    return float(abs(np.linalg.det(edges_of(np.asarray(vertices_m, float)))))


def _edges_in_cube(vertices):
    """Ends of the parts of a box's edges that lie in the cube from -1 to 1, (N, 3)."""
    start, along = vertices[_EDGES[:, 0]], np.diff(vertices[_EDGES], axis=1)[:, 0]
    # An edge in a side of the cube counts as inside, whatever rounding makes of it.
    sides = np.array([[[-1.0]], [[1.0]]]) * (1 + _ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.sort((sides - start) / along, axis=0)
    near, far = reach[0].max(axis=1), reach[1].min(axis=1)
    near, far = np.maximum(near, 0), np.minimum(far, 1)
    found = near <= far
    start, along, near, far = (part[found] for part in (start, along, near, far))
    return np.vstack([start + near[:, None] * along, start + far[:, None] * along])


def _cube_edges_in(vertices):
    """Ends of the parts of the cube's edges that lie in a box, (N, 3), in the cube's frame."""
    middle, half_edges = vertices.mean(axis=0), edges_of(vertices) / 2
    seen = np.linalg.solve(half_edges.T, (CORNER_SIDES - middle).T).T
    return middle + _edges_in_cube(seen) @ half_edges


# Boxes of rotationally symmetric objects -------------------------------------------------------


_STEPS = 36  # of 5 degrees: half a turn brings every box onto itself


def turned_to_agree(
    vertices_m: NDArray[np.float64], axis: tuple[float, ...], other_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Turn a box about its axis of symmetry, or a ball's freely, to have most in common.

    Args:
        vertices_m: (8, 3) in canonical order.
        axis: through the box's centre; (0, 0, 0) for a ball, which any turn leaves as it is.
        other_m: (8, 3), the box that it is to agree with.

    Returns:
        (8, 3), in an order that follows from the turn.
    """
    middle = vertices_m.mean(axis=0)
    if not np.any(axis):
        edges = edges_of(other_m)
        directions = edges / np.linalg.norm(edges, axis=1, keepdims=True)
        sides = np.linalg.norm(edges_of(vertices_m), axis=1).mean()
        return middle + CORNER_SIDES * (sides / 2) @ directions

    def turned(angle_rad):
        return middle + Rotation.from_rotvec(angle_rad * np.array(axis)).apply(vertices_m - middle)

    def disagreement(angle_rad):
        return -box_iou(turned(angle_rad), other_m)

    step = np.pi / _STEPS
    coarse = step * int(np.argmin([disagreement(step * i) for i in range(_STEPS)]))
    fine = minimize_scalar(disagreement, bounds=(coarse - step, coarse + step), method="bounded")
    return turned(min(coarse, float(fine.x), key=disagreement))


# The truth of a picture: truth.jsonl -----------------------------------------------------------


@dataclass(frozen=True)
class SceneTruth:
    """The truth of one picture, a line of truth.jsonl.

        {"annotation": {...}, "axes_of_symmetry": {"mug": [0.0, -0.8, -0.6], "book": null},
         "visible_fraction": {"mug": 0.93, "book": 1.0}}

    The annotation is written as any other, but its boxes are those of the whole objects, hidden
    sides included, in the same order of vertices.

    Attributes:
        annotation: boxes of the whole objects, in the frame of the picture's camera.
        axes_of_symmetry: by label, the axis (unit vector, camera frame) about which the object
            may be turned by any angle and looks the same; (0, 0, 0): any axis, it is a ball; None,
            or not there: it has no such axis.
        visible_fraction: by label, the share 0..1 of the object's pixels that nothing hides.
    """

    annotation: Annotation
    axes_of_symmetry: dict[str, Triple | None] = field(default_factory=dict)
    visible_fraction: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        values = {
            "annotation": json.loads(self.annotation.to_json()),
            "axes_of_symmetry": self.axes_of_symmetry,
            "visible_fraction": self.visible_fraction,
        }
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "SceneTruth":
        """Read what `to_json` wrote.

        Raises:
            RecordError: it is no truth; says what about it.
        """
        try:
            values = json.loads(line)
            annotation = Annotation.from_json(json.dumps(values["annotation"]))
            axes = {
                label: None if axis is None else _unit(label, axis)
                for label, axis in values["axes_of_symmetry"].items()
            }
            visible = {label: float(part) for label, part in values["visible_fraction"].items()}
        except RecordError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"no truth ({type(error).__name__}: {error})") from None
        if unknown := (set(axes) | set(visible)) - {found.label for found in annotation.objects}:
            raise RecordError(f"no truth: {annotation.id} has no {', '.join(sorted(unknown))}")
        return cls(annotation, axes, visible)


def read_truth(path: Path) -> dict[str, SceneTruth]:
    """Read a file of truths by the ids of their pictures; blank lines do not count.

    Raises:
        RecordError: a line is no truth, or two have one id; says which.
        OSError: the file cannot be read.
    """
    scenes: dict[str, SceneTruth] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            scene = SceneTruth.from_json(line)
        except RecordError as error:
            raise RecordError(f"{path}, line {number}: {error}") from None
        if scene.annotation.id in scenes:
            raise RecordError(f"{path}, line {number}: {scene.annotation.id!r} is there twice")
        scenes[scene.annotation.id] = scene
    return scenes


def _unit(label: str, axis: list[float]) -> Triple:
    x, y, z = (float(part) for part in axis)
    if any((x, y, z)) and not abs(np.linalg.norm([x, y, z]) - 1) < 1e-3:
        raise ValueError(f"the axis of symmetry of {label!r} is no unit vector, nor zero")
    return x, y, z


# Errors of annotated boxes, object by object ---------------------------------------------------


NOT_FOUND = "not found"


def _namings():
    """The 48 ways to name a box's axes: their new order, and that of the corners; first: as is."""
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            sides = (CORNER_SIDES * signs)[:, np.argsort(order)]
            yield list(order), ((sides @ [4, 2, 1] + 7) / 2).astype(int)


_NAMINGS = tuple(_namings())


@dataclass(frozen=True)
class ObjectAccuracy:
    """One true object and what became of it; numbers are None where it was lost.

    Attributes:
        scene: id of its picture.
        label: in words.
        is_round: whether it has an axis of symmetry: its true box may be turned about that axis,
            and its vertices have no true order.
        diagonal_m: of its true box.
        visible_fraction: the share of its pixels that nothing hides; None where nobody said.
        lost: why it has no annotation; None where it has one.
        centre_error_m: distance of the boxes' centres.
        extent_error_m: largest difference of the lengths of matching edges.
        iou: volume of the intersection over that of the union.
        order_kept: whether each vertex lies next to the true one of its number.
    """

    scene: str
    label: str
    is_round: bool
    diagonal_m: float
    visible_fraction: float | None = None
    lost: str | None = None
    centre_error_m: float | None = None
    extent_error_m: float | None = None
    iou: float | None = None
    order_kept: bool | None = None

    @property
    def centre_error_share(self) -> float | None:
        """Distance of the centres as a share of the true box's diagonal."""
        return None if self.centre_error_m is None else self.centre_error_m / self.diagonal_m


def compare_scene(truth: SceneTruth, annotation: Annotation | None) -> list[ObjectAccuracy]:
    """Compare the annotation of a picture with its truth; objects are matched by their labels.

    Args:
        truth: what is there.
        annotation: of the same picture; None: there is none.

    Returns:
        One entry for each true object.

    Raises:
        ValueError: they are of different pictures.
    """
    if annotation is not None and annotation.id != truth.annotation.id:
        raise ValueError(
            f"the annotation of {annotation.id} is compared with the truth of {truth.annotation.id}"
        )
    return [_compare(truth, there, annotation) for there in truth.annotation.objects]


def _compare(truth, there, annotation):
    axis = truth.axes_of_symmetry.get(there.label)
    known = {
        "scene": truth.annotation.id,
        "label": there.label,
        "is_round": axis is not None,
        "diagonal_m": float(np.linalg.norm(there.vertices[7] - there.vertices[0])),
        "visible_fraction": truth.visible_fraction.get(there.label),
    }
    found = None if annotation is None else _named(annotation, there.label)
    if found is None:
        return ObjectAccuracy(**known, lost=_why_lost(annotation, there.label))
    true_vertices, vertices = there.vertices, found.vertices
    if axis is not None:
        true_vertices = turned_to_agree(true_vertices, axis, vertices)
    order, is_first = matching_axes(vertices, true_vertices)
    extents, true_extents = (
        np.linalg.norm(edges_of(corners), axis=1) for corners in (vertices, true_vertices)
    )
    return ObjectAccuracy(
        **known,
        centre_error_m=float(np.linalg.norm(found.centre_m - there.centre_m)),
        extent_error_m=float(np.abs(extents[order] - true_extents).max()),
        iou=box_iou(vertices, true_vertices),
        order_kept=None if axis is not None else is_first,
    )


def matching_axes(
    vertices_m: NDArray[np.float64], true_vertices_m: NDArray[np.float64]
) -> tuple[list[int], bool]:
    """Name the axes of a box so that its corners (8, 3) come closest to those of another.

    Returns:
        The order of its axes that fits, and whether its corners were in the best order already.
    """
    distances = [
        np.linalg.norm(vertices_m[corners] - true_vertices_m, axis=1).sum()
        for _, corners in _NAMINGS
    ]
    best = int(np.argmin(distances))
    return _NAMINGS[best][0], best == 0


def _named(annotation: Annotation, label: str) -> AnnotatedObject | None:
    return next((found for found in annotation.objects if found.label == label), None)


def _why_lost(annotation, label):
    if annotation is None:
        return "its picture has no annotation"
    if annotation.status == "failed":
        return f"its picture failed: {annotation.reason}"
    return next((drop.reason for drop in annotation.dropped if drop.label == label), NOT_FOUND)
