"""Photographs to 3D annotations: 2D boxes, masks, a point cloud, oriented 3D boxes."""
