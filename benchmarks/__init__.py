"""Benchmarks of pairfold against PyKeOps, torch and hand-written C++; see `run.py`."""
