"""From two pictures, a sentence and the arm's pose to five end-effector deltas, without ROS.

python3 docs/examples/infer_from_two_pictures.py CHECKPOINT EXTERNAL.jpg WRIST.jpg "a sentence"
"""

import sys

import cv2

from spear_policy.geometry.poses import Pose
from spear_policy.inference.engine import Observation
from spear_policy.inference.spear_engine import SpearEngine


def main(checkpoint, external, wrist, instruction):
    engine = SpearEngine.from_folder(checkpoint, robot="franka")
    engine.reset(instruction)
    images = {"external": cv2.imread(external), "wrist": cv2.imread(wrist)}
    gripper_down = Pose([0.5, 0.0, 0.3], [1.0, 0.0, 0.0, 0.0])  # base frame [m], xyzw
    chunk = engine.infer(
        Observation(
            stamp_s=0.0,
            measured=gripper_down,
            commanded=gripper_down,
            gripper_opening=1.0,
            instruction=instruction,
            images={name: cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB) for name, bgr in images.items()},
        )
    )
    for time_s, delta_m, opening in zip(
        chunk.due_times_s(), chunk.translations_m, chunk.gripper_openings, strict=True
    ):
        print(f"at {time_s:.1f} s: {1000 * delta_m} mm from the anchor, gripper {opening:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
