"""Solids of known pose, seen by a camera: exact depth and masks by casting a ray a pixel."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from spear_policy.inference.image_geometry import plan_fit
from spear_training.annotation.accuracy.compare import SceneTruth
from spear_training.annotation.boxes import OrientedBox, ordered_vertices
from spear_training.annotation.frame import Candidate, Frame, PointMap
from spear_training.annotation.records import (
    AnnotatedObject,
    Annotation,
    Intrinsics,
    Item,
    encode_mask,
)

WIDTH_PX, HEIGHT_PX = 840, 630
CAMERA = Intrinsics(fx=700.0, fy=700.0, cx=419.5, cy=314.5)


@dataclass(frozen=True)
class Solid:
    """A box, a cylinder about its z axis or an ellipsoid; sizes are whole edges of its box."""

    label: str
    kind: str
    centre_m: np.ndarray
    rotation: np.ndarray
    size_m: np.ndarray

    def box(self):
        """Return its true box in the camera frame."""
        return OrientedBox(self.centre_m, self.rotation, self.size_m)

    def axis(self):
        """Return the axis about which it may be turned: zeros for a ball, None for a box."""
        if self.kind == "ellipsoid":
            return (0.0, 0.0, 0.0)
        return tuple(self.rotation[:, 2].tolist()) if self.kind == "cylinder" else None

    def hit(self, rays):
        """Return the distance along each ray (N, 3) from the camera; infinite where it misses."""
        half = self.size_m / 2
        start = -self.rotation.T @ self.centre_m / half
        along = rays @ self.rotation / half
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "box":
                return _slabs(start, along)
            if self.kind == "cylinder":
                side = _quadric(start[:2], along[:, :2])
                ends = np.sort((np.array([-1, 1]) - start[2]) / along[:, 2:], axis=1).T
                near, far = np.maximum(side[0], ends[0]), np.minimum(side[1], ends[1])
            else:
                near, far = _quadric(start, along)
        return np.where((near < far) & (near > 0), near, np.inf)


def _slabs(start, along):
    ends = np.sort((np.array([[-1.0], [1.0]])[:, :, None] - start) / along, axis=0)
    near, far = ends[0].max(axis=1), ends[1].min(axis=1)
    return np.where((near < far) & (near > 0), near, np.inf)


def _quadric(start, along):
    a, b = (along**2).sum(axis=1), along @ start
    root = np.sqrt(b**2 - a * (start @ start - 1))
    root = np.where(np.isnan(root), -np.inf, root)
    return (-b - root) / a, (-b + root) / a


def rays():
    """Return the ray of each pixel with z = 1, (630 * 840, 3)."""
    rows, columns = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    x, y = (columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def table_scene(seed, count=5, tilt_deg=(25, 60)):
    """Return solids on a table, and the table as (normal, offset): n.p = offset, camera frame."""
    rng = np.random.default_rng(seed)
    tilt, distance = np.deg2rad(rng.uniform(*tilt_deg)), rng.uniform(0.6, 1.1)
    # Columns: the table's x, y and up, seen from a camera that looks down by `tilt`.
    up = np.array([0, -np.cos(tilt), -np.sin(tilt)])
    frame = np.column_stack([[1.0, 0, 0], np.cross(up, [1.0, 0, 0]), up])
    origin = np.array([0, 0, distance])
    solids, places = [], []
    for number in range(count):
        kind = ("box", "cylinder", "box", "ellipsoid", "box")[number % 5]
        size = rng.uniform(0.04, 0.16, 3)
        if kind == "cylinder":
            size[1] = size[0]
        if kind == "ellipsoid":
            size[:] = size[0]
        for _ in range(200):
            place = rng.uniform([-0.3, -0.25], [0.3, 0.25]) * distance
            if all(np.linalg.norm(place - other) > 0.17 for other in places):
                break
        places.append(place)
        centre = origin + frame @ [*place, size[2] / 2]
        yaw = Rotation.from_euler("z", rng.uniform(0, np.pi)).as_matrix()
        solids.append(Solid(f"{kind} {number}", kind, centre, frame @ yaw, size))
    return solids, (up, float(up @ origin))


def render(solids, plane):
    """Return depth (630, 840), at most 5 m, and which solid each pixel shows (-1: none)."""
    directions = rays()
    with np.errstate(divide="ignore"):
        reach = plane[1] / (directions @ plane[0])
    depth, shown = np.where(reach > 0, reach, 5.0), np.full(len(directions), -1)
    for number, solid in enumerate(solids):
        distance = solid.hit(directions)
        nearer = distance < depth
        depth[nearer], shown[nearer] = distance[nearer], number
    shape = (HEIGHT_PX, WIDTH_PX)
    return np.minimum(depth, 5.0).reshape(shape), shown.reshape(shape)


def frame_of(solids, depth_m, shown, name="table/0"):
    """Return what the geometry stage hands on: given masks and the true points."""
    points = depth_m[..., None] * rays().reshape(HEIGHT_PX, WIDTH_PX, 3)
    found = []
    for number, solid in enumerate(solids):
        mask = shown == number
        if mask.any():
            found.append(Candidate(solid.label, mask_box(mask), mask=mask))
    return Frame(
        item=Item(name, "none.png"),
        image=np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8),
        fit=plan_fit(WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX),
        visible=np.ones((HEIGHT_PX, WIDTH_PX), bool),
        candidates=tuple(found),
        points=PointMap(points.astype(np.float32), CAMERA),
    )


def truth_of(solids, shown, name="table/0"):
    """Return the truth of the scene in the format of the generated worlds."""
    objects = []
    for number, solid in enumerate(solids):
        mask = shown == number
        if mask.any():
            vertices = ordered_vertices(solid.box())
            centre = tuple(solid.centre_m.tolist())
            objects.append(
                AnnotatedObject(
                    solid.label,
                    mask_box(mask),
                    encode_mask(mask),
                    None,
                    int(mask.sum()),
                    centre,
                    centre,
                    tuple(map(tuple, vertices.tolist())),
                    (centre,),
                )
            )
    return SceneTruth(
        Annotation(name, "none.png", "ok", intrinsics=CAMERA, objects=tuple(objects)),
        {
            solid.label: solid.axis()
            for solid in solids
            if solid.label in {o.label for o in objects}
        },
        {o.label: 1.0 for o in objects},
    )


def mask_box(mask):
    """Return the box of a mask, edge to edge."""
    rows, columns = np.nonzero(mask)
    return tuple(map(float, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))
