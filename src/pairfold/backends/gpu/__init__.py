"""Kernels as Triton source: printed, compiled for any GPU, launched on torch's tensors."""
