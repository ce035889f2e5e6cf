"""The command path in numpy: chunk player, command gate, gripper logic. No rclpy, no torch."""
