"""Graph to graph: derivatives."""
