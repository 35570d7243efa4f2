"""Kernels as Triton source: printed, compiled for any GPU, launched on arrays of GPUs."""
