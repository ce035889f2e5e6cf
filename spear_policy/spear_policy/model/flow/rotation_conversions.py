"""Rotation matrices and Euler angles from quaternions and back: wxyz, torch, fp32 or better."""

import torch
from torch import Tensor

from spear_policy.model import s3


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
