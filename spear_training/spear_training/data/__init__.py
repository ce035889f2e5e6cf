"""Readers of recorded data: what goes in is anything, what comes out is an `Episode`."""
