"""Drive a Franka from action chunks.

Example:
    ros2 run spear_bringup franka_driver --ros-args -p robot_host:=172.16.0.2
    # a simulated robot:
    ros2 run spear_bringup franka_driver --ros-args -p robot_host:=127.0.0.1 -p realtime:=ignore
"""

import sys
from dataclasses import fields

from spear_bringup.drivers.franka import (
    FrankaArm,
    FrankaGripper,
    FrankaGripperSettings,
    FrankaSettings,
)
from spear_bringup.nodes.arm_node import ArmNode
from spear_policy.nodes.lifecycle import run
from spear_policy.nodes.parameters import node_help


class FrankaDriver(ArmNode):
    """`ArmNode` for a Franka arm with the Franka hand."""

    def __init__(self, arguments: list[str] | None = None):
        super().__init__("franka_driver", arguments)

    def make_arm(self) -> FrankaArm:
        p = self.params
        return FrankaArm(
            FrankaSettings(
                p["robot_host"],
                **{field.name: p[field.name] for field in fields(FrankaSettings)[1:]},
            )
        )

    def make_gripper(self) -> FrankaGripper | None:
        p = self.params
        if not p["use_gripper"]:
            return None
        return FrankaGripper(
            FrankaGripperSettings(
                address=p["robot_host"],
                speed_m_s=p["gripper_speed_m_s"],
                force_n=p["gripper_force_n"],
                connect_timeout_s=p["connect_timeout_s"],
            )
        )


def main() -> None:
    """Run the node; `--help` shows how."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(node_help("spear_bringup", "franka_driver", __doc__))
        return
    sys.exit(run(FrankaDriver))


if __name__ == "__main__":
    main()
