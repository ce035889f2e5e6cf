"""Robot adapters: one file a robot, all behind `protocol.Arm` and `protocol.Gripper`. No rclpy."""
