"""Names of the stages that a user can choose from; light, for the sake of --help."""

DETECTORS = ("gemini", "grounding_dino", "given")
SEGMENTERS = ("sam2", "given")
GEOMETRIES = ("moge", "depth")
NETWORKS = ("grounding_dino", "sam2", "moge")
EXECUTORS = ("local", "ray")
