"""Flow matching of whole action chunks: noise and times for training, losses, Euler sampling.

An action is a = [translation (3) | rotation (d) | gripper (1)], a chunk [B, H, D] with
D = `FlowConfig.action_dim`. tau = 0 is noise, tau = 1 is data. Equations are those of
arXiv 2511.17411 as docs/model.md reads them; everything here is fp32 or better.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor

from spear_policy.model import s3
from spear_policy.model.config import FlowConfig
from spear_policy.model.rotation_flows import rotation_flow

# The losses of a batch ---------------------------------------------------------------------------


SPEED_BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)  # edges, in tau


@dataclass(frozen=True)
class FlowLoss:
    """Losses (scalars) and detached figures of one batch.

    Attributes:
        rotation_error_degrees: mean error of the rotation reached by one step from tau to 1.
        rotation_identity_degrees: mean error of a prediction that never rotates. Judge the
            figure above against this one, never by the loss: noise is so much larger than the
            targets that such a prediction has a small loss too.
        speed_ratio: predicted over true rotation speed in each of the intervals between
            `SPEED_BINS`, NaN where the batch has no tau. Near 1 everywhere when trained well.
    """

    translation: Tensor
    gripper: Tensor
    rotation_velocity: Tensor
    rotation_geometric: Tensor
    rotation_error_degrees: Tensor
    rotation_identity_degrees: Tensor
    speed_ratio: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of the four losses (Eq. 10 with weights 1)."""
        return self.translation + self.gripper + self.rotation_velocity + self.rotation_geometric


