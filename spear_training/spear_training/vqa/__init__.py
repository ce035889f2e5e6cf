"""3D questions and answers about annotated pictures, for stage 1."""
