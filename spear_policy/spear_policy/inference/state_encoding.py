"""The end effector's state as the model reads it, and the model's chunk as the robot reads it.

The model writes quaternions wxyz with w >= 0; everything outside is xyzw. Only numpy: the torch
counterpart of the change of axes is spear_policy.model.flow.rotation_flows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.chunks import GRIPPER_CLOSED, GRIPPER_OPEN
from spear_policy.geometry.poses import Pose
from spear_policy.inference.statistics import Statistics, denormalise, normalise

# w of R_ref^T R; below it the orientation is more than 157 degrees from the reference.
SEAM_MARGIN_WARNING = 0.2
# A measured opening may overshoot its stops by its calibration, not by its unit.
OPENING_SLACK = 0.1


@dataclass(frozen=True, eq=False)
class DecodedDeltas:
    """N deltas in the robot's terms, all from one anchor pose.

    Attributes:
        translations_m: (N, 3), base frame.
        rotations_xyzw: (N, 4) with w >= 0, end-effector frame of the anchor.
        gripper_openings: (N,), 0 closed or 1 open.
    """

    translations_m: NDArray
    rotations_xyzw: NDArray
    gripper_openings: NDArray


def encode_state(
    measured: Pose, gripper_opening: float, statistics: Statistics, reference_xyzw: ArrayLike
) -> NDArray:
    """The model's state (8,) float32: normalised position (3), rotation wxyz (4), gripper (1).

    The rotation is R_ref^T R with w >= 0 (DESIGN section 3); the gripper is -1 closed .. 1 open.

    Args:
        measured: end-effector pose, base frame.
        gripper_opening: 0 closed .. 1 open.
        reference_xyzw: (4,) R_ref of this robot, from the card.

    Raises:
        ValueError: a gripper opening that is not finite or not between 0 and 1, or a reference
            that is no unit quaternion.
    """
    if not -OPENING_SLACK <= gripper_opening <= 1.0 + OPENING_SLACK:
        raise ValueError(
            f"the gripper opening is {gripper_opening:g}; it must lie between 0 (closed) and 1 "
            "(open): correct it in the robot driver"
        )
    pose = np.concatenate([measured.position_m, measured.orientation_xyzw])
    return encode_states(pose[None], [gripper_opening], statistics, reference_xyzw)[0]


def encode_states(
    poses: ArrayLike, openings: ArrayLike, statistics: Statistics, reference_xyzw: ArrayLike
) -> NDArray:
    """`encode_state` for poses (N, 7) and openings (N,) of one robot: (N, 8) float32.

    Raises:
        ValueError: the reference is no unit quaternion.
    """
    poses = np.asarray(poses, float)
    position = normalise(poses[:, :3], statistics.position, statistics.scheme)
    rotation = quat.wxyz_from_xyzw(_from_reference(poses[:, 3:], reference_xyzw))
    gripper = 2.0 * np.clip(np.asarray(openings, float), 0.0, 1.0) - 1.0
    return np.concatenate([position, rotation, gripper[:, None]], axis=1).astype(np.float32)


def decode_chunk(
    translations: ArrayLike,
    rotations_wxyz: ArrayLike,
    grippers: ArrayLike,
    anchor: Pose,
    statistics: Statistics,
    rotation_frame: str = "end_effector",
) -> DecodedDeltas:
    """The model's answer in the robot's terms.

    Args:
        translations: (N, 3) normalised.
        rotations_wxyz: (N, 4) unit, in the axes of `rotation_frame`.
        grippers: (N,), open where above 0.
        anchor: the pose that the deltas start from, base frame.
        rotation_frame: `FlowConfig.rotation_frame`, "end_effector" or "base".

    Raises:
        ValueError: shapes that do not belong together, another `rotation_frame`, or a step that
            is not finite or turns by no rotation; the text names the step.
    """
    translations, rotations = np.asarray(translations, float), np.asarray(rotations_wxyz, float)
    grippers = np.asarray(grippers, float)
    steps = len(translations) if translations.ndim else 0
    shapes = translations.shape, rotations.shape, grippers.shape
    if not steps or shapes != ((steps, 3), (steps, 4), (steps,)):
        raise ValueError(
            "a chunk has translations (N, 3), rotations (N, 4) and grippers (N,), not "
            "{}, {} and {}; check the config of the model".format(*shapes)
        )
    numbers = np.concatenate([translations, rotations, grippers[:, None]], axis=1)
    bad = ~np.isfinite(numbers).all(axis=1) | ~quat.is_unit(quat.xyzw_from_wxyz(rotations))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"step {first + 1} of {steps} of the model's chunk is {numbers[first].tolist()} "
            "(translation, rotation wxyz, gripper), which is no motion; load the checkpoint "
            "again, and look at the pictures and the state that the model got"
        )
    return DecodedDeltas(
        translations_m=denormalise(translations, statistics.translation, statistics.scheme),
        rotations_xyzw=_end_effector_axes(
            quat.unit(quat.xyzw_from_wxyz(rotations)), anchor.orientation_xyzw, rotation_frame
        ),
        gripper_openings=np.where(grippers > 0, GRIPPER_OPEN, GRIPPER_CLOSED),
    )


def seam_margin(orientation_xyzw: ArrayLike, reference_xyzw: ArrayLike) -> float:
    """w of R_ref^T R: 1 at the reference orientation, 0 at the seam, half a turn away from it.

    At the seam the encoded quaternion jumps to its negative, so that noise in the measurement
    looks to the model like a jump of the state.
    """
    return float(_from_reference(orientation_xyzw, reference_xyzw)[..., 3])


def seam_warning(
    orientation_xyzw: ArrayLike, reference_xyzw: ArrayLike, limit: float = SEAM_MARGIN_WARNING
) -> str:
    """A sentence when `seam_margin` is below `limit`; empty otherwise."""
    margin = seam_margin(orientation_xyzw, reference_xyzw)
    if margin >= limit:
        return ""
    turn_deg = np.degrees(quat.angle(reference_xyzw, orientation_xyzw))
    return (
        f"the end effector is turned {turn_deg:.0f} degrees from the reference orientation of the "
        f"card (margin {margin:.2f}, limit {limit:g}): near 180 the encoded rotation changes its "
        "sign; start nearer to it, or train with a reference orientation near this one"
    )


def _from_reference(orientation_xyzw: ArrayLike, reference_xyzw: ArrayLike) -> NDArray:
    reference = quat.unit(reference_xyzw)
    return quat.half_space(quat.multiply(quat.inverse(reference), orientation_xyzw))


def _end_effector_axes(rotations_xyzw: NDArray, anchor_xyzw: NDArray, frame: str) -> NDArray:
    if frame == "base":
        turned = quat.multiply(rotations_xyzw, anchor_xyzw)
        rotations_xyzw = quat.multiply(quat.inverse(anchor_xyzw), turned)
    elif frame != "end_effector":
        raise ValueError(f"the rotation frame is {frame!r}; it must be 'end_effector' or 'base'")
    return quat.half_space(rotations_xyzw)