def weighted_mean(loss: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of `loss` (...) with weights (...), 0 where nothing counts; None: all count alike."""
    if weight is None:
        return loss.mean()
    weight = weight.to(loss.dtype)
    return (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(loss.dtype).tiny)


def speed_ratio(v: Tensor, u: Tensor, tau: Tensor, weight: Tensor | None) -> Tensor:
    """Sum of |v| over sum of |u| in each interval between `SPEED_BINS`, NaN in an empty one.

    Args:
        v, u: predicted and true velocities of the rotation, [B, H, d].
        tau: [B].
        weight: [B, H] or None.
    """
    edges = tau.new_tensor(SPEED_BINS[1:-1])
    interval = torch.bucketize(tau, edges, right=True)
    inside = interval[:, None] == torch.arange(len(SPEED_BINS) - 1, device=tau.device)
    speeds = torch.linalg.vector_norm(torch.stack([v, u]), dim=-1)  # [2, B, H]
    if weight is not None:
        speeds = speeds * weight
    predicted, true = (speeds.sum(-1)[..., None] * inside).sum(-2)
    return predicted / true


# The flow ----------------------------------------------------------------------------------------


GRIPPER_TOLERANCE = 1e-3


@dataclass(frozen=True)
class FlowSample:
    """One training draw for a batch of chunks.

    Attributes:
        tau: [B], time of `noisy`, one for a chunk.
        delta: [B], length of the step that the geometric loss judges; tau + delta <= 1.
        noise: [B, H, D], where the path to `targets` starts.
        noisy: [B, H, D], the point at `tau`: the network's input.
        targets: [B, H, D], the data.
    """

    tau: Tensor
    delta: Tensor
    noise: Tensor
    noisy: Tensor
    targets: Tensor


class FlowMatching:
    """The flow that a `FlowConfig` describes. Has no parameters of its own."""

    def __init__(self, config: FlowConfig):
        self.config = config
        self.rotation = rotation_flow(config)

    def encode(self, translation: Tensor, rotation_wxyz: Tensor, gripper: Tensor) -> Tensor:
        """Actions [..., D] of normalised translations, rotation deltas and gripper targets.

        Args:
            translation: (..., 3), normalised by the caller.
            rotation_wxyz: (..., 4), unit quaternions in the axes of `FlowConfig.rotation_frame`.
            gripper: (..., 1), -1 closed or +1 open.

        Raises:
            ValueError: a wrong shape, a number that is not finite, a quaternion that is not of
                unit length, another gripper value.
        """
        named = ("translation", translation, 3), ("gripper", gripper, 1)
        for name, value, size in (*named, ("rotation", rotation_wxyz, 4)):
            if value.shape != (*rotation_wxyz.shape[:-1], size):
                raise ValueError(
                    f"{name} has shape {list(value.shape)}; translation (..., 3), rotation "
                    f"(..., 4) and gripper (..., 1) must agree in all other dimensions"
                )
        for name, value, _ in named:
            _check_finite(value, name)
        s3.check_unit(rotation_wxyz, "rotation")
        if ((gripper.abs() - 1.0).abs() > GRIPPER_TOLERANCE).any():
            raise ValueError("gripper targets must be -1 (closed) or +1 (open); binarise them")
        return self._join(translation, self.rotation.encode(rotation_wxyz), gripper)

    def decode(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Translation (..., 3), unit quaternion wxyz with w >= 0 (..., 4), gripper (..., 1).

        The gripper is open where its value is positive.

        Raises:
            ValueError: a number that is not finite, or numbers that mean no rotation.
        """
        self._check_dim(actions, "actions")
        _check_finite(actions, "actions")
        translation, rotation, gripper = self._split(s3.at_least_fp32(actions))
        q_wxyz = self.rotation.decode(rotation)
        s3.check_unit(q_wxyz, "the rotation decoded from actions")
        return translation, q_wxyz, gripper

    def draw(
        self,
        targets: Tensor,
        generator: torch.Generator | None = None,
        tau: float | Tensor | None = None,
    ) -> FlowSample:
        """Draw times and noise for encoded chunks [B, H, D].

        One tau and one delta for a chunk, noise of its own for each step.

        Args:
            generator: makes the draw reproducible; may live on another device than `targets`.
            tau: a number or [B] in place of a drawn one.

        Raises:
            ValueError: a wrong shape, a given tau outside 0..1.
        """
        self._check_chunk(targets, "targets")
        targets = s3.at_least_fp32(targets)
        batch, length, _ = targets.shape
        uniform = _uniform(2, batch, generator, targets)
        if tau is None:
            tau = tau_quantile(uniform[0], self.config)
        else:
            tau = _given_tau(tau, targets)
        least = (1.0 - tau).clamp_max(self.config.min_delta)
        delta = least + (1.0 - tau - least) * uniform[1]
        noise = self.noise(batch, length, generator, targets.device, targets.dtype)
        x, rotation, g = self._split(noise)
        noise = self._join(x, self.rotation.pair(rotation, self._split(targets)[1]), g)
        noisy = self._interpolate(noise, targets, tau)
        return FlowSample(tau, delta, noise, noisy, targets)

    def loss(
        self, predicted_velocity: Tensor, sample: FlowSample, weight: Tensor | None = None
    ) -> FlowLoss:
        """Losses of predicted velocities [B, H, D] at `sample.noisy`.

        Each is summed over the dimensions of its part of the action (Eq. 2), then averaged.

        Args:
            weight: [B, H], how much each step counts; None counts all alike. A batch in which
                nothing counts has loss 0.

        Raises:
            ValueError: a wrong shape.
        """
        for name, value in (("predicted_velocity", predicted_velocity), ("weight", weight)):
            expected = sample.targets.shape[: 2 if name == "weight" else 3]
            if value is not None and value.shape != expected:
                raise ValueError(f"{name} has shape {list(value.shape)}, not {list(expected)}")
        v_x, v_q, v_g = self._split(s3.at_least_fp32(predicted_velocity))
        x0, q0, g0 = self._split(sample.noise)
        x1, q1, g1 = self._split(sample.targets)
        q = self._split(sample.noisy)[1]
        flow, tau, delta = self.rotation, sample.tau, sample.delta
        u_q = flow.velocity(q0, q1, tau)
        ahead = flow.interpolate(q0, q1, tau + delta)

        def mean(loss):
            return weighted_mean(loss, weight)

        with torch.no_grad():
            data = flow.decode(q1)
            error = s3.rotation_angle(flow.decode(flow.step(q, v_q, 1.0 - tau)), data)
            unrotated = s3.rotation_angle(data, data.new_tensor([1.0, 0.0, 0.0, 0.0]))
            ratio = speed_ratio(v_q, u_q, tau, weight)
        return FlowLoss(
            translation=mean(s3.squared_error(v_x, x1 - x0)),
            gripper=mean(s3.squared_error(v_g, g1 - g0)),
            rotation_velocity=mean(flow.velocity_loss(v_q, u_q)),
            rotation_geometric=mean(flow.geometric_loss(flow.step(q, v_q, delta), ahead, delta)),
            rotation_error_degrees=torch.rad2deg(mean(error)),
            rotation_identity_degrees=torch.rad2deg(mean(unrotated)),
            speed_ratio=ratio,
        )

    def noise(
        self,
        batch: int,
        chunk_length: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Where sampling starts, [B, H, D].

        Drawn on the generator's device, then moved, so that a seed means the same everywhere.
        """
        source = generator.device if generator else device
        dtype = torch.promote_types(dtype, torch.float32)

        def normal(size):
            shape = (batch, chunk_length, size)
            return torch.randn(shape, generator=generator, device=source, dtype=dtype)

        x = normal(3)
        rotation = self.rotation.noise((batch, chunk_length), generator, source, dtype)
        return self._join(x, rotation, normal(1)).to(device or source)

    def step(self, actions: Tensor, velocity: Tensor, dt: float | Tensor) -> Tensor:
        """Follow a velocity [B, H, D] from `actions` [B, H, D] for `dt`."""
        a_x, a_q, a_g = self._split(s3.at_least_fp32(actions))
        v_x, v_q, v_g = self._split(s3.at_least_fp32(velocity))
        dt_x = s3.spread_time(dt, a_x)
        return self._join(a_x + dt_x * v_x, self.rotation.step(a_q, v_q, dt), a_g + dt_x * v_g)

    def integrate(
        self,
        velocity_fn: Callable[[Tensor, int, float], Tensor],
        noise: Tensor,
        steps: int | None = None,
    ) -> Tensor:
        """Euler's method from noise [B, H, D] to actions [B, H, D].

        Args:
            velocity_fn: velocity_fn(a, k, tau), the velocity [B, H, D] at a [B, H, D] in step
                k = 0..N-1; tau = k / N is a Python number, the same for the whole batch.
            steps: N; None takes `FlowConfig.steps`.

        Raises:
            ValueError: fewer than one step, a wrong shape.
        """
        steps = self.config.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"{steps} denoising steps; there must be at least 1")
        self._check_chunk(noise, "noise")
        actions = s3.at_least_fp32(noise)
        for k in range(steps):
            actions = self.step(actions, velocity_fn(actions, k, k / steps), 1.0 / steps)
        return actions

    def _interpolate(self, a0: Tensor, a1: Tensor, tau: Tensor) -> Tensor:
        (x0, q0, g0), (x1, q1, g1) = self._split(a0), self._split(a1)
        t = s3.spread_time(tau, a1)
        rotation = self.rotation.interpolate(q0, q1, tau)
        return self._join((1.0 - t) * x0 + t * x1, rotation, (1.0 - t) * g0 + t * g1)

    def _split(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return actions.split((3, self.rotation.dims, 1), dim=-1)

    @staticmethod
    def _join(translation: Tensor, rotation: Tensor, gripper: Tensor) -> Tensor:
        return s3.at_least_fp32(torch.cat([translation, rotation, gripper], dim=-1))

    def _check_dim(self, actions: Tensor, name: str) -> None:
        if actions.shape[-1:] != (self.config.action_dim,):
            raise ValueError(
                f"{name} has shape {list(actions.shape)}; actions of rotation "
                f"{self.config.rotation!r} have {self.config.action_dim} numbers"
            )

    def _check_chunk(self, actions: Tensor, name: str) -> None:
        self._check_dim(actions, name)
        if actions.dim() != 3:
            raise ValueError(f"{name} has shape {list(actions.shape)}, not [B, H, D]")


def tau_quantile(probability: Tensor, config: FlowConfig) -> Tensor:
    """The time (...) below which a drawn tau lies with probability 1 - `probability`.

    tau = time_scale (1 - b), b ~ Beta(time_alpha, time_beta), through b's inverse distribution:
    torch's own draws from a Beta take no generator.
    """
    alpha, beta = config.time_alpha, config.time_beta
    if beta == 1.0:
        b = probability ** (1.0 / alpha)
    else:  # no closed form
        b = torch.from_numpy(betaincinv(alpha, beta, probability.double().cpu().numpy()))
        b = b.to(probability)
    return config.time_scale * (1.0 - b)


def _given_tau(tau: float | Tensor, targets: Tensor) -> Tensor:
    tau = torch.as_tensor(tau, dtype=targets.dtype, device=targets.device)
    if tau.shape not in ((), targets.shape[:1]) or not ((tau >= 0) & (tau <= 1)).all():
        raise ValueError(f"tau must be one number in 0..1 for each chunk, [B], not {tau.tolist()}")
    return tau.expand(targets.shape[0]).contiguous()


def _uniform(rows: int, batch: int, generator, like: Tensor) -> Tensor:
    source = generator.device if generator else like.device
    drawn = torch.rand(rows, batch, generator=generator, device=source, dtype=like.dtype)
    return drawn.to(like.device)


def _check_finite(values: Tensor, name: str) -> None:
    if not torch.isfinite(values).all():
        raise ValueError(
            f"{name} has values that are not finite numbers; remove them at their source"
        )
