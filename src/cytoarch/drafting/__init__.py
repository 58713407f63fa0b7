"""Drafts a manifest from a folder of scans: what the files state is filled in, the rest is for a person."""

from cytoarch.drafting.draft import draft_manifest

__all__ = ["draft_manifest"]
