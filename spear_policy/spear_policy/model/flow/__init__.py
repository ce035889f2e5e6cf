"""Flow matching of action chunks, and the ways to represent a rotation in it."""
