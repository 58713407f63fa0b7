"""Heads trained on embeddings from the labels of a brain."""
