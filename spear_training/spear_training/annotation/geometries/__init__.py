"""Where the pixels of a picture lie in space: the stage after the segmenter.

| name | class | asks |
|---|---|---|
| moge | `moge.MogeGeometry` | a local network; any photograph |
| depth | `depth.DepthGeometry` | a depth picture and the camera's intrinsics |
"""
