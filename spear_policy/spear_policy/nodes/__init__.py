"""ROS shells: they wire parameters, topics and clocks to the logic, and hold none of their own."""
