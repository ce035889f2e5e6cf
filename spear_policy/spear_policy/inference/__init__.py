"""Engines: an observation goes in, a chunk comes out. No rclpy."""
