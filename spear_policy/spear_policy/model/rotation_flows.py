"""How a rotation becomes numbers that flow from noise to data: the sphere, and its alternatives.

All have the interface of `RotationFlow`, so that `FlowConfig.rotation` alone chooses:

* s3: unit quaternions moved along great circles (the paper's; spear_policy.model.s3).
* r4: quaternions as plain vectors; scaled to unit length once, when decoded. Doing so after
  every Euler step costs 14 degrees.
* matrix: the nine numbers of R, row by row; decoded by Gram-Schmidt.
* euler: roll, pitch, yaw [rad] about fixed axes, R = Rz(yaw) Ry(pitch) Rx(roll); not wrapped.

The last three are linear: standard normal noise and straight paths. `FlowConfig` chooses the losses
of each. The geometric one compares rotations: a step's end and the path are decoded first, which
for r4 is the integrated quaternion scaled to unit length. Only the squared error has the marginal
velocity as its minimum.
"""

from typing import Protocol

import torch
from torch import Tensor

from spear_policy.model import s3
from spear_policy.model.config import ROTATION_DIMS, FlowConfig

# Rotation matrices and Euler angles from quaternions and back ------------------------------------


@s3.full_precision
def matrix_from_quaternion(q_wxyz: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    w, x, y, z = s3.unit(q_wxyz).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


@s3.full_precision
def gram_schmidt(matrix: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) from any whose first two columns are independent.

    The third column of the input has no say: it is the cross product of the other two.
    """
    norm = torch.linalg.vector_norm
    first, second, _ = matrix.unbind(-1)
    first = first / norm(first, dim=-1, keepdim=True)
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = second / norm(second, dim=-1, keepdim=True)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


@s3.full_precision
def quaternion_from_matrix(matrix: Tensor) -> Tensor:
    """Unit quaternions wxyz (..., 4), w >= 0, of rotation matrices (..., 3, 3)."""
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    squares = [
        1 + m[0][0] + m[1][1] + m[2][2],
        1 + m[0][0] - m[1][1] - m[2][2],
        1 - m[0][0] + m[1][1] - m[2][2],
        1 - m[0][0] - m[1][1] + m[2][2],
    ]
    # Rows of 4 q q^T. Each is q times one of its numbers; that of the largest keeps most digits.
    rows = [
        [squares[0], wx, wy, wz],
        [wx, squares[1], xy, xz],
        [wy, xy, squares[2], yz],
        [wz, xz, yz, squares[3]],
    ]
    products = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    largest = torch.stack(squares, dim=-1).argmax(-1)[..., None, None]
    return s3.half_space(s3.unit(torch.take_along_dim(products, largest, dim=-2).squeeze(-2)))


@s3.full_precision
def euler_from_quaternion(q_wxyz: Tensor) -> Tensor:
    """Roll, pitch, yaw [rad] about fixed axes (..., 3) of unit quaternions (..., 4).

    roll and yaw in -pi..pi, pitch in -pi/2..pi/2. Where pitch is at an end of its range only a
    sum or difference of roll and yaw is determined; the angles then are one choice of many.
    """
    w, x, y, z = q_wxyz.unbind(-1)
    half_difference = torch.atan2(x - z, w + y)
    half_sum = torch.atan2(x + z, w - y)
    pitch = 2 * torch.atan2(torch.hypot(w + y, x - z), torch.hypot(w - y, x + z)) - torch.pi / 2
    roll, yaw = half_sum + half_difference, half_sum - half_difference
    turn = 2 * torch.pi
    return torch.stack(
        [roll - turn * torch.round(roll / turn), pitch, yaw - turn * torch.round(yaw / turn)],
        dim=-1,
    )


@s3.full_precision
def quaternion_from_euler(angles: Tensor) -> Tensor:
    """Unit quaternions wxyz (..., 4), w >= 0, of any roll, pitch, yaw [rad] (..., 3)."""
    cr, cp, cy = torch.cos(angles / 2).unbind(-1)
    sr, sp, sy = torch.sin(angles / 2).unbind(-1)
    q = [
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]
    return s3.half_space(torch.stack(q, dim=-1))


# Representations ---------------------------------------------------------------------------------


_GEOMETRIC_DISTANCE = {
    "chordal": s3.chordal_distance,
    "chordal_sq": s3.chordal_distance_squared,
    "angle": s3.rotation_angle,
}


class RotationFlow(Protocol):
    """A representation x (..., dims) of rotations with its noise, path and losses.

    Times broadcast as in `s3`. Losses have shape (...), without the last dimension.
    """

    dims: int

    def encode(self, q_wxyz: Tensor) -> Tensor:
        """The numbers (..., dims) of unit quaternions (..., 4)."""

    def decode(self, x: Tensor) -> Tensor:
        """Unit quaternions wxyz (..., 4) with w >= 0; zero or NaN where `x` means no rotation."""

    def noise(self, shape, generator=None, device=None, dtype=torch.float32) -> Tensor:
        """Where sampling starts, shape (*shape, dims)."""

    def pair(self, noise: Tensor, target: Tensor) -> Tensor:
        """The noise from which training starts towards `target`; both (..., dims)."""

    def interpolate(self, x0: Tensor, x1: Tensor, t: float | Tensor) -> Tensor:
        """The point at time `t` of the path from noise x0 to data x1."""

    def velocity(self, x0: Tensor, x1: Tensor, t: float | Tensor) -> Tensor:
        """Time derivative of `interpolate`."""

    def step(self, x: Tensor, v: Tensor, dt: float | Tensor) -> Tensor:
        """Follow the velocity `v` from x for `dt`."""

    def velocity_loss(self, v: Tensor, u: Tensor) -> Tensor:
        """How far the predicted velocity `v` is from `u`."""

    def geometric_loss(self, reached: Tensor, target: Tensor, delta: Tensor) -> Tensor:
        """How far a step of length `delta` ended from the `target` on the path."""


class _Losses:
    """The losses that a configuration names; `decode` is the representation's."""

    def __init__(self, config: FlowConfig):
        self._config = config

    def velocity_loss(self, v, u):
        """Eq. 8, or the squared error (Eq. 2)."""
        cosine = self._config.rotation_velocity_loss == "cosine"
        return s3.cosine_loss(v, u) if cosine else s3.squared_error(v, u)

    def geometric_loss(self, reached, target, delta):
        """Eq. 9 or an alternative, scaled as `rot_geo_scale` says."""
        kind = self._config.rotation_geometric_loss
        if kind == "none":
            return torch.zeros_like(reached[..., 0])
        distance = _GEOMETRIC_DISTANCE[kind](self.decode(reached), self.decode(target))
        return s3.rot_geo_scale(distance, delta, self._config.rot_geo_scale)


class SphereFlow(_Losses):
    """Rotations on the unit sphere of quaternions."""

    dims = ROTATION_DIMS["s3"]

    def encode(self, q_wxyz):
        """See `RotationFlow`."""
        return s3.half_space(s3.unit(q_wxyz))

    decode = encode

    def noise(self, shape, generator=None, device=None, dtype=torch.float32):
        """Uniformly distributed rotations, w >= 0."""
        return s3.random_half_sphere(shape, generator, device, dtype)

    def pair(self, noise, target):
        """Flip the noise to the target's side for noise_sign 'shortest', else leave it."""
        if self._config.noise_sign == "half":
            return noise
        return torch.where((noise * target).sum(-1, keepdim=True) < 0, -noise, noise)

    interpolate = staticmethod(s3.slerp)
    velocity = staticmethod(s3.velocity)
    step = staticmethod(s3.exp_step)


class LinearFlow(_Losses):
    """Straight paths from standard normal noise; what differs is how rotations are encoded."""

    dims: int

    def noise(self, shape, generator=None, device=None, dtype=torch.float32):
        """Standard normal numbers."""
        dtype = torch.promote_types(dtype, torch.float32)
        return torch.randn(*shape, self.dims, generator=generator, device=device, dtype=dtype)

    def pair(self, noise, target):
        """Leave the noise as it is."""
        return noise

    @staticmethod
    @s3.full_precision
    def interpolate(x0, x1, t):
        """See `RotationFlow`."""
        t = s3.spread_time(t, x1)
        return (1.0 - t) * x0 + t * x1

    @staticmethod
    @s3.full_precision
    def velocity(x0, x1, t):
        """The same at every time."""
        return x1 - x0

    @staticmethod
    @s3.full_precision
    def step(x, v, dt):
        """See `RotationFlow`."""
        return x + s3.spread_time(dt, x) * v


class VectorFlow(LinearFlow):
    """Quaternions as vectors in R^4."""

    dims = ROTATION_DIMS["r4"]

    def encode(self, q_wxyz):
        """See `RotationFlow`."""
        return s3.half_space(s3.unit(q_wxyz))

    decode = encode


class MatrixFlow(LinearFlow):
    """Rotation matrices, row by row."""

    dims = ROTATION_DIMS["matrix"]

    def encode(self, q_wxyz):
        """See `RotationFlow`."""
        return matrix_from_quaternion(q_wxyz).flatten(-2)

    def decode(self, x):
        """Of the Gram-Schmidt rotation."""
        return quaternion_from_matrix(gram_schmidt(x.unflatten(-1, (3, 3))))


class EulerFlow(LinearFlow):
    """Roll, pitch, yaw [rad] about fixed axes."""

    dims = ROTATION_DIMS["euler"]

    def encode(self, q_wxyz):
        """See `RotationFlow`."""
        return euler_from_quaternion(q_wxyz)

    def decode(self, x):
        """See `RotationFlow`."""
        return quaternion_from_euler(x)


def rotation_flow(config: FlowConfig) -> RotationFlow:
    """The representation that `config.rotation` names."""
    kinds = {"s3": SphereFlow, "r4": VectorFlow, "matrix": MatrixFlow, "euler": EulerFlow}
    return kinds[config.rotation](config)


# Axes of a rotation delta ------------------------------------------------------------------------


def to_model_frame(q_delta_ee_wxyz: Tensor, q_anchor_wxyz: Tensor, frame: str) -> Tensor:
    """A delta R_anchor^T R (end-effector axes) in the axes of `FlowConfig.rotation_frame`.

    Args:
        q_delta_ee_wxyz: (..., 4), as on the wire.
        q_anchor_wxyz: orientation of the end effector in the base, the delta's leading
            dimensions or the first of them, e.g. [B, 4] with deltas [B, H, 4].
        frame: 'end_effector' leaves the delta as it is; 'base' gives R R_anchor^T.

    Returns:
        (..., 4) with w >= 0.

    Raises:
        ValueError: another `frame`.
    """
    return _change_axes(q_delta_ee_wxyz, q_anchor_wxyz, frame)


def from_model_frame(q_delta_wxyz: Tensor, q_anchor_wxyz: Tensor, frame: str) -> Tensor:
    """The inverse of `to_model_frame`: back to end-effector axes."""
    return _change_axes(q_delta_wxyz, s3.conjugate(q_anchor_wxyz), frame)


def _change_axes(q_delta: Tensor, q_anchor: Tensor, frame: str) -> Tensor:
    if frame == "end_effector":
        return s3.half_space(q_delta)
    if frame != "base":
        raise ValueError(f"the rotation frame is {frame!r}; it must be 'end_effector' or 'base'")
    missing = max(0, q_delta.dim() - q_anchor.dim())
    anchor = q_anchor.reshape(q_anchor.shape[:-1] + (1,) * missing + (4,))
    rotated = s3.multiply(s3.multiply(anchor, q_delta), s3.conjugate(anchor))
    return s3.half_space(rotated)
