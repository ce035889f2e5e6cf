"""Flow matching on the unit sphere of quaternions: wxyz, torch, last dimension 4.

Hamilton quaternions of active rotations; q and -q are the same rotation. A time or a step has no
last dimension: a number, a tensor with the leading dimensions of the quaternions, or with the
first of them (shape [B] with quaternions [B, H, 4]). Everything is computed in fp32 under
autocast (fp64 stays fp64): bf16 alone costs 0.05 degrees. Equations are those of
arXiv 2511.17411.

Inputs are not checked here: `check_unit` is for the places where data enters.
"""

import functools

import torch
from torch import Tensor

from spear_policy.geometry.quaternions import UNIT_TOLERANCE

SINC_FLOOR = 1e-4  # sin(theta) / theta of end points that are all but opposite
MIN_VELOCITY_ANGLE = 1e-3  # [rad]; a shorter velocity has no direction worth learning
# Below it the cosine loss takes the length of a prediction for this much: the slope stays under 100
# where a zero-initialised output layer begins.
MIN_SPEED = 1e-2
MIN_NORM = 1e-6
DISTANCE_EPS = 1e-12  # inside square roots, whose slope at 0 is infinite
MIN_SCALED_STEP = 1e-3  # 1 - tau never is smaller with the default time_scale 0.999
_TAYLOR_LIMIT = 0.5


def full_precision(function):
    """Run `function` in fp32 or better on its tensor arguments, whatever autocast says."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        args = [at_least_fp32(a) for a in args]
        kwargs = {name: at_least_fp32(a) for name, a in kwargs.items()}
        device = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)).device.type
        if not torch.amp.is_autocast_available(device):  # the meta device
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return run


def at_least_fp32(value):
    """A half-precision tensor as fp32; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype.itemsize < 4:
        return value.float()
    return value


def check_unit(q_wxyz: Tensor, name: str) -> None:
    """Refuse quaternions (..., 4) that are not finite or not of unit length within 1e-3.

    Waits for the device, so it does not belong into a hot path.

    Raises:
        ValueError: names the input, the first bad quaternion, its norm and the fix.
    """
    if q_wxyz.shape[-1:] != (4,):
        raise ValueError(f"{name} must have 4 numbers (wxyz) last, not shape {list(q_wxyz.shape)}")
    flat = q_wxyz.detach().reshape(-1, 4).double()
    norm = flat.norm(dim=-1)
    bad = ~((norm - 1.0).abs() <= UNIT_TOLERANCE)  # True for NaN and infinity too
    if bad.any():
        first = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{name}: quaternion {first} of {len(flat)}, {flat[first].tolist()} (wxyz), has norm "
            f"{norm[first].item():.6g}, not 1; normalise it, or leave the sample out, at its source"
        )


def spread_time(t: float | Tensor, q: Tensor) -> float | Tensor:
    """A time with singleton dimensions on the right, so that it broadcasts with `q` (..., d).

    Raises:
        ValueError: a time with more dimensions than the leading ones of `q`.
    """
    if not isinstance(t, Tensor):
        return t
    if t.dim() >= q.dim() > 1:
        raise ValueError(
            f"a time of shape {list(t.shape)} has more dimensions than the leading ones of "
            f"{list(q.shape)}; times have no last dimension"
        )
    return t.to(q.dtype).reshape(t.shape + (1,) * max(1, q.dim() - t.dim()))


def _sinc(x: Tensor) -> Tensor:
    """Return sin(x) / x with exact slopes.

    torch.sinc's slope loses all digits in fp32 near 0 (x cos x - sin x over x squared).
    """
    near = x.abs() < _TAYLOR_LIMIT
    square = torch.where(near, x, 0.0).square()
    series = torch.ones_like(x)
    for k in (12, 10, 8, 6, 4, 2):  # the next term is below fp64's resolution
        series = 1.0 - square / (k * (k + 1)) * series
    away = torch.where(near, 1.0, x)
    return torch.where(near, series, torch.sin(away) / away)


