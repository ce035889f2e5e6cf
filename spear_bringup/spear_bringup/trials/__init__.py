"""Trials: one bag and one score row each, and the report made from both. No rclpy here."""
