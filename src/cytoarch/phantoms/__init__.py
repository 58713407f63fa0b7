"""Synthetic brains whose truth is known: the default of the demonstration and the oracle of the tests.

From the ground up: `sphere` (maps over directions), `profiles` (what areas are made of), `white_surface`, `anatomy`
(the reference and its individuals), `surfaces` and `cortex` (meshes and lookup maps), `nuisances`, `sections` (cutting
and mounting), `kernels`, `damage`, `truth`, `cells`, `rendering` (pixels), `points`, `scribbles`, `legibility` (what
areas can be read from), `files`, `tables` and `writing` (a phantom in a folder). See docs/phantoms.md.
"""
