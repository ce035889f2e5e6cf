"""How a data set writes the pose of its end effector: what a row of the table can say.

`timing` is "next" where the numbers of a step say where the arm is at the next one.
"""

from dataclasses import dataclass
from typing import Literal

from spear_policy.model.config_reading import ConfigError
from spear_training.data.oxe.rules import Columns, needed

DETECT = "detect"
Timing = Literal["same", "next"]


@dataclass(frozen=True, kw_only=True)
class QuaternionPose(Columns):
    """Position and quaternion, 7 columns.

    Attributes:
        order: of the quaternion's numbers; "detect": by the joint angles in `joints`.
        joints: of a Franka, where the data set has them.
    """

    order: Literal["xyzw", "wxyz", "detect"] | None = needed()
    joints: Columns | None = None
    timing: Timing = "same"

    def __post_init__(self):
        _require_joints(self.order, self.joints)


@dataclass(frozen=True, kw_only=True)
class MatrixPose(Columns):
    """A 4x4 homogeneous matrix, 16 columns.

    Attributes:
        order: of the 16 numbers; "detect": by where 0 0 0 1 stands.
    """

    order: Literal["row_major", "column_major", "detect"] | None = needed()
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class EulerPose(Columns):
    """Position and three angles, 6 columns.

    Attributes:
        axes: in the order of the columns, as scipy writes them: xyz turns about fixed axes, XYZ
            about turning ones; "detect": by the joint angles in `joints`.
        angle_unit, position_unit: of the numbers.
        default_rotation: D, 9 numbers row by row: the angles are those of R D^T.
        joints: of a Franka, where the data set has them.
    """

    axes: str | None = needed()
    angle_unit: Literal["rad", "deg"] = "rad"
    position_unit: Literal["m", "mm"] = "m"
    default_rotation: tuple[float, ...] | None = None
    joints: Columns | None = None
    timing: Timing = "same"

    def __post_init__(self):
        _require_joints(self.axes, self.joints)
        axes = self.axes
        if axes not in (None, DETECT) and sorted(axes) not in (list("XYZ"), list("xyz")):
            raise ConfigError(f"axes are {axes!r}: three different ones such as xyz or ZYX")
        if self.default_rotation is not None and len(self.default_rotation) != 9:
            raise ConfigError("default_rotation must be 9 numbers, row by row")


@dataclass(frozen=True, kw_only=True)
class JointPose(Columns):
    """Joint angles of a Franka [rad], 7 columns; see franka_kinematics for `end_effector`."""

    end_effector: Literal["flange", "hand"] = "hand"
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class PlanarPose(Columns):
    """x and y [m], 2 columns; height and orientation are constants."""

    z_m: float
    orientation_xyzw: tuple[float, ...]
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class SummedDeltas:
    """No pose at all: those of the steps before are summed up, from the identity.

    Attributes:
        translation_key, rotation_key: features with 3 numbers a step [m], [rad].
        rotation: what the three angles are: "vector" (axis times angle) or Euler axes like "xyz".
        frame: in whose axes they are.
    """

    translation_key: str
    rotation_key: str
    rotation: Literal["vector", "xyz", "XYZ", "zyx", "ZYX"] | None = needed()
    frame: Literal["base", "end_effector"] | None = needed()
    timing: Timing = "same"


PoseRule = QuaternionPose | MatrixPose | EulerPose | JointPose | PlanarPose | SummedDeltas


def _require_joints(order: str | None, joints: Columns | None) -> None:
    if order == DETECT and joints is None:
        raise ConfigError(f"{DETECT!r} needs `joints`: the joint angles tell the order")