@full_precision
def unit(q_wxyz: Tensor) -> Tensor:
    """Scale (..., 4) to unit length; what is shorter than 1e-6 has no direction and stays short."""
    norm = torch.linalg.vector_norm(q_wxyz, dim=-1, keepdim=True)
    return q_wxyz / norm.clamp_min(MIN_NORM)


@full_precision
def half_space(q_wxyz: Tensor) -> Tensor:
    """The representative with w >= 0 of each rotation (..., 4)."""
    return torch.where(q_wxyz[..., :1] < 0, -q_wxyz, q_wxyz)


@full_precision
def conjugate(q_wxyz: Tensor) -> Tensor:
    """The inverse of unit quaternions (..., 4)."""
    return torch.cat([q_wxyz[..., :1], -q_wxyz[..., 1:]], dim=-1)


@full_precision
def multiply(q_wxyz: Tensor, p_wxyz: Tensor) -> Tensor:
    """R(q) R(p), the rotation p followed by q, shape (..., 4), with the algebraic sign."""
    qw, qx, qy, qz = q_wxyz.unbind(-1)
    pw, px, py, pz = p_wxyz.unbind(-1)
    return torch.stack(
        [
            qw * pw - qx * px - qy * py - qz * pz,
            qw * px + qx * pw + qy * pz - qz * py,
            qw * py - qx * pz + qy * pw + qz * px,
            qw * pz + qx * py - qy * px + qz * pw,
        ],
        dim=-1,
    )


def _chords(q0: Tensor, q1: Tensor) -> tuple[Tensor, Tensor]:
    """Return |q1 - q0| and |q1 + q0|; their slope is taken as 0 where they are 0."""
    norm = torch.linalg.vector_norm
    return norm(q1 - q0, dim=-1), norm(q1 + q0, dim=-1)


@full_precision
def angle(q0_wxyz: Tensor, q1_wxyz: Tensor) -> Tensor:
    """Angle between unit quaternions as vectors in R^4 [rad], 0..pi, shape (...).

    By atan2 of the two chords: arccos of the dot product is 0 for most pairs that are 1e-4 apart
    in fp32.
    """
    return 2.0 * torch.atan2(*_chords(q0_wxyz, q1_wxyz))


@full_precision
def rotation_angle(q_wxyz: Tensor, p_wxyz: Tensor) -> Tensor:
    """Angle of the rotation between them [rad], 0..pi, the same for q and -q, shape (...)."""
    minus, plus = _chords(q_wxyz, p_wxyz)
    return 4.0 * torch.atan2(torch.minimum(minus, plus), torch.maximum(minus, plus))


@full_precision
def slerp(q0_wxyz: Tensor, q1_wxyz: Tensor, t: float | Tensor) -> Tensor:
    """The point at time `t` of the great circle from q0 (t=0) to q1 (t=1), shape (..., 4).

    Neither end is flipped: end points with w > 0 keep the whole path at w > 0. Opposite end
    points have no such path; the result is then finite and nothing more.
    """
    theta = angle(q0_wxyz, q1_wxyz)[..., None]
    t = spread_time(t, theta)
    scale = 1.0 / _sinc(theta).clamp_min(SINC_FLOOR)
    from_q0 = (1.0 - t) * _sinc((1.0 - t) * theta) * scale
    from_q1 = t * _sinc(t * theta) * scale
    return unit(from_q0 * q0_wxyz + from_q1 * q1_wxyz)


@full_precision
def velocity(q0_wxyz: Tensor, q1_wxyz: Tensor, t: float | Tensor) -> Tensor:
    """Time derivative of `slerp` at `t` (Eq. 7), shape (..., 4).

    Tangent at slerp(q0, q1, t); its length is angle(q0, q1) at every `t`.
    """
    theta = angle(q0_wxyz, q1_wxyz)[..., None]
    t = spread_time(t, theta)
    scale = 1.0 / _sinc(theta).clamp_min(SINC_FLOOR)
    return scale * (torch.cos(t * theta) * q1_wxyz - torch.cos((1.0 - t) * theta) * q0_wxyz)


