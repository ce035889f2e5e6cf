"""Weights in files: our own folders, and the public checkpoints of PaliGemma, MoGe and pi0."""
