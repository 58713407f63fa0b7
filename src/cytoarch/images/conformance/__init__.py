"""Whether what lies in a folder is NGFF 0.5 as the store writes it: names, sizes and metadata are read, no pixel.

Four judges look at every image, label image and collection: zarr (what an array states), the JSON schemas of the
standard (through jsonschema), the rules of the store, and last, where nothing was found so far, ome-zarr-models and
ome-zarr-py, which open everything through zarr. The rules are what the others cannot say: sizes of levels, a corner
that all levels share, lists that match the folders, checksums, shards that are all there.
"""

from cytoarch.images.conformance.walk import conformance_faults

__all__ = ["conformance_faults"]
