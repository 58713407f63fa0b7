"""Encoders trained without a map of areas: from where patches lie (SpatialNCE), beside the methods it is judged by."""
