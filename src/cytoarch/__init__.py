"""Maps the cytoarchitecture of whole brains."""

__version__ = "0.1.0"
