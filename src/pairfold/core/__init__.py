"""Nodes and scalar values: the nouns; no operation is known here by name."""
