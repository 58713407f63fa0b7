"""Neurons in volumes: segmented by an inflated network, traced to trees, compared with trees that are known."""
