"""Loops to machine code, and the NumPy interpreter that defines them."""
