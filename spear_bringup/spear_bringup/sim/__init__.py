"""The simulated world: a MuJoCo table-top behind the Franka's own network protocol. No rclpy."""

import os

# MuJoCo chooses its OpenGL when it is first imported; without a screen its own choice fails.
os.environ.setdefault("MUJOCO_GL", "egl")
