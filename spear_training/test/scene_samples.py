"""Scenes of known shape for the tests of the generator, and facts about meshes."""

import numpy as np

from spear_training.annotation.records import Intrinsics
from spear_training.annotation.synthetic.meshes import box
from spear_training.annotation.synthetic.objects import (
    Body,
    Part,
    PlacedObject,
    SyntheticObject,
    stand,
)
from spear_training.annotation.synthetic.scenes import Lamp, SyntheticCamera, SyntheticScene
from spear_training.annotation.synthetic.textures import Paint

GREY = Paint((0.5, 0.5, 0.5))


def object_of(surface, label="object"):
    """Return an upright object of one surface."""
    return SyntheticObject(label, Body([Part(surface, GREY)]), None, np.eye(3))


def block(size_m, label="block", spot_m=(0.0, 0.0), yaw_rad=0.0, height_m=0.0) -> PlacedObject:
    """Return a box that stands somewhere."""
    object_ = object_of(box(size_m, [0, 0, size_m[2] / 2]), label)
    return stand(object_, np.array(spot_m), yaw_rad, height_m)


def bare_scene(objects, view, ground_half_m=12.0) -> SyntheticScene:
    """Return objects on a plain floor at z = 0; no floor for a half length of 0."""
    size = [2 * ground_half_m, 2 * ground_half_m, 0.2]
    ground = [Part(box(size, [0, 0, -0.1]), GREY, shadow=False)] if ground_half_m else []
    lamp = Lamp(None, np.array([0.3, 0.5, -1.0]), (0.6, 0.6, 0.6), True)
    sky = ((0.4, 0.6, 0.9), (0.8, 0.8, 0.9))
    return SyntheticScene(
        "table", tuple(objects), tuple(ground), (lamp,), 0.4, sky, 3.0, 0.1, (view,)
    )


def view_from(position_m, target_m, size_px=(640, 480), camera=None) -> SyntheticCamera:
    """Return a camera without roll that looks at a target."""
    position = np.array(position_m, float)
    forward = np.array(target_m, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    axes = np.column_stack([right, np.cross(forward, right), forward])
    width, height = size_px
    camera = camera or Intrinsics(0.9 * width, 0.92 * width, 0.48 * width, 0.53 * height)
    return SyntheticCamera(width, height, camera, position, axes)


def rays_of(view):
    """Return the rays (H, W, 3) through the pixels' centres, 1 long along the optical axis."""
    rows, columns = np.mgrid[: view.height_px, : view.width_px]
    camera = view.intrinsics
    across, down = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return np.stack([across, down, np.ones_like(across)], axis=-1) @ view.axes.T


def winding(points, surface):
    """Return how often a closed surface goes around each point: 1 inside, 0 outside."""
    corners = surface.vertices_m[surface.triangles][None] - points[:, None, None]
    lengths = np.linalg.norm(corners, axis=-1)
    a, b, c = corners.transpose(2, 0, 1, 3)
    la, lb, lc = lengths.transpose(2, 0, 1)
    volume = np.einsum("pti,pti->pt", a, np.cross(b, c))
    dots = [np.einsum("pti,pti->pt", *pair) for pair in ((a, b), (b, c), (c, a))]
    below = la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb
    return 2 * np.arctan2(volume, below).sum(axis=1) / (4 * np.pi)


def open_edges(surface):
    """Return how many edges, of vertices merged by their place, lack their opposite."""
    _, place = np.unique(surface.vertices_m.round(9), axis=0, return_inverse=True)
    corners = place.ravel()[surface.triangles]
    there = {}
    for a, b in zip(corners.ravel(), np.roll(corners, -1, axis=1).ravel(), strict=True):
        if a != b:
            there[a, b] = there.get((a, b), 0) + 1
    return sum(count != there.get((b, a), 0) for (a, b), count in there.items())


def volume_m3(surface):
    """Return the volume inside a closed surface; negative if its triangles face inward."""
    a, b, c = surface.vertices_m[surface.triangles].transpose(1, 0, 2)
    return float(np.einsum("ti,ti->", a, np.cross(b, c)) / 6)