@full_precision
def exp_step(q_wxyz: Tensor, v: Tensor, dt: float | Tensor) -> Tensor:
    """Follow the velocity `v` (..., 4) from q along a great circle for `dt`; unit, w >= 0.

    Eq. 5 and 6 in closed form. The part of `v` along q is ignored, as it is there.
    """
    dt = spread_time(dt, q_wxyz)
    tangent = v - (q_wxyz * v).sum(-1, keepdim=True) * q_wxyz
    speed = torch.sqrt(tangent.square().sum(-1, keepdim=True) + DISTANCE_EPS)
    arc = speed * dt
    return half_space(unit(torch.cos(arc) * q_wxyz + torch.sin(arc) / speed * tangent))


def random_half_sphere(
    shape: tuple[int, ...],
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniformly distributed rotations as unit quaternions with w >= 0, shape (*shape, 4).

    fp32, or fp64 if `dtype` is.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    return half_space(unit(torch.randn(*shape, 4, generator=generator, device=device, dtype=dtype)))


@full_precision
def squared_error(v: Tensor, u: Tensor) -> Tensor:
    """|v - u|^2 summed over the last dimension (Eq. 2), shape (...)."""
    return (v - u).square().sum(-1)


@full_precision
def cosine_loss(v: Tensor, u: Tensor) -> Tensor:
    """1 - cos(v, u) for velocities (..., 4), shape (...); 0 where |u| < 1e-3.

    Eq. 8 with normalised vectors (it diverges otherwise). `v` is meant to be the raw prediction:
    its part along the quaternion, which integration drops, is penalised here.
    """
    u_speed = torch.linalg.vector_norm(u, dim=-1)
    v_speed = torch.linalg.vector_norm(v, dim=-1).clamp_min(MIN_SPEED)
    scale = v_speed * u_speed.clamp_min(MIN_VELOCITY_ANGLE)
    return torch.where(u_speed < MIN_VELOCITY_ANGLE, 0.0, 1.0 - (v * u).sum(-1) / scale)


@full_precision
def chordal_distance_squared(q_wxyz: Tensor, p_wxyz: Tensor) -> Tensor:
    """min |q -+ p|^2, the same for q and -q, shape (...): 4 sin^2(rotation angle / 4)."""
    return torch.minimum(squared_error(q_wxyz, p_wxyz), squared_error(q_wxyz, -p_wxyz))


@full_precision
def chordal_distance(q_wxyz: Tensor, p_wxyz: Tensor) -> Tensor:
    """min |q -+ p| (Eq. 9), the same for q and -q, shape (...).

    2 sin(rotation angle / 4); 1e-6 in place of 0, where its slope is taken as 0.
    """
    return torch.sqrt(chordal_distance_squared(q_wxyz, p_wxyz) + DISTANCE_EPS)


@full_precision
def rot_geo_scale(loss: Tensor, delta: Tensor, scale: str) -> Tensor:
    """Scale the geometric loss (...) of steps of length `delta`: 'none' or 'inv_delta'.

    The slope of the loss with respect to the velocity is proportional to `delta`, which shrinks
    towards tau = 1; 'inv_delta' divides it out.

    Raises:
        ValueError: another `scale`.
    """
    if scale == "none":
        return loss
    if scale == "inv_delta":
        step = delta.to(loss.dtype).clamp_min(MIN_SCALED_STEP)
        return loss / step.reshape(step.shape + (1,) * (loss.dim() - step.dim()))
    raise ValueError(f"rot_geo_scale is {scale!r}; it must be 'none' or 'inv_delta'")
