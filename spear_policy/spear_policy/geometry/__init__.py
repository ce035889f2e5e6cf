"""Rotations, poses, chunks and how a motion is followed, in numpy: no rclpy, no torch.

Quaternions are xyzw here (ROS, files, scipy). The model's wxyz never leaves `spear_policy.model`;
`xyzw_from_wxyz` and `wxyz_from_xyzw` are the one pair that converts.
"""
