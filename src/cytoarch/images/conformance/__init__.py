"""Whether what lies in a folder is NGFF 0.5 as the store writes it: names, sizes and metadata are read, no pixel.

Three judges look at every image, label image and collection: the JSON schemas of the standard, the rules of the store
(what the schemas cannot say: sizes of levels, lists that match the folders, shards that are all there), and last, where
nothing was found so far, ome-zarr-models, which opens everything through zarr.
"""

from cytoarch.images.conformance.walk import conformance_faults

__all__ = ["conformance_faults"]
