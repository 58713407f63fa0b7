"""Synthetic brains whose truth is known: the default of the demonstration and the oracle of the tests."""
