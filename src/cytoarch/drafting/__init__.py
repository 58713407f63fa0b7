"""Drafts a manifest from a folder of scans: what the files state is filled in, the rest is for a person."""

from cytoarch.drafting.draft import draft_manifest
from cytoarch.drafting.known_labels import draft_label_table

__all__ = ["draft_label_table", "draft_manifest"]
