"""What a batch's flow matching loss is made of, and the figures to log beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor

SPEED_BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)  # edges, in tau


@dataclass(frozen=True)
class FlowLoss:
    """Losses (scalars) and detached figures of one batch.

    Attributes:
        rotation_error_degrees: mean error of the rotation reached by one step from tau to 1.
        rotation_identity_degrees: mean error of a prediction that never rotates. Judge the
            figure above against this one, never by the loss: noise is so much larger than the
            targets that such a prediction has a small loss too (facts/model.md 3.5).
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
