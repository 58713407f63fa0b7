"""Scans as they come, and images in the store: NGFF 0.5 on Zarr v3."""
