"""Episodes of a LeRobotDataset folder (v2.0, v2.1, v3.0), whoever recorded it."""
