"""Comparison with PyKeOps, formula by formula."""
