"""Fewer triangles for small pictures: the robot's meshes carry a quarter of a million."""

import copy

import mujoco
import numpy as np
from numpy.typing import NDArray


def thinned(model: mujoco.MjModel, cell_m: float) -> mujoco.MjModel:
    """A copy of `model` for drawing only, its meshes without detail below `cell_m`.

    Vertices in the same cell of a grid become one; triangles that lose a corner by it go. Normals
    stay those of the original, so surfaces still look smooth. Physics must use the original.
    A cell of 0 keeps every detail.
    """
    drawn = copy.copy(model)
    for mesh in range(drawn.nmesh if cell_m > 0 else 0):
        _thin(drawn, mesh, cell_m)
    return drawn


def _thin(model: mujoco.MjModel, mesh: int, cell_m: float) -> None:
    first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    vertices = _rows(model.mesh_vert, model.mesh_vertadr[mesh], model.mesh_vertnum[mesh])
    cells = np.floor(vertices / cell_m).astype(np.int64)
    _, keeper, cell_of = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    middle = np.zeros((len(keeper), 3))
    np.add.at(middle, cell_of.ravel(), vertices)
    middle /= np.bincount(cell_of.ravel())[:, None]
    # The mesh ends up inside its own memory: one vertex of each cell moves to the cell's middle.
    vertices[keeper] = middle
    faces = keeper[cell_of.ravel()][_rows(model.mesh_face, first, count)]
    a, b, c = faces.T
    left = np.flatnonzero((a != b) & (b != c) & (c != a))
    for table in ("mesh_facenormal", "mesh_facetexcoord"):
        rows = _rows(getattr(model, table), first, count)
        rows[: len(left)] = rows[left]
    _rows(model.mesh_face, first, count)[: len(left)] = faces[left]
    model.mesh_facenum[mesh] = len(left)


def _rows(table: NDArray, first: int, count: int) -> NDArray:
    return table[first : first + count]
