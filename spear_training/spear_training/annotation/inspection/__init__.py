"""A page for people: what a run has found, on a sample of its pictures, and what it comes to."""
