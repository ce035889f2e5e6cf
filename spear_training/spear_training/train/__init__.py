"""The training loop of both stages: configuration, optimiser, processes, checkpoints, metrics."""
