"""Bags of our own trials and of other recorders, as episodes."""
